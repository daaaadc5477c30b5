"""Child process of ``check.py``: reads ``start stop`` lines, answers each with a pickled outcome, ends with its input."""

import json
import pickle
import signal
import sys
from pathlib import Path

from pipeline.data.check import RowChecker, check_range


def main() -> None:
    """Serve until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its helpers
    options = json.loads(sys.argv[1])
    checker = RowChecker(allow_final_calls=options["allow_final_calls"])
    for request in sys.stdin.buffer:
        start, stop = map(int, request.split())
        pickle.dump(check_range(Path(options["path"]), start, stop, checker), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

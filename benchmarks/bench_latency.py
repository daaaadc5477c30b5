"""Latency of a short tool call on a running server, warm: what a person waits for after pressing Enter.

Run ``llmops deploy serve --model models/task-agent``, then
``python benchmarks/bench_latency.py --base-url http://127.0.0.1:8080/v1 --model task-agent --requests 50``.
Sends sentences of different lengths with the five tools at temperature 0, one after the other, after three unmeasured
ones. Every sentence is sent once, so only the prefix of system prompt and tools is warm, as in real use. With several
``--base-url`` each sentence goes to all servers in turn, and the median of the paired ratios is printed.
"""

import argparse
import os
import platform
import statistics
import sys
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.core.messages import Message
from pipeline.inference.client import ChatClient, Completion, UnparsableToolCallError
from pipeline.task_api.tools import load_tools, system_prompt

TODAY = date(2026, 3, 11)
WARM_UP_REQUESTS = 3
_VERBS = ("Add a task:", "Remind me to", "Please note that I have to", "Create a task to", "New task:")
_THINGS = (
    "call the dentist", "pay the electricity bill", "water the plants", "send the report to Ana", "book a flight",
    "renew my passport", "clean the kitchen", "review the budget", "buy a birthday present", "update the website",
    "fix the bicycle", "read the contract",
)  # fmt: skip


def main() -> int:
    """Measure and print a table; exit 1 when a request fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", action="append", help="repeat it to compare servers")
    parser.add_argument("--model", default="task-agent")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    sentences = [f"{verb} {thing}" for thing in _THINGS for verb in _VERBS]
    if not 2 <= options.requests <= len(sentences) - WARM_UP_REQUESTS:
        parser.error(f"--requests must be between 2 and {len(sentences) - WARM_UP_REQUESTS}")
    urls: list[str] = options.base_url or ["http://127.0.0.1:8080/v1"]
    answers: list[list[Completion | None]] = [[] for _ in urls]
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(ChatClient(url, options.model)) for url in urls]
            for sentence in sentences[: WARM_UP_REQUESTS + options.requests]:
                for client, collected in zip(clients, answers, strict=True):
                    collected.append(ask(client, sentence, options.max_tokens))
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)
        return 1
    print(f"hardware: {describe_hardware()}")
    measured = [collected[WARM_UP_REQUESTS:] for collected in answers]
    for url, collected in zip(urls, measured, strict=True):
        print_table(url, collected)
    for url, collected in zip(urls[1:], measured[1:], strict=True):
        print_comparison(url, collected, measured[0])
    return 0


def ask(client: ChatClient, sentence: str, max_tokens: int) -> Completion | None:
    """Return the answer to a sentence; None when its call cannot be parsed."""
    messages = [
        Message(role="system", content=system_prompt(TODAY)),
        Message(role="user", content=sentence),
    ]
    try:
        return client.complete(messages, tools=load_tools(), max_tokens=max_tokens)
    except UnparsableToolCallError:
        return None


def print_comparison(url: str, found: list[Completion | None], first: list[Completion | None]) -> None:
    """Print the median of the paired ratios to the first server, and how many answers are the same."""
    pairs = [(one, other) for one, other in zip(found, first, strict=True) if one and other]
    ratio = statistics.median(one.seconds / other.seconds for one, other in pairs)
    num_equal = sum(strip_ids(one) == strip_ids(other) for one, other in pairs)
    print(f"{url}: {ratio:.2f} of the time of the first; {num_equal} of {len(pairs)} answers are equal")


def strip_ids(answer: Completion) -> tuple[str | None, list[tuple[str, str]]]:
    """Return what an answer says and calls; ids of calls are random."""
    calls = [(call.name, str(call.arguments)) for call in answer.message.tool_calls]
    return answer.message.content, calls


def print_table(url: str, collected: list[Completion | None]) -> None:
    """Print percentiles of milliseconds and tokens."""
    answers = [answer for answer in collected if answer is not None]
    num_unparsable = len(collected) - len(answers)
    if len(answers) < 2:
        print(f"{url}: only {len(answers)} answers could be measured, {num_unparsable} were unparsable")
        return
    columns = {
        "latency ms": [answer.seconds * 1000 for answer in answers],
        "prompt tokens": [float(answer.prompt_tokens) for answer in answers],
        "new prompt tokens": [float(answer.prompt_tokens - answer.cached_tokens) for answer in answers],
        "answer tokens": [float(answer.completion_tokens) for answer in answers],
        "ms per answer token": [
            answer.seconds * 1000 / max(1, answer.completion_tokens) for answer in answers
        ],
    }
    num_calls = sum(bool(answer.message.tool_calls) for answer in answers)
    print(f"{url}: requests: {len(answers)}, with a tool call: {num_calls}, unparsable: {num_unparsable}")
    print(f"{'':<22}{'min':>9}{'p50':>9}{'p95':>9}{'max':>9}")
    for name, values in columns.items():
        p95 = statistics.quantiles(values, n=20, method="inclusive")[-1]
        print(f"{name:<22}{min(values):>9.1f}{statistics.median(values):>9.1f}{p95:>9.1f}{max(values):>9.1f}")


def describe_hardware() -> str:
    """Return CPU model, cores and load, the facts a latency means nothing without."""
    cpu_facts = Path("/proc/cpuinfo")
    lines = cpu_facts.read_text(encoding="utf-8").splitlines() if cpu_facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = os.getloadavg()[0]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, load average {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())

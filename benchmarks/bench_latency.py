"""Latency of a short tool call on a running server, warm: what a person waits for after pressing Enter.

Run ``llmops deploy serve --model models/task-agent``, then
``python benchmarks/bench_latency.py --base-url http://127.0.0.1:8080/v1 --model task-agent --requests 50``.
Sends sentences of different lengths with the five tools at temperature 0, one after the other, after three unmeasured
ones. Every sentence is sent once, so only the prefix of system prompt and tools is warm, as in real use.
"""

import argparse
import os
import platform
import statistics
import sys
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
    parser.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--model", default="task-agent")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    sentences = [f"{verb} {thing}" for thing in _THINGS for verb in _VERBS]
    if not 2 <= options.requests <= len(sentences) - WARM_UP_REQUESTS:
        parser.error(f"--requests must be between 2 and {len(sentences) - WARM_UP_REQUESTS}")
    answers: list[Completion] = []
    num_unparsable = 0
    try:
        with ChatClient(options.base_url, options.model) as client:
            for number, sentence in enumerate(sentences[: WARM_UP_REQUESTS + options.requests]):
                messages = [
                    Message(role="system", content=system_prompt(TODAY)),
                    Message(role="user", content=sentence),
                ]
                try:
                    answer = client.complete(messages, tools=load_tools(), max_tokens=options.max_tokens)
                except UnparsableToolCallError:
                    num_unparsable += 1
                    continue
                if number >= WARM_UP_REQUESTS:
                    answers.append(answer)
    except PipelineError as error:
        print(error.to_json(), file=sys.stderr)
        return 1
    if len(answers) < 2:
        print(
            f"only {len(answers)} answers could be measured, {num_unparsable} were unparsable",
            file=sys.stderr,
        )
        return 1
    print_table(answers, num_unparsable)
    return 0


def print_table(answers: list[Completion], num_unparsable: int) -> None:
    """Print percentiles of milliseconds and tokens."""
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
    print(f"hardware: {describe_hardware()}")
    print(f"requests: {len(answers)}, with a tool call: {num_calls}, unparsable: {num_unparsable}")
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

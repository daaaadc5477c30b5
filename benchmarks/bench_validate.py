"""Cost of ``data validate`` against a naive validator and against parsing alone.

Run ``python benchmarks/bench_validate.py [--rows 1000000] [--runs 5]``. Every variant is a process of its own, the
variants take turns, and numbers are medians of user + system CPU seconds, children included; memory is the largest
resident size of one process. Rows: 60 % ShareGPT, 25 % OpenAI messages with tools, calls and results, 15 % Alpaca,
about 950 bytes, 0.5 % broken; a second file has only broken rows.

The naive validator is what somebody who knows pydantic writes for these rows: ``json.loads``, then ``model_validate`` of
one model of the whole row (turns, tools, calls), with the rules on empty text, order, declared tools, call ids and
results as validators, and every error written to a file with line, path and message, as ``data validate`` does. It
finds as many broken rows in these files. It knows nothing of repeated keys, numbers out of range, argument schemas, and
contradictions, which would make it slower, and does not stop at the first error of a row.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.task_api.tools import load_tools

_TEXT = (
    "please remind me to send the quarterly report before Friday because the team needs all numbers for planning "
    "and nobody has looked at the budget since the last meeting in Vienna where Priya asked for a second opinion"
)
_WORDS = _TEXT.split()
_ORJSON = """
import sys, orjson
count = 0
with open(sys.argv[1], "rb") as lines:
    for line in lines:
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            count += 1
print(count)
"""
_NAIVE = """
import json, sys
from typing import Any, Literal
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

def is_text(text):
    text.encode()  # half a surrogate pair cannot be encoded
    if not text.strip():
        raise ValueError("empty text")
    return text
class Function(BaseModel):
    name: str = Field(min_length=1)
    arguments: str
    @field_validator("arguments")
    @classmethod
    def check(cls, arguments):
        if not isinstance(json.loads(arguments), dict):
            raise ValueError("arguments are no object")
        return arguments
class Call(BaseModel):
    id: str = Field(min_length=1)
    type: Literal["function"]
    function: Function
class Message(BaseModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    @model_validator(mode="after")
    def check(self):
        if self.content is not None:
            is_text(self.content)
        elif not self.tool_calls:
            raise ValueError("no content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only the assistant calls tools")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("a result names its call, nothing else does")
        return self
class Declaration(BaseModel):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
class Tool(BaseModel):
    type: Literal["function"]
    function: Declaration
class Turn(BaseModel):
    speaker: Literal["system", "human", "user", "gpt", "assistant"] = Field(alias="from")
    value: str
    @field_validator("value")
    @classmethod
    def check(cls, value):
        return is_text(value)
ROLES = {"human": "user", "gpt": "assistant"}
BEFORE = {
    "system": {None},
    "user": {None, "system", "assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool"},
}
class Row(BaseModel):
    messages: list[Message] | None = None
    conversations: list[Turn] | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    tools: list[Tool] | None = None
    @model_validator(mode="after")
    def check(self):
        if (self.messages is not None) + (self.conversations is not None) + (self.instruction is not None) != 1:
            raise ValueError("not exactly one format")
        if self.messages is not None:
            check_calls(self.messages, {tool.function.name for tool in self.tools or ()})
            check_order([message.role for message in self.messages])
        elif self.conversations is not None:
            check_order([ROLES.get(turn.speaker, turn.speaker) for turn in self.conversations])
        else:
            is_text(self.instruction)
            is_text(self.output or "")
        return self
def check_order(roles):
    previous = None
    for role in roles:
        if previous not in BEFORE[role]:
            raise ValueError("order")
        previous = role
    if previous != "assistant":
        raise ValueError("the assistant ends")
def check_calls(messages, names):
    seen, waiting = set(), set()
    for message in messages:
        if message.role != "tool" and waiting:
            raise ValueError("unanswered call")
        for call in message.tool_calls or ():
            if call.function.name not in names or call.id in seen:
                raise ValueError("call")
            seen.add(call.id)
            waiting.add(call.id)
        if message.role == "tool":
            waiting.remove(message.tool_call_id)
    if waiting:
        raise ValueError("unanswered call")

count = 0
with open(sys.argv[1], "rb") as lines, open(sys.argv[1] + ".errors", "w") as errors:
    for number, line in enumerate(lines, 1):
        try:
            Row.model_validate(json.loads(line))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            problem = [{"path": item["loc"], "code": item["type"], "message": item["msg"]} for item in found]
        except (ValueError, KeyError, RecursionError) as error:
            problem = [{"path": [], "code": "invalid", "message": str(error)}]
        else:
            continue
        count += 1
        errors.write(json.dumps({"line": number, "problems": problem}) + "\\n")
print(count)
"""


class Cost(NamedTuple):
    """What one run took."""

    cpu_seconds: float
    resident_mib: float
    num_invalid: int


def main() -> int:
    """Make the files, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to keep the files (default: a temporary folder)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {options.rows} rows, "
        f"median of {options.runs} runs"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.folder or Path(temporary)
        mixed, broken = folder / "mixed.jsonl", folder / "broken.jsonl"
        tenth = folder / "tenth.jsonl"
        write_rows(mixed, options.rows, broken_share=0.005)
        write_rows(tenth, options.rows // 10, broken_share=0.005)
        write_rows(broken, options.rows // 10, broken_share=1.0)
        print_table("mixed rows, 0.5 % broken", measure(mixed, options.runs))
        print_table("the same, a tenth of the rows", measure(tenth, options.runs))
        print_table("all rows broken, a tenth of the rows", measure(broken, options.runs))
    return 0


def measure(file: Path, num_runs: int) -> dict[str, Cost]:
    """Run all variants in turn and return their medians."""
    validate = ["-m", "pipeline", "data", "validate", str(file), "--json", "--processes"]
    variants = {
        "orjson.loads only": ["-c", _ORJSON, str(file)],
        "json + pydantic": ["-c", _NAIVE, str(file)],
        "validate, 1 process": [*validate, "1"],
        "validate, 2 processes": [*validate, "2"],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for turn in range(num_runs + 1):
        for name, arguments in variants.items():
            cost = run_once([sys.executable, *arguments])
            if turn:  # the first one warms the file cache
                costs[name].append(cost)
    return {
        name: Cost(
            statistics.median(cost.cpu_seconds for cost in found),
            max(cost.resident_mib for cost in found),
            found[0].num_invalid,
        )
        for name, found in costs.items()
    }


def run_once(command: list[str]) -> Cost:
    """Run one variant in a child of its own, so that the sizes of its processes are seen apart from earlier ones."""
    script = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, "
        "stderr=subprocess.DEVNULL); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, done.stdout.decode()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    seconds, resident, printed = json.loads(done.stdout)
    answer = json.loads(printed)
    return Cost(seconds, resident, answer if isinstance(answer, int) else answer["num_invalid"])


def print_table(title: str, costs: dict[str, Cost]) -> None:
    """Print one file's table."""
    parse, naive = costs["orjson.loads only"].cpu_seconds, costs["json + pydantic"].cpu_seconds
    print(f"\n{title}\n{'':<24}{'CPU s':>8}{'x parse':>9}{'naive x':>9}{'MiB':>7}{'invalid':>9}")
    for name, cost in costs.items():
        seconds = cost.cpu_seconds
        print(
            f"{name:<24}{seconds:>8.2f}{seconds / parse:>9.2f}{naive / seconds:>9.2f}"
            f"{cost.resident_mib:>7.0f}{cost.num_invalid:>9}"
        )


def write_rows(file: Path, num_rows: int, *, broken_share: float) -> None:
    """Write a file of mixed rows, the same for the same arguments."""
    if file.exists():
        return
    source = random.Random(20261125)
    tools = load_tools()
    with file.open("w", encoding="utf-8") as lines:
        for number in range(num_rows):
            row = make_row(source, number, tools)
            text = json.dumps(row, ensure_ascii=False)
            lines.write((break_row(source, row, text) if source.random() < broken_share else text) + "\n")


def make_row(source: random.Random, number: int, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one right row."""

    def say(num_words: int) -> str:
        return f"{' '.join(source.choices(_WORDS, k=num_words))} {number}"

    kind = source.random()
    if kind < 0.6:
        turns = [{"from": speaker, "value": say(37)} for _ in range(2) for speaker in ("human", "gpt")]
        return {"conversations": turns}
    if kind < 0.85:
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": "create_task",
                "arguments": json.dumps({"title": say(3), "priority": source.choice(["low", "high"])}),
            },
        }
        turns = [
            {"role": "user", "content": say(14)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"id": number, "ok": True})},
            {"role": "assistant", "content": say(10)},
        ]
        return {"messages": turns, "tools": tools[:1]}
    return {"instruction": say(50), "input": say(30), "output": say(60)}


def break_row(source: random.Random, row: dict[str, Any], text: str) -> str:
    """Return a row with one of six faults."""
    fault = source.randrange(6)
    if fault == 0:
        return text[: len(text) // 2]
    if fault == 1:
        return text.replace("report", "\\ud800", 1)
    if fault == 2:
        return "[]"
    if fault == 3:
        return json.dumps({"text": row})
    field = next(name for name in ("conversations", "messages", "output") if name in row)
    changed = {
        **row,
        field: "" if field == "output" else row[field][:-1] if fault == 4 else [{"from": "bot"}],
    }
    return json.dumps(changed)


if __name__ == "__main__":
    sys.exit(main())

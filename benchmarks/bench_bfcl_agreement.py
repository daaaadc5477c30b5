"""Does the ``bfcl`` profile judge as BFCL's own checker does? Right and perturbed outputs over its Python files.

    pip download --no-deps bfcl-eval==2026.3.23 && python -m zipfile -e bfcl_eval-*.whl bfcl
    python benchmarks/bench_bfcl_agreement.py --bfcl bfcl --outputs 15

Only the checker and the data of the wheel are used: modules that pull in every vendor's client are stubbed. A parallel
case in which BFCL's greedy matching fails although some order of its own checks passes is counted apart. Also prints
the time of scoring alone.
"""

import argparse
import copy
import functools
import importlib
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pipeline.evals.importers import import_bfcl
from pipeline.evals.tool_calls import CaseScorer, read_calls

CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "irrelevance",
    "live_irrelevance",
    "live_relevance",
)
Output = list[dict[str, dict[str, Any]]]


def load_checker(folder: Path) -> Any:
    """Import BFCL's checker with its heavy neighbours stubbed."""
    sys.path.insert(0, str(folder))
    package = "bfcl_eval.eval_checker.ast_eval"
    stubs: dict[str, dict[str, Any]] = {
        "bfcl_eval.constants.model_config": {
            "MODEL_CONFIG_MAPPING": {"m": SimpleNamespace(underscore_to_dot=False)}
        },
        f"{package}.type_convertor.java_type_converter": {"java_type_converter": None},
        f"{package}.type_convertor.js_type_converter": {"js_type_converter": None},
    }
    for name, fields in stubs.items():
        module = ModuleType(name)
        module.__dict__.update(fields)
        sys.modules[name] = module
    return importlib.import_module(f"{package}.ast_checker")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def pick(allowed: Any, source: random.Random) -> Any:
    """Return one right value of an answer list; ``...`` for leaving it out."""
    if not isinstance(allowed, list) or not allowed:
        return ...
    value = source.choice(allowed)
    if value == "":
        return ... if source.random() < 0.9 else ""
    return materialise(value, source)


def materialise(value: Any, source: random.Random) -> Any:
    """Return a value with dictionaries of alternatives resolved."""
    if isinstance(value, dict):
        chosen = {key: pick(allowed, source) for key, allowed in value.items()}
        return {key: part for key, part in chosen.items() if part is not ...}
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [materialise(part, source) for part in value]
    return copy.deepcopy(value)


def right_output(truth: list[dict[str, Any]], source: random.Random) -> Output:
    """Return one right output."""
    calls: Output = []
    for call in truth:
        ((name, arguments),) = call.items()
        chosen = {key: pick(allowed, source) for key, allowed in arguments.items()}
        calls.append({name: {key: value for key, value in chosen.items() if value is not ...}})
    return calls


def spoil_text(text: str, source: random.Random) -> Any:
    """Return a text changed in one of the ways that decide between checkers."""
    ways = [
        text.upper(),
        text.replace(" ", ""),
        text.replace(" ", "  ") + ".",
        text.replace(".", ""),
        text.replace("_", "-"),
        "-" + text,
        text + "x",
        text[:-1],
        "",
        text.replace(",", ";"),
        text.replace("'", '"'),
        text[::-1],
        f" {text} ",
        None,
        [text],
        0,
        text.replace("/", "-"),
        text.replace("0", "1"),
    ]
    return source.choice(ways)


def spoil_number(value: int | float, source: random.Random) -> Any:
    """Return a number changed in value, type or both."""
    ways = [
        value + 1,
        -value,
        float(value),
        int(value),
        str(value),
        value + 0.5,
        bool(value),
        None,
        [value],
        value * 10,
    ]
    return source.choice(ways)


def spoil_list(value: list[Any], source: random.Random) -> Any:
    """Return a list changed as a whole or in one element."""
    ways: list[Any] = [value[::-1], [*value, *value[-1:]], value[:-1], [], tuple(value), str(value), None]
    if value:
        i = source.randrange(len(value))
        ways += [[*value[:i], spoil(value[i], source), *value[i + 1 :]]] * 6
    return source.choice(ways)


def spoil_object(value: dict[str, Any], source: random.Random) -> Any:
    """Return an object changed as a whole or in one key."""
    ways: list[Any] = [{}, value | {"unheard_of": 1}, [value], str(value)]
    if value:
        key = source.choice(list(value))
        ways.append({k: v for k, v in value.items() if k != key})
        ways += [value | {key: spoil(value[key], source)}] * 5
    return source.choice(ways)


def spoil(value: Any, source: random.Random) -> Any:
    """Return a value changed in one way; it may still be right."""
    if isinstance(value, bool) or value is None:
        return source.choice([not value, str(value), int(bool(value)), None])
    if isinstance(value, str):
        return spoil_text(value, source)
    if isinstance(value, int | float):
        return spoil_number(value, source)
    return spoil_list(value, source) if isinstance(value, list) else spoil_object(value, source)


def spoil_output(right: Output, functions: list[dict[str, Any]], source: random.Random) -> Output:
    """Return an output changed in one way."""
    calls = copy.deepcopy(right)
    way = source.random()
    if way < 0.62:
        spoil_argument(calls, functions, source)
    elif way < 0.72:
        source.shuffle(calls)
    elif way < 0.77:
        calls.append(copy.deepcopy(source.choice(calls)))
    elif way < 0.82:
        calls.pop(source.randrange(len(calls)))
    elif way < 0.9:
        i = source.randrange(len(calls))
        ((name, arguments),) = calls[i].items()
        other = source.choice(
            [name.replace(".", "_"), name + "s", source.choice(functions)["name"], name.upper()]
        )
        calls[i] = {other: arguments}
    elif way < 0.95 and len(calls) > 1:
        i, j = source.sample(range(len(calls)), 2)
        ((one, first),), ((two, second),) = calls[i].items(), calls[j].items()
        calls[i], calls[j] = {one: second}, {two: first}
    else:
        calls = []
    return calls


def spoil_argument(calls: Output, functions: list[dict[str, Any]], source: random.Random) -> None:
    """Change one argument of one call, remove it, or add another."""
    ((name, arguments),) = source.choice(calls).items()
    declared = next((f["parameters"]["properties"] for f in functions if f["name"] == name), {})
    way = source.random()
    if arguments and way < 0.75:
        key = source.choice(list(arguments))
        arguments[key] = spoil(arguments[key], source)
    elif arguments and way < 0.85:
        del arguments[source.choice(list(arguments))]
    elif declared and way < 0.95:
        key = source.choice(list(declared))
        sample = {"string": "", "integer": 1, "boolean": True, "array": [], "dict": {}, "float": 1}
        arguments[key] = sample.get(declared[key].get("type"), "")
    else:
        arguments["unheard_of"] = 1


def judge_by_bfcl(
    checker: Any, language: Any, question: Any, truth: Any, output: Output, category: str
) -> bool | str:
    """Return BFCL's verdict, or the error it dies of."""
    try:
        verdict = checker.ast_checker(
            question["function"], copy.deepcopy(output), truth, language.PYTHON, category, "m"
        )
    except (KeyError, TypeError, AttributeError, IndexError, UnboundLocalError) as error:
        return f"{type(error).__name__}"
    return bool(verdict["valid"])


def passes_in_some_order(checker: Any, language: Any, question: Any, truth: Any, output: Output) -> bool:
    """Return whether BFCL's check of single calls accepts some assignment: brute force."""
    if len(output) != len(truth) or len(output) > 8:
        return False

    def accepts(call: Any, wanted: Any) -> bool:
        description = checker.find_description(question["function"], next(iter(wanted)))
        return bool(checker.simple_function_checker(description, call, wanted, language.PYTHON, "m")["valid"])

    table = [[accepts(copy.deepcopy(call), wanted) for call in output] for wanted in truth]
    orders = itertools.permutations(range(len(output)))
    return any(all(table[i][j] for i, j in enumerate(order)) for order in orders)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bfcl", type=Path, required=True, help="folder of the unpacked wheel")
    parser.add_argument("--outputs", type=int, default=15, help="outputs per case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    options = parser.parse_args()
    checker = load_checker(options.bfcl)
    language = importlib.import_module("bfcl_eval.constants.enums").Language
    source = random.Random(options.seed)
    rows: list[tuple[str, Any, Any, Any, Output]] = []
    for category in CATEGORIES:
        name = f"BFCL_v4_{category}.json"
        questions = read_rows(options.bfcl / "bfcl_eval/data" / name)
        path = options.bfcl / "bfcl_eval/data/possible_answer" / name
        truths = {row["id"]: row for row in read_rows(path)} if path.exists() else {}
        for question in questions:
            answer = truths.get(question["id"])
            case = import_bfcl(question, answer, category)
            if answer is None:
                outputs: list[Output] = [
                    [],
                    [{question["function"][0]["name"]: {}}] if question["function"] else [],
                ]
            else:
                outputs = [right_output(answer["ground_truth"], source) for _ in range(3)]
                outputs += [
                    spoil_output(right_output(answer["ground_truth"], source), question["function"], source)
                    for _ in range(options.outputs - 3)
                ]
            rows += [(category, question, answer, case, output) for output in outputs]
    compare(rows, checker, language, options.show)


def compare(rows: list[Any], checker: Any, language: Any, num_shown: int) -> None:
    """Judge by both, print the table and the differences."""
    predictions = [
        read_calls([{"name": n, "arguments": as_json(a)} for call in output for n, a in call.items()])
        for *_, output in rows
    ]
    started = time.process_time()
    ours = [CaseScorer(row[3], "bfcl").score(p).correct for row, p in zip(rows, predictions, strict=True)]
    bfcl_seconds = time.process_time() - started
    started = time.process_time()
    for row, prediction in zip(rows, predictions, strict=True):
        CaseScorer(row[3], "strict").score(prediction)
    strict_seconds = time.process_time() - started
    counts: dict[str, Counter[str]] = {}
    shown = 0
    for (category, question, answer, _, output), our in zip(rows, ours, strict=True):
        count = counts.setdefault(category, Counter())
        count["outputs"] += 1
        output = [{name: as_json(arguments)} for call in output for name, arguments in call.items()]
        if answer is None:
            theirs: bool | str = bool(output) if category == "live_relevance" else not output
        else:
            theirs = judge_by_bfcl(checker, language, question, answer["ground_truth"], output, category)
        reordered = functools.partial(
            passes_in_some_order, checker, language, question, (answer or {}).get("ground_truth"), output
        )
        kind = name_outcome(theirs, our=our, passes_reordered=reordered if "parallel" in category else bool)
        count[kind] += 1
        count["accepted"] += our
        if kind == "differs" and shown < num_shown:
            shown += 1
            print(
                question["id"],
                "BFCL",
                theirs,
                "ours",
                our,
                json.dumps(output)[:500],
                "|",
                json.dumps(answer)[:500],
            )
    columns = ("outputs", "accepted", "agrees", "greedy", "crash", "differs")
    print("| file | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for category, count in {**counts, "all": sum(counts.values(), Counter())}.items():
        print(f"| {category} | " + " | ".join(f"{count[c]:,}" for c in columns) + " |")
    for name, seconds in (("bfcl", bfcl_seconds), ("strict", strict_seconds)):
        print(
            f"{name}: {len(rows):,} outputs scored in {seconds:.1f} s CPU, {seconds / len(rows) * 30000:.1f} s per 30,000"
        )


def name_outcome(theirs: bool | str, *, our: bool, passes_reordered: Callable[[], bool]) -> str:
    """Return agrees, crash (BFCL raised, ours said wrong), greedy (BFCL accepts another order), or differs."""
    if isinstance(theirs, str):
        return "differs" if our else "crash"
    if theirs == our:
        return "agrees"
    return "greedy" if our and passes_reordered() else "differs"


def as_json(arguments: Any) -> Any:
    """Return what a predictions file would hold: tuples are lists."""
    return json.loads(json.dumps(arguments))


if __name__ == "__main__":
    main()

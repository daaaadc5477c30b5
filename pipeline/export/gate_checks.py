"""The checks of the gate. Each takes what two engines say and returns :class:`GateCheck`; none of them loads a model.

Limits come from measurements on SmolLM2-135M: an exact f16 conversion stays below 0.01 nats and answers token for
token; a conversion with q and k in the wrong row order, a different template or an added BOS is far outside.
"""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.export.gate_corpus import Case
from pipeline.export.gate_report import GateCheck
from pipeline.export.gate_server import GateServer, RefusedRequestError
from pipeline.task_api.store import TaskStore
from pipeline.task_api.tools import find_problem

if TYPE_CHECKING:
    from pipeline.export.backends.reference import Reference

LOGPROB_LIMIT_NATS = 0.05
TIE_LIMIT_NATS = 0.05
_COMPARED_TOKENS = 16
_STOP_TOKENS = 160
_ROLES = {"eos": "eos_token_id", "bos": "bos_token_id", "padding": "padding_token_id"}

Tools = list[dict[str, Any]]
Conversation = list[dict[str, Any]]
Choice = dict[str, Any]
"""First choice of a chat completion."""


class Prompt(NamedTuple):
    """A rendered conversation."""

    id: str
    token_ids: list[int]


def render_prompts(reference: "Reference", corpus: list[Case], tools: Tools) -> list[Prompt]:
    """Return the conversations that both engines have to answer, as the reference reads them."""
    rendered = {
        case.id: reference.render(case.messages, tools if case.with_tools else None)
        for case in corpus
        if case.is_answered
    }
    return [Prompt(name, reference.tokenize(text)) for name, text in rendered.items() if text is not None]


def answered(check_id: str, check: Callable[[], list[GateCheck]]) -> list[GateCheck]:
    """Run checks that ask the server; an error it answers with is a failed check of this id, not the end."""
    try:
        return check()
    except RefusedRequestError as error:
        return [describe_refusal(check_id, error)]


def describe_refusal(check_id: str, error: RefusedRequestError) -> GateCheck:
    """Return the failed check of a question that the server answered with an error."""
    return GateCheck(
        id=check_id,
        passed=False,
        measured=str(error),
        limit="an answer",
        explanation="The server could not answer what the gate asked; clients would get the same error.",
    )


def check_metadata(
    name: str, metadata: dict[str, Any], template: str, ids: dict[str, int | None]
) -> list[GateCheck]:
    """Compare what a GGUF says about itself with the merged model's template and tokenizer."""
    found = {role: metadata.get(f"tokenizer.ggml.{key}") for role, key in _ROLES.items()}
    embedded = metadata.get("tokenizer.chat_template") or ""
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token")
    return [
        GateCheck(
            id=f"template:{name}",
            passed=embedded == template,
            measured=_describe_texts(embedded, template),
            limit="equal to chat_template.jinja",
            explanation="With another template the model reads prompts it was not trained on.",
        ),
        GateCheck(
            id=f"special_ids:{name}",
            passed=found == ids,
            measured=json.dumps(found),
            limit=json.dumps(ids),
            explanation="A wrong end-of-sequence id makes answers run on in engines that trust it.",
        ),
        GateCheck(
            id=f"no_added_bos:{name}",
            passed=adds_bos is False,
            measured=str(adds_bos),
            limit="False",
            explanation="The template prints the whole prompt; an added BOS is a token that training never saw.",
        ),
    ]


def check_served_template(server: GateServer, template: str, *, needs_tools: bool) -> list[GateCheck]:
    """Check that the engine uses our template and sees its tool support."""
    props = server.props()
    capable = bool(props.get("chat_template_caps", {}).get("supports_tool_calls"))
    return [
        GateCheck(
            id="served_template",
            passed=props["chat_template"].strip() == template.strip(),
            measured=_describe_texts(props["chat_template"].strip(), template.strip()),
            limit="equal to chat_template.jinja",
            explanation="The running server replaced the template that is in the file.",
        ),
        GateCheck(
            id="tool_template",
            passed=capable if needs_tools else None,
            measured=str(capable),
            limit="True" if needs_tools else "reported",
            explanation="Without tool support in the template, tools in a request are silently ignored.",
        ),
    ]


def check_prompts(
    server: GateServer, reference: "Reference", corpus: list[Case], tools: Tools
) -> list[GateCheck]:
    """Check that both engines make the same text, and the same tokens, of every conversation."""
    other_text: list[str] = []
    other_ids: list[str] = []
    refused: list[str] = []
    for case in corpus:
        offered = tools if case.with_tools else None
        expected = reference.render(case.messages, offered)
        if expected is None:  # then nothing can have been trained on it
            refused.append(case.id)
            continue
        found = server.render(case.messages, offered)
        if found != expected:
            other_text.append(f"{case.id} ({_describe_texts(found, expected)})")
        wanted_ids, found_ids = reference.tokenize(expected), server.tokenize(found)
        if found_ids != wanted_ids:
            at = next(
                (i for i, (a, b) in enumerate(zip(found_ids, wanted_ids, strict=False)) if a != b), "end"
            )
            other_ids.append(f"{case.id} (token {at})")
    compared = len(corpus) - len(refused)
    note = f"; the template refuses {', '.join(refused)}" if refused else ""
    return [
        _agreement(
            "prompt_text",
            compared,
            other_text,
            "The served model reads other prompts than in training.",
            note,
        ),
        _agreement(
            "prompt_tokens",
            compared,
            other_ids,
            "Text is cut into other tokens: pre-tokenizer, BOS or template.",
        ),
    ]


def check_greedy(server: GateServer, reference: "Reference", prompts: list[Prompt]) -> GateCheck:
    """Check that greedy replies are the same, or part at a tie of the reference."""
    same, differing = 0, list[str]()
    for prompt in prompts:
        reply = server.reply(prompt.token_ids, _COMPARED_TOKENS)
        score = reference.score(prompt.token_ids, reply["tokens"])
        same += score.first_difference is None
        if score.gap_nats >= TIE_LIMIT_NATS:
            differing.append(f"{prompt.id} (token {score.first_difference}, gap {score.gap_nats:.2f})")
    return GateCheck(
        id="greedy_parity",
        passed=not differing,
        measured=f"{same} of {len(prompts)} identical"
        + (f"; differ: {', '.join(differing)}" if differing else ""),
        limit=f"identical, or the reference's own gap at the first difference < {TIE_LIMIT_NATS} nats",
        explanation="The weights were converted wrongly: tensor order, rotary layout, scaling or precision.",
    )


def no_exact_file(files: list[str]) -> GateCheck:
    """Return the failed check of files that are all quantised: how far one may be from the merged model is unknown."""
    return GateCheck(
        id="greedy_parity",
        passed=False,
        measured=f"nothing to compare: {', '.join(files)} holds no 16- or 32-bit weights",
        limit="a 16-bit file that answers like the merged model",
        explanation="No weights were compared. Verify the export folder with its f16 file (`export run` makes one).",
    )


def check_logprobs(
    name: str, server: GateServer, reference: "Reference", prompts: list[Prompt], *, is_exact: bool
) -> GateCheck:
    """Measure the largest distance of next-token log-probabilities over the engine's top 20."""
    distances: list[float] = []
    for prompt in prompts:
        expected = reference.next_logprobs(prompt.token_ids)
        found = server.next_logprobs(prompt.token_ids)
        distances += [max(abs(value - expected[token]) for token, value in found.items())] if found else []
    worst = max(distances, default=float("inf"))
    return GateCheck(
        id=f"next_token_logprobs:{name}",
        passed=worst < LOGPROB_LIMIT_NATS if is_exact else None,
        measured=f"largest distance {worst:.4f} nats over {len(distances)} prompts",
        limit=f"< {LOGPROB_LIMIT_NATS} nats" if is_exact else "reported: quantising moves probabilities",
        explanation="How far the file's probabilities are from the merged model's.",
    )


def ask(chat: Callable[..., Choice], question: Conversation, tools: Tools) -> Choice:
    """Return the answer to a question, streamed or not as ``chat`` does it; several checks look at the same one."""
    return chat(question, tools or None, max_tokens=_STOP_TOKENS)


def check_stop(
    server: GateServer,
    reference: "Reference",
    questions: list[Conversation],
    answers: list[Choice],
    tools: Tools,
) -> GateCheck:
    """Check that answers end by the end token inside the limit and show no control text."""
    problems: list[str] = []
    for messages, answer in zip(questions, answers, strict=True):
        question = repr(messages[-1]["content"])
        prompt = reference.render(messages, tools or None)
        if prompt is None:
            problems.append(f"the template refuses {question}")
            continue
        reply = server.reply(reference.tokenize(prompt), _STOP_TOKENS)
        if reply["stop_type"] != "eos":
            problems.append(f"{question} went on for {_STOP_TOKENS} tokens")
            continue
        shown = answer["message"].get("content") or ""
        if any(text in shown for text in reference.control_texts):
            problems.append(f"{question} showed control text")
    return GateCheck(
        id="stop",
        passed=not problems,
        measured="; ".join(problems) or f"{len(questions)} answers ended",
        limit=f"end token within {_STOP_TOKENS} tokens, no control token in the text",
        explanation="The model does not know when to stop, or its end token is printed.",
    )


def find_call(answers: Sequence[Choice]) -> int:
    """Return the position of the first answer that is a call, else of the first answer."""
    return next((at for at, answer in enumerate(answers) if answer["message"].get("tool_calls")), 0)


def check_tool_round_trip(
    server: GateServer, question: Conversation, choice: Choice, tools: Tools, store: TaskStore
) -> list[GateCheck]:
    """Check that a call is parsed, executed on the real Task API, and its result answered."""
    message: dict[str, Any] = choice["message"]
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    problem = _describe_call_problem(choice["finish_reason"], calls)
    checks = [
        GateCheck(
            id="tool_call",
            passed=problem is None,
            measured=problem or json.dumps(calls[0]["function"]),
            limit="finish_reason tool_calls with a call that fits its schema",
            explanation="Agents get no usable tool call from this model.",
        )
    ]
    if problem is None:
        function = calls[0]["function"]
        result = store.call(function["name"], json.loads(function["arguments"]))
        answer = {"role": "tool", "tool_call_id": calls[0]["id"], "content": json.dumps(result)}
        after = ask(server.chat, [*question, message, answer], tools)
        text = after["message"].get("content") or ""
        checks.append(
            GateCheck(
                id="tool_result",
                passed=after["finish_reason"] == "stop" and bool(text.strip()) and "<" not in text,
                measured=f"{after['finish_reason']}: {text[:120]!r}",
                limit="a plain answer, finish_reason stop",
                explanation="The model does not answer after a tool has returned.",
            )
        )
    return checks


def check_streaming(server: GateServer, question: Conversation, answer: Choice, tools: Tools) -> GateCheck:
    """Check that the streamed pieces add up to the answer that is not streamed."""
    whole, streamed = _essence(answer), _essence(ask(server.chat_streamed, question, tools))
    return GateCheck(
        id="streaming",
        passed=whole == streamed,
        measured="equal" if whole == streamed else f"{streamed!r} instead of {whole!r}"[:300],
        limit="equal",
        explanation="Clients that stream see another answer than those that do not.",
    )


def _describe_call_problem(finish_reason: str | None, calls: list[dict[str, Any]]) -> str | None:
    if finish_reason != "tool_calls" or not calls:
        return f"finish_reason {finish_reason}, {len(calls)} calls"
    function = calls[0]["function"]
    try:
        problem = find_problem(function["name"], json.loads(function["arguments"]))
    except ValueError as error:
        return f"arguments are not JSON: {error}"
    return problem.message if problem else None


def _essence(choice: Choice) -> tuple[str, list[tuple[str, str]], str | None]:
    made: list[dict[str, Any]] = choice["message"].get("tool_calls") or []
    calls = [(str(call["function"]["name"]), str(call["function"]["arguments"])) for call in made]
    return choice["message"].get("content") or "", calls, choice["finish_reason"]


def _agreement(
    check_id: str, num_cases: int, differing: list[str], explanation: str, note: str = ""
) -> GateCheck:
    return GateCheck(
        id=check_id,
        passed=num_cases > 0 and not differing,
        measured=f"{num_cases - len(differing)} of {num_cases} equal"
        + (f"; differ: {', '.join(differing)}" if differing else "")
        + note,
        limit="all equal",
        explanation=explanation,
    )


def _describe_texts(found: str, expected: str) -> str:
    if found == expected:
        return "equal"
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    return f"{len(found)} characters, {len(expected)} expected, first difference at {at}: {found[at : at + 20]!r}"

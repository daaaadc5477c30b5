# pyright: basic
"""Training text through real chat templates: what is trained, and which turns they lose.

The templates are those that TRL ships (Qwen 2.5, Qwen 3, Llama 3, Llama 3.1); the tokenizer is a byte-level one made here.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trl

from pipeline.core.errors import InvalidInputError
from pipeline.core.messages import Message, ToolCall
from pipeline.rendering.backends.chat_text import ChatEncoder, to_template
from pipeline.rendering.row import IGNORED, EncodedRow

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
OURS = Path(__file__).parents[3] / "pipeline/models/tool_chat.jinja"
TOOL = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
}
CALLS = (
    Message(role="user", content="Where is the red book?"),
    Message(role="assistant", tool_calls=(ToolCall(name="find", arguments={"q": "red book"}, id="c1"),)),
    Message(role="tool", content='{"shelf": 4}', tool_call_id="c1"),
    Message(role="assistant", content="On shelf 4 🙂"),
    Message(role="user", content="ok"),
    Message(role="assistant", content="You are welcome."),
)


Encoders = Callable[[str], ChatEncoder]
Problems = Callable[[str, Any], list[str]]


@pytest.fixture(scope="module")
def encoder(byte_tokenizer: Any) -> Encoders:
    """Encoders by the name of their template."""

    @cache
    def make(name: str) -> ChatEncoder:
        path = OURS if name == "ours" else TEMPLATES / f"{name}.jinja"
        return ChatEncoder(byte_tokenizer(path.read_text(encoding="utf-8")))

    return make


@pytest.fixture
def problems(encoder: Encoders) -> Problems:
    """Problems of a conversation under a template, in short."""

    def find(name: str, messages: Any) -> list[str]:
        wire = to_template(messages) if isinstance(messages[0], Message) else list(messages)
        return [f"{p.turn} {p.role} {p.kind}" for p in encoder(name).encode(wire, [TOOL]).problems]

    return find


def trained(made: EncodedRow, by: ChatEncoder) -> list[str]:
    """The trained stretches, decoded from their token ids."""
    found: list[list[int]] = []
    before = IGNORED
    for label in made.labels:
        if label != IGNORED:
            found[-1:] = [[*found[-1], label]] if before != IGNORED else [*found[-1:], [label]]
        before = label
    return [str(by.tokenizer.decode(ids)) for ids in found]


@pytest.mark.parametrize("name", ["ours", "qwen2_5", "qwen3", "qwen3_instruct_2507"])
def test_only_assistant_turns_with_their_end_are_trained(name: str, encoder: Encoders) -> None:
    by = encoder(name)
    made = by.encode(to_template(CALLS), [TOOL])
    call, reply, end = trained(made, by)
    assert made.problems == ()
    assert '"find"' in call
    assert call.endswith("</tool_call><|im_end|>")
    assert reply == "On shelf 4 🙂<|im_end|>"
    assert end.removeprefix("<think>\n\n</think>\n\n") == "You are welcome.<|im_end|>"
    assert made.text[slice(*made.trained_ranges()[1])] == reply


def test_marks_give_the_labels_that_transformers_gives(encoder: Encoders) -> None:
    by = encoder("ours")
    made = by.encode(to_template(CALLS), [TOOL])
    theirs: Any = by.tokenizer.apply_chat_template(
        to_template(CALLS), tools=[TOOL], return_dict=True, return_assistant_tokens_mask=True
    )
    assert made.token_ids == theirs["input_ids"]
    assert [label != IGNORED for label in made.labels] == [bool(mask) for mask in theirs["assistant_masks"]]


def test_without_marks_the_labels_are_those_of_trls_marked_template_but_for_line_breaks_around_turns(
    encoder: Encoders,
) -> None:
    by, marked = encoder("qwen2_5"), encoder("qwen2_5_training")
    ours, theirs = by.encode(to_template(CALLS), [TOOL]), marked.encode(to_template(CALLS), [TOOL])
    assert ours.text == theirs.text
    differing = {
        token
        for token, one, other in zip(ours.token_ids, ours.labels, theirs.labels, strict=True)
        if one != other
    }
    assert by.tokenizer.decode(sorted(differing)) == "\n"
    assert [text.strip("\n") for text in trained(theirs, marked)] == trained(ours, by)


def test_qwen_drops_a_turn_of_role_human(problems: Problems) -> None:
    messages = [{"role": "human", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}]
    assert problems("qwen2_5", messages) == ["0 human dropped"]
    assert problems("qwen3", messages) == ["0 human dropped"]


def test_llama_3_drops_calls_and_llama_31_refuses_two_at_once(problems: Problems) -> None:
    assert problems("llama3", CALLS)[0] == "1 assistant dropped"
    two = tuple(ToolCall(name="find", arguments={"q": word}, id=word) for word in "ab")
    assert problems("llama3_1", [CALLS[0], Message(role="assistant", tool_calls=two)]) == [
        "1 assistant refused"
    ]
    assert problems("llama3_1", CALLS) == []


def test_a_template_that_alters_a_turn_is_found_out(byte_tokenizer: Any) -> None:
    template = OURS.read_text(encoding="utf-8").replace(
        "message.content + '<|im_end|>\\n' -}}", "message.content | upper + '<|im_end|>\\n' -}}"
    )
    made = ChatEncoder(byte_tokenizer(template)).encode(to_template(CALLS), [TOOL])
    assert [(p.turn, p.kind) for p in made.problems] == [(0, "altered"), (4, "altered")]


def test_a_control_token_inside_a_text_is_refused(problems: Problems) -> None:
    messages = (
        Message(role="user", content="end it <|im_end|> now"),
        Message(role="assistant", content="Done as told."),
    )
    assert problems("ours", messages) == ["0 user control_token"]


def test_a_template_that_never_ends_a_turn_or_none_at_all_is_refused_with_a_hint(byte_tokenizer: Any) -> None:
    for template in ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", ""):
        with pytest.raises(InvalidInputError, match=r"template") as caught:
            ChatEncoder(byte_tokenizer(template))
        assert "generation" in caught.value.hint


def test_an_assistant_turn_that_cannot_be_told_apart_is_named(byte_tokenizer: Any) -> None:
    # The prompt of a later turn is not how the whole text begins: the template rewrites what came before.
    template = (
        "{{ messages | length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    made = ChatEncoder(byte_tokenizer(template)).encode(to_template((CALLS[0], CALLS[3])), [])
    assert [(p.turn, p.kind) for p in made.problems] == [(1, "untrained")]


def test_a_conversation_without_an_assistant_turn_trains_nothing(encoder: Encoders) -> None:
    made = encoder("ours").encode([{"role": "user", "content": "Is anybody there?"}], [])
    assert (made.num_trained_tokens, made.problems) == (0, ())

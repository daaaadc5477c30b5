# pyright: basic
"""The merged model in transformers: what the GGUF files are compared with."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2.exceptions import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()  # progress of ours is shown instead


class ReplyScore(NamedTuple):
    """How a reply of the other engine looks to the reference model."""

    first_difference: int | None
    """Index of the first token the reference would not have chosen; None when the reply is the same."""
    gap_nats: float
    """There: log-probability of the reference's choice minus that of the other engine's; 0 without a difference."""


class Reference:
    """Tokenizer, template and 32-bit weights of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        """Load the folder into memory on the CPU."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._next_logprobs: dict[tuple[int, ...], list[float]] = {}

    @property
    def special_ids(self) -> dict[str, int | None]:
        """Token id by role, as transformers resolves it."""
        tokenizer = self._tokenizer
        return {
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "padding": tokenizer.pad_token_id,
        }

    @property
    def control_texts(self) -> list[str]:
        """Text of every special token: none of it belongs into an answer."""
        added = self._tokenizer.added_tokens_decoder.values()
        return sorted({token.content for token in added if token.special})

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str | None:
        """Return the prompt text that training used for these messages; None when the template refuses them."""
        try:
            return self._tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=True
            )
        except (
            TemplateError,
            TypeError,
        ):  # raise_exception in the template, or an operation it did not foresee
            return None

    def tokenize(self, text: str) -> list[int]:
        """Return token ids, special tokens recognised, nothing added."""
        return self._tokenizer(text, add_special_tokens=False).input_ids

    def score(self, prompt_ids: list[int], reply_ids: list[int]) -> ReplyScore:
        """Compare a greedy reply with what this model would have said, in one forward pass.

        Up to the first difference both engines have read the same tokens, so teacher forcing finds the same
        difference as generating would.
        """
        logprobs_TV = self._read(prompt_ids, reply_ids)
        for index, token in enumerate(reply_ids):
            choice = int(logprobs_TV[index].argmax())
            if choice != token:
                return ReplyScore(index, float(logprobs_TV[index, choice] - logprobs_TV[index, token]))
        return ReplyScore(None, 0.0)

    def next_logprobs(self, prompt_ids: list[int]) -> list[float]:
        """Return the log-probability of each token right after a prompt (kept from :meth:`score`)."""
        if tuple(prompt_ids) not in self._next_logprobs:
            self._read(prompt_ids, [])
        return self._next_logprobs[tuple(prompt_ids)]

    def _read(self, prompt_ids: list[int], reply_ids: list[int]) -> torch.Tensor:
        """Return log-probabilities after the prompt and after each reply token [len(reply) + 1, vocabulary]."""
        tokens_BT = torch.tensor([prompt_ids + reply_ids])
        with torch.inference_mode():
            output = self._model(tokens_BT, logits_to_keep=len(reply_ids) + 1, use_cache=False)
        logprobs_TV = output.logits[0].log_softmax(-1)
        self._next_logprobs[tuple(prompt_ids)] = logprobs_TV[0].tolist()
        return logprobs_TV

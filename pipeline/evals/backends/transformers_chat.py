# pyright: basic
"""A model folder answered by transformers: the chat template with tools, then greedy generation."""

import json
import threading
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.core.refs import resolve_path


def load_chat(ref: str) -> Callable[[list[dict[str, Any]], list[dict[str, Any]], int], tuple[str, int, int]]:
    """Load a model and return ``f(messages, tools, max_tokens) -> (raw text, prompt tokens, answer tokens)``."""
    folder = resolve_path(ref)
    if not (folder / "config.json").exists() and (folder / "merged").is_dir():
        folder = folder / "merged"  # a folder that `export run` wrote
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    lock = threading.Lock()

    def generate(
        messages: list[dict[str, Any]], tools: list[dict[str, Any]], max_tokens: int
    ) -> tuple[str, int, int]:
        prompt = tokenizer.apply_chat_template(
            [_decode_arguments(message) for message in messages],
            tools=tools or None,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(device)
        num_prompt = prompt["input_ids"].shape[1]
        with lock, torch.inference_mode():
            tokens = model.generate(**prompt, max_new_tokens=max_tokens, do_sample=False)
        made = tokens[0, num_prompt:]
        text = tokenizer.decode(made, skip_special_tokens=False)
        for mark in (tokenizer.eos_token, "<|im_end|>", tokenizer.pad_token):
            text = text.removesuffix(mark) if mark else text
        return text, num_prompt, len(made)

    return generate


def _decode_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose calls have arguments as objects: templates print them, servers get them as text."""
    calls = [
        {
            **call,
            "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")},
        }
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "tool_calls": calls} if calls else message

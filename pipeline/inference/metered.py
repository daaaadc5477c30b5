"""Many chat requests to one OpenAI-compatible endpoint, with a ledger: nothing is paid twice and no limit is passed.

The ledger is one line a paid answer, appended in one write: what was asked (as a hash of prompt, model and parameters),
what came back, its tokens and its price. A killed run reads it again and asks only for the rest. Before a request is
sent, its worst price is set aside: a token is at least one byte of the prompt, and an answer has at most ``max_tokens``.
Without a known price nothing is said about money. Decides nothing about the content.
"""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from pipeline.core.errors import InvalidInputError, MissingDependencyError, OperationFailedError
from pipeline.core.prices import ModelPrice, RequestTokens, usd_per_request
from pipeline.inference.client import open_http, send
from pipeline.inference.ledger import append_line, read_ledger

if TYPE_CHECKING:
    import httpx

_MAX_ATTEMPTS = 6
_BACKOFF_SECONDS = 0.5
_MAX_WAIT_SECONDS = 60.0
_BAD_REQUEST, _TOO_MANY = 400, 429
_OTHER_NAMES = {"response_format": "", "max_tokens": "max_completion_tokens"}
_RETRIED = frozenset({408, 409, 425, _TOO_MANY, 500, 502, 503, 504, 529})
_TEMPLATE_TOKENS = 64
"""Tokens that a chat template may add to a request, generously."""


class CostLimitError(OperationFailedError):
    """The next request could exceed the cost limit, so it was not sent."""

    code = "cost_limit"


class Prompt(NamedTuple):
    """One request."""

    messages: list[dict[str, Any]]
    """In OpenAI form."""
    max_tokens: int
    """Longest answer."""
    parameters: dict[str, Any] = {}
    """More fields of the body: ``response_format``, ``tools``, ``temperature`` ..."""

    def body(self, model: str) -> dict[str, Any]:
        """Return the request body."""
        return {"model": model, "messages": self.messages, "max_tokens": self.max_tokens, **self.parameters}

    def key(self, model: str) -> str:
        """Return what identifies the request: a hash of prompt, model and parameters."""
        return hashlib.sha256(json.dumps(self.body(model), sort_keys=True).encode()).hexdigest()


class Spending(NamedTuple):
    """What a ledger holds."""

    num_requests: int
    """Paid answers."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float | None
    """Sum; None when the price of the model is not known."""
    num_assumed: int
    """Answers whose usage was missing or impossible: their worst price was taken."""


class MeteredClient:
    """Client of one endpoint and model; a context manager that closes the connections."""

    def __init__(
        self,
        ledger: Path,
        base_url: str,
        model: str,
        *,
        price: ModelPrice | None = None,
        max_cost_usd: float | None = None,
        requests_per_minute: float | None = None,
        backoff_seconds: float = _BACKOFF_SECONDS,
    ) -> None:
        """Read the ledger; nothing is sent yet.

        Raises:
            InvalidInputError: If there is a cost limit and no price.
        """
        if max_cost_usd is not None and price is None:
            raise InvalidInputError(
                f"max_cost_usd cannot be kept: no price is known for {model!r}",
                hint="Add a row to `prices`, or leave max_cost_usd out.",
            )
        self.ledger, self.base_url, self.model = ledger, base_url.rstrip("/"), model
        self.price, self.max_cost_usd = price, max_cost_usd
        self._pause = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._backoff_seconds = backoff_seconds
        self._next_start = 0.0
        self._lock = threading.Lock()
        self._set_aside = 0.0
        self._stop: Exception | None = None
        self._renamed: dict[str, str] = {}
        """Fields that this endpoint wants under another name; empty: not at all."""
        self.lines = read_ledger(ledger)
        self._answers = {line["key"]: line["message"] for line in self.lines if line.get("message")}
        self.http = open_http(self.base_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def spending(self) -> Spending:
        """Return what was spent so far, earlier runs included."""
        lines = list(self.lines)
        return Spending(
            len(lines),
            *(
                sum(line[name] for line in lines)
                for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
            ),
            usd=round(sum(map(self._usd_of, lines)), 8) if self.price else None,
            num_assumed=sum(line["is_assumed"] for line in lines),
        )

    def known(self, prompt: Prompt) -> dict[str, Any] | None:
        """Return the answer that was paid before."""
        return self._answers.get(prompt.key(self.model))

    def ask_all(
        self, prompts: Sequence[Prompt], concurrency: int, on_answer: Callable[[], None] | None = None
    ) -> list[dict[str, Any] | None]:
        """Return the assistant messages, in order; None where the endpoint gave no usable answer.

        Raises:
            CostLimitError: If a request could exceed the limit; what was under way is finished and kept.
            InvalidInputError: If the endpoint refuses the request for good.
        """
        answers: list[dict[str, Any] | None] = [None] * len(prompts)
        failure: Exception | None = None
        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            futures = {pool.submit(self.ask, prompt): i for i, prompt in enumerate(prompts)}
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    answers[futures[future]] = future.result()
                elif isinstance(error, CostLimitError | InvalidInputError):
                    failure = failure or error
                    for other in futures:
                        other.cancel()
                elif not isinstance(error, OperationFailedError | MissingDependencyError):
                    raise error
                if on_answer:
                    on_answer()
        if failure:
            raise failure
        if prompts and all(answer is None for answer in answers):
            raise OperationFailedError(
                f"{self.base_url} gave no usable answer to {len(prompts)} requests",
                hint="Look at the endpoint; run the same command again: what was paid is kept.",
            )
        return answers

    def ask(self, prompt: Prompt) -> dict[str, Any]:
        """Return the assistant message for one prompt.

        Raises:
            CostLimitError: If it could exceed the limit.
            InvalidInputError: If the endpoint refuses it for good.
            OperationFailedError: If no attempt gave a usable answer.
        """
        key = prompt.key(self.model)
        if key in self._answers:
            return self._answers[key]
        reason = ""
        for attempt in range(_MAX_ATTEMPTS):
            if self._stop:
                raise self._stop
            try:
                wait = self._try(prompt, key, attempt)
            except (CostLimitError, InvalidInputError) as error:
                self._stop = error  # whoever waits for a turn would only meet the same
                raise
            if isinstance(wait, dict):
                return wait
            reason, seconds = wait
            time.sleep(seconds)
        raise OperationFailedError(
            f"no usable answer in {_MAX_ATTEMPTS} attempts: {reason}",
            hint="Run the same command again later: what was paid is kept.",
        )

    def worst_usd(self, prompt: Prompt, ratio: float = 1.0) -> float:
        """Return the most that a request can cost."""
        if self.price is None:
            return 0.0
        tokens = RequestTokens(
            num_input=most_input_tokens(prompt), num_cached_input=0, num_output=prompt.max_tokens
        )
        return usd_per_request(self.price, tokens) * ratio

    def set_aside(self, usd: float) -> None:
        """Reserve money.

        Raises:
            CostLimitError: If it is not there.
        """
        with self._lock:
            spent = sum(map(self._usd_of, self.lines))
            if self.max_cost_usd is not None and spent + self._set_aside + usd > self.max_cost_usd:
                raise CostLimitError(
                    f"the next request could cost ${usd:.6f}, and ${spent + self._set_aside:.6f} of "
                    f"${self.max_cost_usd:.6f} are spent or set aside: it was not sent",
                    hint="Run the same command with a higher max_cost_usd: what was paid is kept.",
                    spent_usd=round(spent, 8),
                    max_cost_usd=self.max_cost_usd,
                )
            self._set_aside += usd

    def release(self, usd: float) -> None:
        """Give back what was set aside."""
        with self._lock:
            self._set_aside -= usd

    def record(
        self, prompt: Prompt, key: str, raw: dict[str, Any] | None, ratio: float = 1.0
    ) -> dict[str, Any] | None:
        """Write an answer into the ledger and return its message; None when it has none that can be used.

        ``raw`` is None when the connection broke after the request was sent: it may have been charged.
        """
        message = _message_of(raw)
        tokens, is_assumed = _tokens_of(raw, prompt)
        usd = round(usd_per_request(self.price, tokens) * ratio, 10) if self.price else None
        line = {
            "key": key,
            "model": self.model,
            "prompt_tokens": tokens.num_input,
            "cached_tokens": tokens.num_cached_input,
            "completion_tokens": tokens.num_output,
            "usd": usd,
            "is_assumed": is_assumed,
            "message": message,
        }
        with self._lock:
            append_line(self.ledger, line)
            self.lines.append(line)
            if message:
                self._answers[key] = message
        return message

    def _usd_of(self, line: dict[str, Any]) -> float:
        """Return the price of a line; one from a run without a price is priced now."""
        if line["usd"] is not None or self.price is None:
            return line["usd"] or 0.0
        tokens = RequestTokens(
            num_input=line["prompt_tokens"],
            num_cached_input=line["cached_tokens"],
            num_output=line["completion_tokens"],
        )
        return usd_per_request(self.price, tokens)

    def _try(self, prompt: Prompt, key: str, attempt: int) -> dict[str, Any] | tuple[str, float]:
        """Send once; return the message, or why not and how long to wait."""
        wait = random.uniform(0, min(_MAX_WAIT_SECONDS, self._backoff_seconds * 2**attempt))
        worst = self.worst_usd(prompt)
        self.set_aside(worst)
        try:
            self._wait_for_turn()
            try:
                reply = send(self.http, "POST", f"{self.base_url}/chat/completions", json=self._body(prompt))
            except MissingDependencyError as error:
                if "does not answer" not in str(error):  # it had reached the endpoint
                    self.record(prompt, key, None)
                return str(error), wait
            if not reply.is_success:
                return self._explain(reply, prompt, wait)
            raw = _json_object(reply)
            if raw is None:
                self.record(prompt, key, None)
                return "the answer is no chat completion", wait
            message = self.record(prompt, key, raw)
            return message or ("the answer is empty", wait)
        finally:
            self.release(worst)

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        named = ((self._renamed.get(name, name), value) for name, value in prompt.body(self.model).items())
        return {name: value for name, value in named if name}

    def _wait_for_turn(self) -> None:
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + self._pause
        time.sleep(max(0.0, start - time.monotonic()))

    def _explain(self, reply: "httpx.Response", prompt: Prompt, wait: float) -> tuple[str, float]:
        text = reply.text[:300]
        is_broke = "insufficient_quota" in text
        if reply.status_code in _RETRIED and not is_broke:
            return f"{reply.status_code}: {text}", max(wait, _retry_after(reply))
        for name, other in _OTHER_NAMES.items():
            # Older servers know no schemas (the prompt asks for JSON anyway), newer models another limit.
            if reply.status_code == _BAD_REQUEST and name in text and name in self._body(prompt):
                self._renamed[name] = other
                return f"{name} is not known: {text}", 0.0
        raise InvalidInputError(
            f"{self.base_url} refuses the request with {reply.status_code}: {text}",
            hint="Check base_url, model and the key in LLMOPS_API_KEY."
            if not is_broke
            else "The account is empty.",
            status=reply.status_code,
        )


def most_input_tokens(prompt: Prompt) -> int:
    """Return the most tokens that a prompt can be: one a byte, and what the chat template adds."""
    shown = json.dumps([prompt.messages, prompt.parameters], ensure_ascii=False)
    return len(shown.encode()) + _TEMPLATE_TOKENS


def _tokens_of(raw: dict[str, Any] | None, prompt: Prompt) -> tuple[RequestTokens, bool]:
    """Return the tokens to pay for, and whether they had to be assumed because the usage cannot be right."""
    usage: Any = (raw or {}).get("usage")
    most = RequestTokens(
        num_input=most_input_tokens(prompt), num_cached_input=0, num_output=prompt.max_tokens
    )
    if not isinstance(usage, dict):
        return most, True
    reported = cast("dict[str, Any]", usage)
    details: Any = reported.get("prompt_tokens_details")
    cached: Any = cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else 0
    counts = (reported.get("prompt_tokens"), cached or 0, reported.get("completion_tokens"))
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        return most, True
    tokens = RequestTokens(num_input=counts[0] or 0, num_cached_input=counts[1], num_output=counts[2] or 0)
    is_possible = (
        0 < tokens.num_input <= most.num_input
        and tokens.num_cached_input <= tokens.num_input
        and tokens.num_output <= prompt.max_tokens
        and (tokens.num_output > 0 or _message_of(raw) is None)
    )
    return (tokens, False) if is_possible else (most, True)


def _message_of(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        message: Any = (raw or {})["choices"][0]["message"]
    except (KeyError, IndexError, TypeError):
        return None
    if not isinstance(message, dict):
        return None
    found = cast("dict[str, Any]", message)
    return found if found.get("content") or found.get("tool_calls") else None


def _json_object(reply: "httpx.Response") -> dict[str, Any] | None:
    try:
        raw: Any = reply.json()
    except ValueError:
        return None
    return cast("dict[str, Any]", raw) if isinstance(raw, dict) else None


def _retry_after(reply: "httpx.Response") -> float:
    try:
        return min(_MAX_WAIT_SECONDS, max(0.0, float(reply.headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0

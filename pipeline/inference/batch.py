"""The batch interface of OpenAI-compatible providers: many requests in one file, later and cheaper.

``POST /files``, ``POST /batches``, ask until it is done, ``GET /files/{id}/content``. The batch is found again by a hash
of its requests in its metadata, so that a killed run does not start, or pay, a second one. Answers go into the same
ledger as single requests.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from pipeline.core.errors import OperationFailedError
from pipeline.inference.client import send
from pipeline.inference.metered import CostLimitError, MeteredClient, Prompt

POLL_SECONDS = 30.0
_METADATA_KEY = "llmops_requests"
_OVER = frozenset({"completed", "expired", "cancelled"})


def ask_in_batch(
    client: MeteredClient,
    prompts: Sequence[Prompt],
    poll_seconds: float = POLL_SECONDS,
    on_wait: Callable[[str], None] | None = None,
) -> list[dict[str, Any] | None]:
    """Return the assistant messages, in order; None where the batch has no usable answer.

    Raises:
        CostLimitError: If not even one request fits the cost limit.
        OperationFailedError: If the endpoint has no batch interface, or the batch failed as a whole.
    """
    ratio = (client.price.batch_ratio if client.price else None) or 1.0
    wanted = {prompt.key(client.model): prompt for prompt in prompts if client.known(prompt) is None}
    affordable = _choose_affordable(client, wanted, ratio)
    if affordable:
        batch = _find(client, affordable) or _start(client, affordable)
        while batch["status"] not in _OVER:
            if batch["status"] == "failed":
                raise _failed(f"the batch failed: {json.dumps(batch.get('errors'))[:300]}")
            if on_wait:
                on_wait(str(batch["status"]))
            time.sleep(poll_seconds)
            batch = _call(client, "GET", f"/batches/{batch['id']}")
        if batch.get("output_file_id"):
            _take_in(client, affordable, batch["output_file_id"], ratio)
    return [client.known(prompt) for prompt in prompts]


def _choose_affordable(client: MeteredClient, wanted: dict[str, Prompt], ratio: float) -> dict[str, Prompt]:
    chosen: dict[str, Prompt] = {}
    total = 0.0
    try:
        for key, prompt in wanted.items():
            client.set_aside(worst := client.worst_usd(prompt, ratio))
            total += worst
            chosen[key] = prompt
    except CostLimitError:
        if not chosen:
            raise
    finally:
        client.release(total)  # the batch is one request: nothing else is sent meanwhile
    return chosen


def _digest(wanted: dict[str, Prompt]) -> str:
    return hashlib.sha256(" ".join(sorted(wanted)).encode()).hexdigest()[:32]


def _find(client: MeteredClient, wanted: dict[str, Prompt]) -> dict[str, Any] | None:
    """Return the batch that an earlier run started for these requests."""
    listed: list[dict[str, Any]] = _call(client, "GET", "/batches?limit=100").get("data") or []
    digest = _digest(wanted)
    return next(
        (
            batch
            for batch in listed
            if _metadata_of(batch).get(_METADATA_KEY) == digest and batch.get("status") != "failed"
        ),
        None,
    )


def _metadata_of(batch: dict[str, Any]) -> dict[str, Any]:
    return batch.get("metadata") or {}


def _start(client: MeteredClient, wanted: dict[str, Prompt]) -> dict[str, Any]:
    lines = [
        {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": prompt.body(client.model)}
        for key, prompt in wanted.items()
    ]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file = _call(
        client,
        "POST",
        "/files",
        files={"file": ("requests.jsonl", content.encode())},
        data={"purpose": "batch"},
    )
    return _call(
        client,
        "POST",
        "/batches",
        json={
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_METADATA_KEY: _digest(wanted)},
        },
    )


def _take_in(client: MeteredClient, wanted: dict[str, Prompt], file_id: str, ratio: float) -> None:
    reply = send(client.http, "GET", f"{client.base_url}/files/{file_id}/content")
    if not reply.is_success:
        raise _failed(f"the answers of the batch cannot be read: {reply.status_code}")
    for text in reply.text.splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
            prompt = wanted[line["custom_id"]]
            raw: Any = line["response"]["body"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that is none, or answers nothing we asked: its request stays open
        if client.known(prompt) is None and isinstance(raw, dict):
            client.record(prompt, line["custom_id"], cast("dict[str, Any]", raw), ratio)


def _call(client: MeteredClient, method: str, path: str, **options: Any) -> dict[str, Any]:
    reply = send(client.http, method, client.base_url + path, **options)
    try:
        answer: Any = reply.json()
    except ValueError:
        answer = None
    if not reply.is_success or not isinstance(answer, dict):
        raise _failed(f"{client.base_url}{path} answers {reply.status_code}: {reply.text[:200]}")
    return cast("dict[str, Any]", answer)


def _failed(message: str) -> OperationFailedError:
    return OperationFailedError(message, hint="Leave out `batch` if the provider has no batch interface.")

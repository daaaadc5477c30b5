# pyright: basic
"""llama.cpp's own HTTP server inside this process, by xllamacpp. Listens on loopback with a secret of its own."""

import os
import secrets
from pathlib import Path
from typing import Any

import xllamacpp

from pipeline.inference.server_spec import ServerSpec

library: Any = xllamacpp  # a compiled module without types

_PROMPT_CACHE_MIB = 64  # the library's default is 8192
_BATCH_TOKENS = 512  # a cancelled request is noticed between batches
_ERRORS_AND_WARNINGS = 2
# Draft tokens from what followed the same tokens before, in any slot: after 8 equal ones, up to 16 more. Most of a tool
# call is the same each time, and reading 16 tokens at once costs far less than making them one by one. Decision 0084.
_DRAFT_AFTER_TOKENS, _DRAFT_MIN_TOKENS, _DRAFT_MAX_TOKENS = 8, 1, 16


class LlamaCppEngine:
    """A loaded model. Never destroyed: the library blocks when a busy server is freed, so the process just ends."""

    def __init__(self, spec: ServerSpec, scratch_folder: Path) -> None:
        """Load the model; returns when it answers.

        Raises:
            RuntimeError: If the file cannot be loaded; the reason is on stderr.
        """
        self.secret = secrets.token_hex(16)
        self._server = library.Server(_parameters(spec, self.secret, scratch_folder))
        self.address: str = self._server.listening_address


def _parameters(spec: ServerSpec, secret: str, scratch_folder: Path) -> Any:
    p = library.CommonParams()
    p.model.path = spec.model_path
    p.model_alias = {spec.name}
    p.n_parallel = spec.num_slots
    p.n_ctx = spec.context_length * spec.num_slots  # the library divides it between slots
    p.n_batch = p.n_ubatch = _BATCH_TOKENS
    p.fit_params = False  # never shrink the context silently
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = spec.num_threads or os.cpu_count() or 1
    p.cache_ram_mib = _PROMPT_CACHE_MIB
    p.slot_save_path = f"{scratch_folder}/"
    p.hostnames, p.port, p.api_keys = ["127.0.0.1"], 0, [secret]
    p.n_threads_http = 4 * spec.num_slots + 32  # a waiting request holds one
    p.ui, p.verbosity, p.endpoint_props = False, _ERRORS_AND_WARNINGS, True
    if spec.chat_template:
        p.chat_template = Path(spec.chat_template).read_text(encoding="utf-8")
    if spec.adapters:
        p.lora_adapters = [library.CommonAdapterLoraInfo(adapter.path, 1.0) for adapter in spec.adapters]
        p.lora_init_without_apply = True  # each request says which one
    if spec.exact_numerics:
        p.cache_type_k = p.cache_type_v = library.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    else:
        p.speculative.types = [library.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
        drafts = p.speculative.ngram_mod
        drafts.n_match = _DRAFT_AFTER_TOKENS
        drafts.n_min, drafts.n_max = _DRAFT_MIN_TOKENS, _DRAFT_MAX_TOKENS
    return p

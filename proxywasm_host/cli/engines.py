"""``proxywasm engines``: lists engines, with remedies for those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from proxywasm_host.abi.native import NOTE
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.json_output import dump
from proxywasm_host.cli.render import Line, Screen, hanging, labelled
from proxywasm_host.engine.registry import EngineStatus, list_engines

__all__ = ["command"]


@click.command("engines")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead.")
@click.option("--color/--no-color", default=None, help="Override the terminal and NO_COLOR.")
def command(as_json: bool, color: bool | None) -> int:
    """List the WebAssembly engines: which ones are usable here, and what to do about the others.

    The first one is used unless --engine or PROXYWASM_ENGINE names another. Each is tried with a small module.
    The last line says whether the C extension of the library is in use, which makes hostcalls cheaper.
    """
    engines = list_engines()
    if as_json:
        click.echo(dump([as_dict(engine) for engine in engines]))
    else:
        screen = Screen(color)
        screen.print(line for engine in engines for line in describe(engine))
        screen.print([hanging(2, ("native code", "bold"), f"  {NOTE}")])
    return Exit.OK


def as_dict(engine: EngineStatus) -> dict[str, object]:
    """The report as JSON."""
    told = {**asdict(engine), "capabilities": capabilities(engine)}
    if not engine.limits:
        del told["limits"]
    return told


def capabilities(engine: EngineStatus) -> list[str]:
    """Names of an engine's capabilities."""
    return [name for name, can in asdict(engine.capabilities).items() if can]


def describe(engine: EngineStatus) -> Iterator[Line]:
    """A few lines on an engine."""
    if engine.usable:
        yield hanging(2, (engine.name, "bold"), f" {engine.version}  ", ("usable", "green"))
        yield labelled(2, "can", "cyan", ", ".join(capabilities(engine)) or "no optional capabilities")
        if engine.note:
            yield labelled(2, "note", "cyan", engine.note)
        if engine.limits:
            yield labelled(2, "limits", "cyan", engine.limits)
    else:
        yield hanging(2, (engine.name, "bold"), "  ", ("not usable", "yellow"), f": {engine.reason}")
        if engine.remedy:
            yield labelled(2, "remedy", "cyan", engine.remedy)

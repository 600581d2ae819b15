"""``proxywasm replay``: a recorded request once more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.options import check_readable
from proxywasm_host.cli.parameter_types import EngineName
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.engine.registry import list_engines
from proxywasm_host.testing.recording import Recording, digest_of

__all__ = ["command"]

LIMITS = Limits(256 << 20, 5.0)
"""As those of ``proxywasm run``."""


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("modules", metavar="[NEW.wasm…]", nargs=-1)
@click.option("--engine", type=EngineName(), help="wasmtime, …, or all; the one that it was recorded on, if not said.")
@click.option("--transcript", is_flag=True, help="Print all that the filters did.")
def command(file: Path, modules: Sequence[str], engine: str | None, transcript: bool) -> int:
    """Run a request again that `proxywasm run --record` has written, and tell the first difference.

    NEW.wasm takes the place of the module that was recorded, one for each filter. The exit code is 1 if the filters do
    something else than they did.

    \b
    proxywasm run auth.wasm /x --config @auth.json --record failing.json
    proxywasm replay failing.json
    proxywasm replay failing.json fixed.wasm --engine all
    """  # noqa: D301 - click wants the character
    try:
        recording = Recording.load(file)
    except OSError as error:
        raise click.UsageError(f"cannot read the recording {file}: {error.strerror}") from None
    if modules and len(modules) != len(recording.filters):
        raise click.UsageError(f"{file} has {len(recording.filters)} filters, not {len(modules)}")
    files = modules or [str(filter.code) for filter in recording.filters]
    for path in files:
        check_readable(path)
    if not modules:
        for path, digest in zip(files, recording.digests, strict=True):
            if digest_of(path) != digest:
                click.echo(f"{path} is not the module that was recorded.", err=True)
    everywhere = [status.name for status in list_engines() if status.usable] if engine == "all" else []
    differs = False
    for name in everywhere or [engine or recording.engine]:
        replay = recording.run(modules, engine=name, limits=LIMITS)
        if transcript:
            click.echo("\n".join(replay.transcript))
        difference = replay.first_difference
        if difference is None:
            click.echo(f"{name}: the same, {len(replay.transcript)} lines")
        else:
            line, was, came = difference
            differs = True
            click.echo(f"{name}: differs at line {line}\n  recorded: {was.strip()}\n  now:      {came.strip()}")
    return Exit.DISAGREE if differs else Exit.OK

"""``proxywasm replay``: runs a recorded request again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import click

from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.options import check_readable
from proxywasm_host.cli.parameter_types import EngineName, Seconds, Size
from proxywasm_host.engine.registry import list_engines
from proxywasm_host.fetch.fetcher import default_fetcher
from proxywasm_host.recording import Recording, replay

__all__ = ["command"]


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("modules", metavar="[NEW.wasm…]", nargs=-1)
@click.option("--engine", type=EngineName(), help="wasmtime, …, or all.  [default: as recorded]")
@click.option("--deadline", type=Seconds(), help="Seconds for a callback, 0 for no limit.  [default: as recorded]")
@click.option("--memory-limit", type=Size(), help="Per guest.  [default: as recorded]")
@click.option("--to", "form", type=click.Choice(["pytest", "suite"]), help="Print the recording as a test that passes.")
@click.option("--transcript", is_flag=True, help="Print everything that the filters did.")
def command(
    file: Path,
    modules: Sequence[str],
    engine: str | None,
    deadline: float | None,
    memory_limit: int | None,
    form: str | None,
    transcript: bool,
) -> int:
    """Run a request again that `proxywasm run`, `proxywasm serve` or a middleware has recorded.

    Only the modules are needed, because FILE has all answers of other services. NEW.wasm replaces the recorded module;
    give one for each filter. Prints the first difference; the exit code is 1 if there is one.

    \b
    proxywasm run auth.wasm /x --config @auth.json --record failing.json
    proxywasm replay failing.json
    proxywasm replay failing.json fixed.wasm --engine all
    proxywasm replay failing.json --to pytest > test_failing.py
    """  # noqa: D301 - click wants the character
    recording = read(file, modules)
    for filter in recording.filters:
        limits = filter.limits
        if limits is not None and deadline is not None:
            limits = replace(limits, deadline=deadline or None)
        if limits is not None and memory_limit is not None:
            limits = replace(limits, memory=memory_limit)
        recording.filters[recording.filters.index(filter)] = replace(filter, limits=limits)
    if recording.cut:
        click.echo(f"{file} is incomplete: the recording reached its size limit.", err=True)
    if form is not None:
        if engine == "all":
            raise click.UsageError("a test is made on one engine: remove --engine all")
        recording.engine = engine or recording.engine
        click.echo(written(recording, form), nl=False)
        return Exit.OK
    everywhere = [status.name for status in list_engines() if status.usable] if engine == "all" else []
    differs = False
    for name in everywhere or [engine or recording.engine]:
        again = replay(recording, engine=name)
        if transcript:
            click.echo("\n".join(again.lines))
        difference = again.first_difference
        if difference is None:
            click.echo(f"{name}: the same, {len(again.lines)} lines")
        else:
            line, was, came = difference
            differs = True
            click.echo(f"{name}: differs at line {line}\n  recorded: {was.strip()}\n  now:      {came.strip()}")
    return Exit.DISAGREE if differs else Exit.OK


def read(file: Path, modules: Sequence[str]) -> Recording:
    """A recording, with these modules instead of the recorded ones. Warns if a recorded module has changed.

    Raises: click.UsageError, ConfigError, OSError.
    """
    try:
        recording = Recording.load(file)
    except OSError as error:
        raise click.UsageError(f"cannot read the recording {file}: {error.strerror}") from None
    if modules and len(modules) != len(recording.filters):
        raise click.UsageError(f"{file} has {len(recording.filters)} filters, not {len(modules)}")
    for at, (filter, digest) in enumerate(zip(recording.filters, recording.digests, strict=True)):
        path = modules[at] if modules else str(filter.code)
        if not path:
            raise click.UsageError(
                f"the filter {filter.name!r} had no file when it was recorded: give its module after {file}"
            )
        check_readable(path)
        if not modules and sha256(default_fetcher().read(path)).hexdigest() != digest:
            click.echo(f"{path} is not the module that was recorded.", err=True)
        recording.filters[at] = replace(filter, code=path)
    return recording


def written(recording: Recording, form: str) -> str:
    """A recording as a test. Raises: ConfigError, click.UsageError."""
    from proxywasm_host.recording.conversion import as_pytest, as_suite  # noqa: PLC0415 - seldom needed

    try:
        return as_pytest(recording) if form == "pytest" else as_suite(recording)
    except ModuleNotFoundError as error:
        raise click.UsageError(f"proxywasm replay --to suite needs more: {error}") from None

"""``proxywasm fuzz``: searches for requests that break a filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from proxywasm_host import remedy
from proxywasm_host.abi.profile import PROFILES
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.options import about, check_readable, filter_options, of_each
from proxywasm_host.cli.parameter_types import LONGEST, EngineName, Seconds, Size
from proxywasm_host.driver.defaults import DEADLINE, MEMORY
from proxywasm_host.engine.cache import ModuleCache, default_directory
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.engine.registry import list_engines, open_engine
from proxywasm_host.errors import EngineUnavailable, ModuleError
from proxywasm_host.runtime.filter_config import FilterConfig

__all__ = ["command"]

ALL = "all"
NAMES = ("trap", "local", "pause", "chunks", "engines", "memory")


@click.command("fuzz")
@click.argument("filter", metavar="FILTER.wasm", type=click.Path(path_type=Path))
@filter_options
@click.option("--cluster", "clusters", metavar="NAME", multiple=True, help="A cluster that the filter calls.")
@click.option("--examples", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Requests to try.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed repeats a search.")
@click.option("--without", type=click.Choice(NAMES), multiple=True, help="Leave this check out.")
@click.option("--engine", type=EngineName(), default=ALL, show_default=True, help="wasmtime, …, or all.")
@click.option(
    "--profile", type=click.Choice(list(PROFILES)), default="envoy", show_default=True, help="The host to imitate."
)
@click.option("--deadline", type=Seconds(), default=f"{DEADLINE:g}", show_default=True, help="Seconds for a callback.")
@click.option("--memory-limit", type=Size(), default=f"{MEMORY >> 20}MiB", show_default=True, help="Per guest.")
def command(filter: Path, clusters: Sequence[str], examples: int, seed: int, **options: Any) -> int:
    """Send a filter random requests, and check the result of each.

    Requests have odd headers and bytes, bodies cut anywhere, clients that leave, and callouts whose answer fails, is
    late or never comes. The checks:

    \b
    trap     the guest does not trap
    local    the filter sends at most one local response
    pause    the filter resumes a paused message, once all answers are in and time has passed
    chunks   the result does not depend on how a body is cut
    engines  all engines give the same result
    memory   memory does not grow with each request

    The smallest request that breaks a check is printed as a test for pytest, and as a command line if that is possible;
    the exit code is 1 then.

    \b
    proxywasm fuzz auth.wasm --config callout:idp --cluster idp --examples 1000
    proxywasm fuzz rewrite.wasm --without chunks --engine wasmtime
    """  # noqa: D301 - click wants the character
    check_readable(str(filter))
    try:
        from proxywasm_host.fuzz import Subject, fuzz  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        raise click.UsageError(f"proxywasm fuzz needs more: {remedy.missing('fuzz', error)}") from None
    subject = Subject(
        FilterConfig(filter, **of_each({**options, "engine": ()}, 1, "config")[0]),
        _engines(options["engine"]),
        tuple(clusters),
        options["profile"],
        Limits(options["memory_limit"], options["deadline"] or LONGEST),
        ModuleCache(default_directory()),
    )
    try:
        finding = fuzz(subject, examples=examples, seeded=seed, without=options["without"])
    except ModuleError as error:
        raise about(str(filter), error) from None
    if finding is None:
        click.echo(f"{examples} requests on {', '.join(subject.engines)}: no check failed.")
        return Exit.OK
    click.echo(f"{finding.check}: {finding}\n")
    if shown := finding.command(subject):
        click.echo(f"{shown}\n")
    click.echo(finding.test(subject))
    return Exit.FAILED


def _engines(name: str) -> tuple[str, ...]:
    """Names of the engines to run on, the preferred one first. Raises: EngineUnavailable, UnknownEngine."""
    if name != ALL:
        return (open_engine(name).name,)
    names = tuple(status.name for status in list_engines() if status.usable)
    if not names:
        raise EngineUnavailable(ALL, "not possible, because no engine is usable here", "see proxywasm engines")
    return names

"""``proxywasm test``: runs suites of tests, without Python."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxywasm_host import remedy
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.options import check_readable
from proxywasm_host.cli.parameter_types import Data, EngineName, Output, OutputFile
from proxywasm_host.engine.cache import ModuleCache, default_directory
from proxywasm_host.engine.registry import list_engines, open_engine
from proxywasm_host.errors import EngineUnavailable, ModuleError, ProxyWasmError

if TYPE_CHECKING:
    from proxywasm_host.suites import Case
    from proxywasm_host.suites.report import Verdict
    from proxywasm_host.testing.coverage import Coverage

__all__ = ["command"]

ALL = "all"
T = TypeVar("T")
POLL = 0.3
"""Seconds between two checks of watched files."""


@click.command("test")
@click.argument("suites", metavar="SUITE…", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--filter",
    "filters",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run the suites for this filter or configuration instead of their own; may be repeated.",
)
@click.option("--config", type=Data(), help="The filter's configuration, instead of that in the suites.")
@click.option("--engine", type=EngineName(), help="wasmtime, …, or all: run every test on each usable engine.")
@click.option("-k", "words", metavar="TEXT", help="Only tests whose names contain this, ignoring case.")
@click.option("--junit", metavar="FILE", type=OutputFile(), help="Write JUnit XML for a CI server.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of TAP.")
@click.option("--coverage", is_flag=True, help="Report which callbacks, hostcalls and functions were reached.")
@click.option("--coverage-json", metavar="FILE", type=OutputFile(), help="Write the coverage as JSON.")
@click.option("--coverage-html", metavar="FILE", type=OutputFile(), help="Write the coverage as an HTML page.")
@click.option(
    "--coverage-under",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Fail if a smaller part of a filter's callbacks and hostcalls was reached.",
)
@click.option("--watch", is_flag=True, help="Run again whenever a suite or a filter changes, until Ctrl-C.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of suites in YAML, and exit.")
def command(suites: Sequence[Path], watch: bool, schema: bool, **options: Any) -> int:
    """Run suites of tests: our own in YAML, and Google's tests.textpb and tests.yaml (Service Extensions).

    Each test loads its filter again. No connection is opened. The exit code is 1 if a test fails.

    \b
    proxywasm test auth.suite.yaml --junit report.xml
    proxywasm test tests.textpb --filter plugin.wasm --engine all
    proxywasm test *.suite.yaml -k token --watch
    """  # noqa: D301 - click wants the character
    if schema:
        click.echo(json.dumps(_needing(_schema), indent=2))
        return Exit.OK
    if not suites:
        raise click.UsageError("the suite is missing: proxywasm test SUITE…")
    for filter in options["filters"]:
        check_readable(str(filter))
    run = _watch if watch else _once
    return _needing(lambda: run(suites, options))


def _needing(action: Callable[[], T]) -> T:
    """Run code that needs an extra. Raises: click.UsageError, which says how to install it."""
    try:
        return action()
    except ModuleNotFoundError as error:
        raise click.UsageError(f"proxywasm test needs more: {remedy.missing('suites', error)}") from None


def _schema() -> dict[str, Any]:
    from proxywasm_host.suites.model import Suite  # noqa: PLC0415 - the extra may be missing

    return Suite.model_json_schema()


def _cases(suites: Sequence[Path], options: dict[str, Any]) -> list[Case]:
    from proxywasm_host.suites import read  # noqa: PLC0415

    cases = [case for suite in suites for case in read(suite, options["filters"], options["config"])]
    wanted = (options["words"] or "").lower()
    chosen = [case for case in cases if wanted in case.name.lower()]
    if not chosen:
        raise click.UsageError(f"no test has {options['words']!r} in its name" if cases else "the suites have no tests")
    return chosen


def _engines(name: str | None) -> list[str]:
    """Names of the engines to run on. Raises: EngineUnavailable, UnknownEngine."""
    if name != ALL:
        return [open_engine(name).name]
    names = [status.name for status in list_engines() if status.usable]
    if not names:
        raise EngineUnavailable(ALL, "not possible, because no engine is usable here", "see proxywasm engines")
    return names


def _once(suites: Sequence[Path], options: dict[str, Any]) -> int:
    """Run all tests. Returns the exit code."""
    from proxywasm_host.suites import Environment, report  # noqa: PLC0415

    cases, engines = _cases(suites, options), _engines(options["engine"])
    cache = ModuleCache(default_directory())
    coverage = _coverage(options)
    as_json = options["as_json"]
    if not as_json:
        click.echo(f"TAP version 14\n1..{len(cases) * len(engines)}")
    verdicts: list[Verdict] = []
    for case in cases:
        for engine in engines:
            try:
                verdicts.append(report.judge(case, Environment(engine, cache, coverage), engine))
            except ModuleError as error:
                raise ModuleError(f"{case.filter}: {error}") from None
            if not as_json:
                click.echo("\n".join(report.as_tap(len(verdicts), verdicts[-1])))
    click.echo(json.dumps(report.as_json(verdicts), indent=2) if as_json else f"# {report.summary(verdicts)}")
    if options["junit"] is not None:
        options["junit"].write(report.as_junit(verdicts))
    enough = coverage is None or _tell(coverage, options)
    return Exit.OK if enough and all(verdict.passed for verdict in verdicts) else Exit.FAILED


def _coverage(options: dict[str, Any]) -> Coverage | None:
    """A coverage to fill, if an option needs it."""
    from proxywasm_host.testing.coverage import Coverage  # noqa: PLC0415 - an error of usage comes first

    words = ("coverage_json", "coverage_html", "coverage_under")
    return Coverage() if options["coverage"] or any(options[word] is not None for word in words) else None


def _tell(coverage: Coverage, options: dict[str, Any]) -> bool:
    """Write the coverage. Returns whether it is high enough."""
    for word, told in (("json", coverage.as_json), ("html", coverage.as_html)):
        file: Output | None = options[f"coverage_{word}"]
        if file is not None:
            file.write(told())
    if options["coverage"]:
        click.echo("\n".join(f"# {line}" for line in coverage.table()), err=options["as_json"])
    poor = coverage.under(options["coverage_under"] or 0)
    for sentence in poor:
        click.echo(sentence, err=True)
    return not poor


def _watch(suites: Sequence[Path], options: dict[str, Any]) -> int:
    """Run all tests, and again whenever a file has changed. An error is reported, and watching continues."""
    known: dict[Path, int] = {}
    while True:
        try:
            files = [*suites, *(case.filter for case in _cases(suites, options))]
        except (ProxyWasmError, click.UsageError):
            files = [*suites, *known]
        stamps = {file: file.stat().st_mtime_ns for file in dict.fromkeys(files) if file.exists()}
        if stamps == known:
            time.sleep(POLL)
            continue
        known = stamps
        try:
            _once(suites, options)
        except (ProxyWasmError, click.UsageError) as error:
            click.echo(f"error: {error}", err=True)

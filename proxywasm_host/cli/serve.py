"""``proxywasm serve``: filters in front of an HTTP server."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from proxywasm_host import remedy
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.cli.options import FILTER_OPTIONS, SHARED_OPTION, is_kong, names_kong, of_each
from proxywasm_host.cli.parameter_types import DataOrFile, Environment, Property, Seconds, Size
from proxywasm_host.driver.defaults import DEADLINE, MEMORY
from proxywasm_host.fetch.reference import is_remote, local_path

__all__ = ["check_file", "command", "host_options", "overrides"]

LEVELS = [level.name.lower() for level in LogLevel]
F = TypeVar("F", bound=Callable[..., Any])


HOST_OPTIONS = (
    click.argument("filters", metavar="[FILTER.wasm]…", nargs=-1, type=click.Path()),
    click.option("--config", "file", type=click.Path(path_type=Path), help="A configuration in YAML or TOML."),
    click.option("--filter-config", type=DataOrFile(), multiple=True, help="The filter's configuration."),
    click.option("--vm-config", type=DataOrFile(), multiple=True, help="The configuration of its VM."),
    *FILTER_OPTIONS,
    click.option("--env", type=Environment(), multiple=True, help="An environment variable of the guests."),
    click.option(
        "--property", "properties", type=Property(), multiple=True, help="A property; PATH:=JSON for a number."
    ),
    click.option("--cluster", "clusters", metavar="NAME=URL", multiple=True, help="A server that filters may call."),
    click.option(
        "--deadline", type=Seconds(), help=f"Seconds for a callback; 0 for no limit.  [default: {DEADLINE:g}]"
    ),
    click.option("--memory-limit", type=Size(), help=f"Per guest.  [default: {MEMORY >> 20}MiB]"),
    click.option("--workers", type=click.IntRange(1, 256), help="Processes.  [default: 1]"),
    SHARED_OPTION,
    click.option("--log-level", type=click.Choice(LEVELS), help="Lowest level of guests' log lines.  [default: info]"),
    click.option("--record", metavar="DIR", help="Record requests into this folder, for `proxywasm replay`."),
    click.option("--record-failures", is_flag=True, help="Record only requests that fail."),
    click.option("--redact", metavar="NAME", multiple=True, help="A header whose values are masked in recordings."),
    click.option("--watch", is_flag=True, default=None, help="Load filters and configurations again when they change."),
    click.option("--admin", metavar="HOST:PORT", help="Where to serve /metrics and a page about the filters."),
    click.option("--schema", is_flag=True, help="Print the JSON schema of the configuration, and exit."),
)


def host_options(function: F) -> F:
    """Add the options that all servers share to a command, for `overrides`."""
    for option in reversed(HOST_OPTIONS):
        function = option(function)
    return function


@click.command("serve")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads that serve, in one process.  [default: 1]")
@click.option("--upstream", metavar="URL", help="The server behind the filters, http://HOST:PORT.")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve.  [default: 127.0.0.1:8080]")
@click.option(
    "--access-log", type=click.Choice(["common", "json", "off"]), help="Its form on standard output.  [default: common]"
)
@host_options
def command(filters: tuple[str, ...], file: Path | None, schema: bool, **options: Any) -> None:
    """Put filters in front of an HTTP server, as a reverse proxy.

    Options of the command line override the configuration, and its filters replace those of the configuration. An
    option of a filter is given once for all filters, or once for each.

    \b
    proxywasm serve auth.wasm --upstream http://localhost:8000 --filter-config @auth.json
    proxywasm serve a.wasm b.wasm --upstream http://localhost:8000 --watch --admin 127.0.0.1:9901
    proxywasm serve --config gateway.yaml --workers 4 --access-log json
    proxywasm serve --config kong.yaml
    """  # noqa: D301 - click wants the character
    try:
        from proxywasm_host.serve.config import Settings  # noqa: PLC0415 - the extra may be missing
        from proxywasm_host.serve.source import Source  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _wanting(error) from None
    if schema:
        click.echo(json.dumps(Settings.model_json_schema(), indent=2))
        return
    check_file(file)
    if not file and not (options["upstream"] and filters):
        raise click.UsageError("say what to serve: FILTER.wasm and --upstream URL, or --config FILE")
    said = overrides(filters, options)
    try:
        from proxywasm_host.serve.application import Application  # noqa: PLC0415 - it needs the data plane as well
        from proxywasm_host.serve.server import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _wanting(error) from None
    if file and (is_kong(file) or names_kong(file)):
        try:
            from proxywasm_host.kong.serve import KongApplication, KongSource  # noqa: PLC0415 - the extra may be missing
        except ModuleNotFoundError as error:
            raise click.UsageError(f"a configuration of Kong needs more: {remedy.missing('kong', error)}") from None
        run(KongApplication, KongSource.of(file.absolute(), said, named=not is_kong(file)))
    else:
        run(Application, Source[Settings](file.absolute() if file else None, said))


def check_file(file: Path | None) -> None:
    """Check the file of --config. Raises: click.UsageError, if it is the configuration of a filter."""
    if file and not file.exists() and str(file)[0] in "{[@":
        raise click.UsageError(
            f"--config is the file of the server's configuration, and {str(file)!r} is not one; "
            f"for a filter's configuration write --filter-config {shlex.quote(str(file))}"
        )


def _wanting(error: ModuleNotFoundError) -> click.UsageError:
    if error.name == "proxywasm_dataplane":
        return click.UsageError(
            f"proxywasm serve needs proxywasm-dataplane, which is not installed: {remedy.install_data_plane()}"
        )
    return click.UsageError(f"proxywasm serve needs more: {remedy.missing('serve', error)}")


def overrides(filters: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a command line in the form of a configuration. Raises: click.UsageError."""
    said: dict[str, Any] = {
        name: options[name]
        for name in ("listen", "http", "workers", "threads", "shared", "watch", "admin", "log_level")
        if options.get(name) is not None
    }
    if options.get("upstream"):
        said["upstream"] = {"url": options["upstream"]}
    if options.get("access_log"):
        said["access_log"] = {"format": options["access_log"]}
    if (options["record_failures"] or options["redact"]) and not options["record"]:
        raise click.UsageError("--record-failures and --redact need --record DIR")
    if options["record"]:
        said["record"] = {
            "directory": Path(options["record"]).absolute(),
            "failures_only": options["record_failures"],
            "redact": list(options["redact"]),
        }
    limits = {"memory": options["memory_limit"], "deadline": options["deadline"]}
    if any(value is not None for value in limits.values()):
        said["limits"] = {name: value for name, value in limits.items() if value is not None}
    if options["properties"]:
        said["properties"] = dict(options["properties"])
    if options["clusters"]:
        said["clusters"] = {name: {"url": url} for name, url in map(_cluster, options["clusters"])}
    if filters:
        said["filters"] = _chain(filters, options)
    elif engines := set(options["engine"]):
        if len(engines) > 1:
            raise click.UsageError("give --engine once, for all filters of the configuration")
        said["engine"] = engines.pop()
    return said


def _cluster(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{text!r} is not a cluster: write it as NAME=URL")
    return name, url


def _chain(filters: tuple[str, ...], options: dict[str, Any]) -> list[dict[str, Any]]:
    chain = []
    for path, said in zip(filters, of_each(options, len(filters), "filter_config"), strict=True):
        for key in ("configuration", "vm_configuration"):
            if isinstance(said.get(key), Path):
                said[f"{key}_file"] = said.pop(key)
        chain.append(
            {
                "file": path if is_remote(path) else Path(local_path(path)).absolute(),
                "environment": dict(options["env"]),
                **said,
            }
        )
    return chain

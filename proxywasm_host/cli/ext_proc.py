"""``proxywasm ext-proc``: filters behind Envoy's ``ext_proc``."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from proxywasm_host import remedy
from proxywasm_host.cli.serve import check_file, host_options, overrides

__all__ = ["answer", "command"]


@click.command("ext-proc")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC.  [default: 127.0.0.1:9002]")
@host_options
def command(filters: tuple[str, ...], file: Path | None, schema: bool, **options: Any) -> None:
    """Run filters for a gateway without WebAssembly that uses ext_proc, an API of Envoy.

    Options of the command line override the configuration, and its filters replace those of the configuration. An
    option of a filter is given once for all filters, or once for each.

    \b
    proxywasm ext-proc auth.wasm --listen 127.0.0.1:9002 --filter-config @auth.json
    proxywasm ext-proc a.wasm b.wasm --watch --admin 127.0.0.1:9901 --workers 2
    proxywasm ext-proc --config filters.yaml
    """  # noqa: D301 - click wants the character
    answer("ext-proc", "ext_proc", "ExtProc", filters, file, schema, options)


def answer(
    name: str,
    module: str,
    kind: str,
    filters: tuple[str, ...],
    file: Path | None,
    schema: bool,
    options: dict[str, Any],
) -> None:
    """Run a server for gateways: the class `kind` of a module of `proxywasm_host.envoy`."""
    try:
        application = getattr(import_module(f"proxywasm_host.envoy.{module}"), kind)  # the extra may be missing
        settings = getattr(import_module("proxywasm_host.envoy.settings"), f"{kind}Settings")
        from proxywasm_host.serve.server import run  # noqa: PLC0415
        from proxywasm_host.serve.source import Source  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.UsageError(f"proxywasm {name} needs more: {remedy.missing('ext-proc', error)}") from None
    if schema:
        click.echo(json.dumps(settings.model_json_schema(), indent=2))
        return
    check_file(file)
    if not file and not filters:
        raise click.UsageError("say what to run: FILTER.wasm, or --config FILE")
    run(application, Source(file.absolute() if file else None, overrides(filters, options), settings, name))

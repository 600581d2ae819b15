"""``proxywasm ext-authz``: filters that decide, for Envoy's ``ext_authz`` and servers that ask over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from proxywasm_host.cli.ext_proc import answer
from proxywasm_host.cli.serve import host_options

__all__ = ["command"]


@click.command("ext-authz")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC.  [default: 127.0.0.1:9003]")
@click.option("--http", metavar="HOST:PORT", help="Where to serve HTTP as well.")
@host_options
def command(filters: tuple[str, ...], file: Path | None, schema: bool, **options: Any) -> None:
    """Run filters that decide whether requests may pass: Envoy asks by ext_authz, nginx and others by HTTP.

    Filters see the request, but no response. Options of the command line override the configuration.

    \b
    proxywasm ext-authz auth.wasm --listen 127.0.0.1:9003 --filter-config @auth.json
    proxywasm ext-authz auth.wasm --http 127.0.0.1:9004 --watch
    """  # noqa: D301 - click wants the character
    answer("ext-authz", "ext_authz", "ExtAuthz", filters, file, schema, options)

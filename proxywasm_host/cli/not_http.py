"""Explains that a filter is not for HTTP. Its guest's failure alone would not say so."""

from __future__ import annotations

from collections.abc import Iterator

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.cli.options import CommandLine, Silent
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.fetch.fetcher import default_fetcher
from proxywasm_host.runtime.failure import Failure, describe
from proxywasm_host.services import GuestLog
from proxywasm_host.source import is_source
from proxywasm_host.testing import ExchangeResult

__all__ = ["why_not_http"]

TCP = "proxy_on_new_connection", "proxy_on_downstream_data", "proxy_on_upstream_data"
HTTP = "proxy_on_request_headers", "proxy_on_request_body", "proxy_on_response_headers", "proxy_on_response_body"
NO_CONTEXT = "invalid context"
"""Messages of SDKs in Rust and Go for an HTTP stream that they have no context for."""
IN_A_PROGRAM = "run sends HTTP; in a program, Host.tcp_stream gives a filter a connection."


def why_not_http(command_line: CommandLine, result: ExchangeResult) -> Iterator[str]:
    """A sentence for each filter that is not for HTTP, after the request was sent."""
    for filter in command_line.chain:
        path = str(filter.code)
        if not is_source(path) and only_tcp(Bytecode(default_fetcher().read(path, filter.sha256, filter.pull_policy))):
            yield f"{filter.name} is a TCP filter: it has callbacks for connections, and none for HTTP. {IN_A_PROGRAM}"
    failure = result.failure
    if failure is not None and has_no_http_context(failure, result.logs):
        if takes_connections(command_line, failure.plugin):
            yield f"{failure.plugin} is a TCP filter: it has no context for HTTP. {IN_A_PROGRAM}"
        else:
            yield (
                f"{failure.plugin} has no context for HTTP. Its root context makes them: in Rust by get_type and "
                "create_http_context, in Go by NewHttpContext."
            )


def only_tcp(bytecode: Bytecode) -> bool:
    """Whether a module has only callbacks for connections."""
    exports = {name for name, kind, _ in bytecode.exports if kind == "function"}
    return not exports.isdisjoint(TCP) and exports.isdisjoint(HTTP)


def has_no_http_context(failure: Failure, logs: list[GuestLog]) -> bool:
    """Whether a guest failed because its SDK has no context for an HTTP stream."""
    said = [line.message for line in logs] + [describe(call) for call in failure.hostcalls]
    return failure.trap is not None and any(NO_CONTEXT in words for words in said)


def takes_connections(command_line: CommandLine, name: str) -> bool:
    """Whether the filter `name`, in a new VM, accepts a TCP connection without failing."""
    try:
        with command_line.host(Silent()) as host:
            [plugin] = [plugin for plugin in command_line.load(host) if plugin.name == name]
            host.tcp_stream([plugin]).new_connection()
            return plugin.failure is None
    except ProxyWasmError:
        return False

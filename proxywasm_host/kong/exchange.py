"""One whole request through a gateway: `proxywasm_host.testing.exchange` for Kong.

The only connections are those to plugin servers, which must be running: see `Setup.running`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.plugin import HttpRequest, ServerCall, Sleep
from proxywasm_host.kong.servers.events import PluginServerError
from proxywasm_host.kong.servers.pool import describe
from proxywasm_host.kong.stream import KongStream
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import CalloutFailed, HttpCall, Reply
from proxywasm_host.testing import ExchangeResult, Message
from proxywasm_host.testing.run import exchange

__all__ = ["NOBODY", "as_call", "asked", "of_plugins", "through"]

NOBODY = "connection refused"
"""The failure of a plugin's connection: no server listens."""


def as_call(callout: PluginCallout, request: HttpRequest) -> HttpCall:
    """A plugin's request in the form of a filter's callout, for functions that answer callouts."""
    url = urlsplit(request.url)
    head = [
        (b":method", request.method.encode()),
        (b":path", ((url.path or "/") + (f"?{url.query}" if url.query else "")).encode()),
        (b":authority", url.netloc.encode()),
        (b":scheme", url.scheme.encode()),
    ]
    rest = [(name.lower(), value) for name, value in request.headers]
    call: Any = callout.plugin, callout.token, url.netloc, [*head, *rest], request.body, [], int(request.timeout * 1000)
    return HttpCall(*call)


def asked(callout: PluginCallout, call: ServerCall) -> Reply:
    """Call a plugin server, and wait for its answer."""
    try:
        return Answer(callout.plugin.servers[call.server].ask(call.message))  # type: ignore[return-value]
    except (OSError, PluginServerError) as error:
        return CalloutFailed(describe(error))


def of_plugins(callouts: Mapping[str, Any]) -> Any:
    """A function that answers plugins. HTTP requests get the replies of the cluster ``HOST:PORT`` or ``HOST``. A
    function there gets an `HttpCall`, and returns replies.

    Sleeping takes no time; plugin servers are called; other connections fail.
    """

    def answer(callout: PluginCallout) -> Sequence[Reply]:
        effect = callout.effect
        if isinstance(effect, Sleep):
            return [Answer()]  # type: ignore[list-item]
        if isinstance(effect, ServerCall):
            return [asked(callout, effect)]
        if not isinstance(effect, HttpRequest):
            return [CalloutFailed(NOBODY)]
        url = urlsplit(effect.url)
        given = callouts.get(url.netloc, callouts.get(url.hostname or ""))
        if callable(given):
            given = given(as_call(callout, effect))
        replies: Sequence[Reply] = given if isinstance(given, Sequence) else [given] if given is not None else []
        return replies[:1] or [CalloutFailed(NOBODY)]

    return answer


def through(
    gateway: Gateway,
    request: Message,
    response: Message,
    *,
    callouts: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
    **options: Any,
) -> ExchangeResult:
    """Send a request through plugins and filters. The arguments are those of `exchange`.

    `callouts` also answer plugins, as in `of_plugins`.
    """
    given = {} if callouts is None else dict(callouts)
    stream = KongStream(gateway, properties={} if properties is None else properties)
    plugins = [plugin for chain in gateway.filters.values() for plugin in chain]
    return exchange(
        gateway.host,
        plugins,
        request,
        response,
        callouts={**given, "": of_plugins(given)},
        stream=stream,
        **options,
    )

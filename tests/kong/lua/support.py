"""A small world for Lua plugins: requests, and whoever performs effects, with real sockets and no waiting."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.kong.context import Client, Context, Headers, Request, Response, Route, Upstream
from proxywasm_host.kong.lua import LuaPlugins, Settings
from proxywasm_host.kong.plugin import (
    Close,
    Connect,
    EffectFailed,
    HttpReply,
    HttpRequest,
    ReadRequestBody,
    Receive,
    Send,
    Sleep,
    StartTimer,
)

SERVICE = {
    "id": "5e000000-0000-4000-8000-000000000001",
    "name": "orders",
    "host": "orders.internal",
    "port": 8080,
    "protocol": "http",
}
ROUTE = {
    "id": "50000000-0000-4000-8000-000000000001",
    "name": "orders-route",
    "protocols": ["http", "https"],
    "paths": ["/orders"],
}
STARTED = 1_700_000_000.25
REQUEST_ID = "0123456789abcdef0123456789abcdef"
LEVELS = {
    LogLevel.DEBUG: "debug",
    LogLevel.INFO: "info",
    LogLevel.WARN: "warn",
    LogLevel.ERROR: "error",
    LogLevel.CRITICAL: "critical",
}


@dataclass
class World:
    """What happened: lines of the log, effects, and timers that wait."""

    lines: list[str] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)
    timers: list[StartTimer] = field(default_factory=list)
    incoming: bytes = b""
    """The request's body, as it comes in when it is read."""

    def log(self, level: LogLevel, message: str) -> None:
        self.lines.append(f"{LEVELS[level]}: {message}")

    def perform(self, run: Generator[Any, Any, Any], context: Context | None = None) -> Any:
        """Run a phase to its end, and close what it leaves open. Sleeping takes no time; timers wait for `run_timers`."""
        with contextlib.ExitStack() as connections:
            return self._perform(run, context, connections)

    def _perform(self, run: Generator[Any, Any, Any], context: Context | None, connections: contextlib.ExitStack) -> Any:
        answer: Any = None
        failure: EffectFailed | None = None
        while True:
            try:
                effect = run.throw(failure) if failure else run.send(answer)
            except StopIteration as end:
                return end.value
            self.effects.append(effect)
            answer, failure = None, None
            try:
                answer = self._answer(effect, context)
                if isinstance(effect, Connect):
                    connections.enter_context(answer)
            except OSError as error:
                failure = EffectFailed("timeout" if isinstance(error, TimeoutError) else "connection refused")

    def run_timers(self) -> None:
        while self.timers:
            self.perform(self.timers.pop(0).run)

    def _answer(self, effect: Any, context: Context | None) -> Any:
        if isinstance(effect, StartTimer):
            self.timers.append(effect)
        elif isinstance(effect, ReadRequestBody):
            context.request.body = self.incoming
            return self.incoming
        elif isinstance(effect, HttpRequest):
            return _over_http(effect)
        elif isinstance(effect, Connect):
            if effect.datagrams:
                connection = socket.socket(type=socket.SOCK_DGRAM)
                connection.connect((effect.host, effect.port))
                return connection
            return socket.create_connection((effect.host, effect.port), effect.timeout)
        elif isinstance(effect, Send):
            effect.connection.sendall(effect.data)
        elif isinstance(effect, Receive):
            effect.connection.settimeout(effect.timeout)
            return effect.connection.recv(effect.size)
        elif isinstance(effect, Close):
            effect.connection.close()
        else:
            assert isinstance(effect, Sleep), effect
        return None


def _over_http(request: HttpRequest) -> HttpReply:
    url = urlsplit(request.url)
    with contextlib.closing(
        http.client.HTTPConnection(url.hostname, url.port or 80, timeout=request.timeout)
    ) as connection:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        connection.request(request.method, target, request.body, headers)
        response = connection.getresponse()
        pairs = [(name.lower().encode(), value.encode()) for name, value in response.getheaders()]
        return HttpReply(response.status, pairs, response.read())


def request(
    world: World,
    method: str = "GET",
    target: str = "/orders/7?b=2&a=1&a=3",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    ip: str = "10.0.0.5",
    body: bytes = b"",
    entities: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Context:
    """A request that has its route."""
    path, _, query = target.partition("?")
    given = headers.items() if isinstance(headers, Mapping) else headers
    pairs = [(b"host", b"shop.example"), *((name.lower().encode(), value.encode("latin-1")) for name, value in given)]
    if body:
        pairs.append((b"content-length", str(len(body)).encode()))
    world.incoming = body
    return Context(
        Request(
            method=method, scheme="http", host="shop.example", port=8000, raw_path=path, path=path, query=query,
            headers=Headers(pairs), http_version=1.1, forwarded_scheme="https", forwarded_host="shop.example",
            forwarded_port=443, forwarded_path=path, forwarded_prefix=None, id=REQUEST_ID, started=STARTED,
        ),
        Client(ip, 50123, ip, 50123),
        entities or {},
        world.log,
        route=Route(ROUTE, SERVICE, {"id": "7"}, ["7"]),
        upstream=Upstream("http", "orders.internal", 8080, path),
    )  # fmt: skip


def respond(context: Context, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
    """Upstream's response to a request, or what a plugin has answered."""
    if context.exit is not None:
        context.response = Response(context.exit.status, Headers(list(context.exit.headers)), "exit")
        return
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    context.response = Response(status, Headers(pairs))
    context.service_response = Response(status, Headers(list(pairs)))


def plugin_folder(folder: Path, name: str, handler: str, schema: str | None = None, **modules: str) -> None:
    """Write a plugin."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "handler.lua").write_text(handler)
    (place / "schema.lua").write_text(
        schema or f'return {{ name = "{name}", fields = {{ {{ config = {{ type = "record", fields = {{}} }} }} }} }}'
    )
    for module, code in modules.items():
        (place / f"{module}.lua").write_text(code)


class Gateway:
    """Plugins of a folder, and one request at a time through all of their phases."""

    def __init__(self, *folders: Path, world: World | None = None, **settings: Any) -> None:
        self.world = world or World()
        self.plugins = LuaPlugins(Settings(folders=folders, log=self._log, **settings))
        self.loaded: list[tuple[Any, Any]] = []

    def _log(self, level: LogLevel, message: str) -> None:
        self.world.log(level, message)

    def load(self, name: str, config: Mapping[str, Any] | None = None) -> Any:
        plugin = self.plugins.load(name)
        self.loaded.append((plugin, plugin.check(config or {})))
        self.loaded.sort(key=lambda pair: -pair[0].priority)
        if "init_worker" in plugin.phases:
            self.world.perform(plugin.run("init_worker", None, None))
        return plugin

    def phase(self, name: str, context: Context) -> None:
        context.phase = name
        for plugin, config in self.loaded:
            if name in plugin.phases:
                self.world.perform(plugin.run(name, context, config), context)
                if name in {"rewrite", "access"} and context.exit is not None:
                    return

    def through(
        self, context: Context, status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """A request and its response; upstream answers with what is given, unless a plugin does."""
        for name in ("rewrite", "access"):
            if context.exit is None:
                self.phase(name, context)
        respond(context, status, headers)
        self.phase("header_filter", context)
        context.response.body, context.response.last = (context.exit.body if context.exit else body), True
        self.phase("body_filter", context)
        self.phase("log", context)
        return context.response

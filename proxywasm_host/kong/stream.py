"""An HTTP stream through Kong's gateway: a router, then plugins and filters in one chain.

    request   → rewrite of global plugins → route → access of plugins, by priority → filters → upstream
    response  → response of plugins (with the whole body) → header_filter, body_filter of plugins → filters → client
    the end   → log of plugins, and of filters

Rules, from ``kong/init.lua`` and ``kong/runloop``:

* A plugin that exits in ``rewrite`` or ``access`` ends the request: later plugins and filters are skipped. Its answer
  passes ``header_filter`` and ``body_filter`` of all plugins of the request, as does a filter's local response.
* A request without a route is answered 404, without a service 503; ``http`` on a route for ``https``, 426 or a
  redirect. After a plugin's failure the answer is 500; a failure in a later phase is logged, and the plugin is skipped.
* Plugins and filters may set upstream's target until the request goes there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from secrets import token_hex
from typing import Any

from proxywasm_host.abi.hostcalls.headers import replace
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.kong.context import (
    PENDING_HEADERS,
    Client,
    Context,
    Exit,
    Headers,
    Request,
    Response,
    Route,
    Upstream,
)
from proxywasm_host.kong.gateway import Gateway, log_failure
from proxywasm_host.kong.namespaces import KONG, read, write
from proxywasm_host.kong.plugin import Plugin, Run
from proxywasm_host.kong.router import Match, normalize, split_port
from proxywasm_host.kong.task import Task
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.filter_chain import REQUEST
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.http import LocalResponse
from proxywasm_host.runtime.nginx import NginxStream

__all__ = ["ROUTING_HEADER", "KongStream", "error_body"]

ROUTING_HEADER = b"x-proxywasm-upstream"
"""The header that names the destination of a request to the carrier; it is not sent on."""
EXIT, ERROR = "kong_exit", "kong_error"
"""Response code details of plugins' answers, and of the gateway's."""
HOSTS_OWN = frozenset({"wasm_fail_stream", "stream_idle_timeout", "request_payload_too_large"})
"""Response code details of local responses that no filter has sent."""
TEXTS = {
    404: "no Route matched with those values",
    426: "Please use HTTPS protocol",
    500: "An unexpected error occurred",
    503: "no Service found with those values",
}
UPSTREAM_TEXTS = {
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}
JSON = (b"content-type", b"application/json; charset=utf-8")
VERSIONS = {"1.0": 1.0, "1.1": 1.1, "2": 2.0, "2.0": 2.0, "3": 3.0, "3.0": 3.0}
PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


def error_body(message: str, request_id: str) -> bytes:
    """The body of an error, as in Kong for clients that accept JSON."""
    return json.dumps({"message": message, "request_id": request_id}, indent=2).encode()


class KongStream(NginxStream):
    """One request, fed and closed like an `HttpStream`. The effects of its plugins are `PluginCallout`s."""

    context: Context

    def __init__(
        self,
        gateway: Gateway,
        *,
        properties: Mapping[str, PropertyValue],
        buffer_limit: int = BUFFER_LIMIT,
        header_limits: HeaderLimits | None = None,
        told: bool = False,
    ) -> None:
        """`told`: the carrier has appended the client's address to ``X-Forwarded-For``."""
        super().__init__(gateway.host, [], properties, buffer_limit, header_limits)
        self._gateway = gateway
        self._told = told
        self._task: Task | None = None
        self._body = bytearray()
        """The received part of a message's body, while plugins work on the message."""
        self._came = False
        """Whether the end of that message has arrived."""
        self._trailers: HeaderList | None = None
        self._phase = "request"
        """``request``, ``upstream`` (the request is with filters), ``response`` (it is with plugins), ``client``."""
        self._collected: list[tuple[Plugin, Any]] = []
        """The plugins of the request, each with its configuration."""
        self._chunks: list[tuple[Plugin, Any]] = []
        self._match: Match | None = None

    # -- The request ---------------------------------------------------------------------------------------------

    def request_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """Feed the client's headers. Their effects may come from a later event, if plugins wait."""
        if self.closed:
            raise RuntimeError("the stream is closed")
        checked = self._checked(headers, 0, owned)
        if checked is not None:
            self._came = end_stream
            self._headers_in(checked)
        return self.host.drain()

    def _headers_in(self, headers: HeaderList) -> None:
        pseudo = {name: value for name, value in headers if name[:1] == b":"}
        rest = [pair for pair in headers if pair[0][:1] != b":"]
        authority = pseudo.get(b":authority", b"")
        if authority:
            rest.insert(0, (b"host", authority))
        if self._told:
            rest = without_last_hop(rest)
        self._request.headers = [*pseudo.items(), *rest]  # for properties that show the original request
        gateway = self._gateway
        self.context = Context(
            *self._request_of(pseudo, Headers(rest)),
            gateway.configuration.entities,
            gateway.log,
            node_id=gateway.node_id,
            trusts=gateway.trusts,
        )
        self._request.started, self._request.ended = True, self._came
        if self._came:
            self.context.request.body = b""
        self._start(self._request_phases(), self._request_done)

    def _request_of(self, pseudo: Mapping[bytes, bytes], headers: Headers) -> tuple[Request, Client]:
        def text(name: bytes) -> str:
            return pseudo.get(name, b"").decode("latin-1")

        properties, gateway = self.properties, self._gateway
        target, scheme = text(b":path"), text(b":scheme")
        raw_path, _, query = target.partition("?")
        host = split_port(text(b":authority").lower(), None)[0]
        ip, port = str(_given(properties, "source.address", "127.0.0.1")), 0
        before, _, after = ip.rpartition(":")
        if after.isdecimal():
            ip, port = before.strip("[]"), int(after)
        listen = str(_given(properties, "destination.address", "")).rpartition(":")[2]
        here = int(listen) if listen.isdecimal() else PORTS.get(scheme, 80)
        trusted = gateway.trusts(ip)

        def forwarded(name: str, own: str) -> str:
            return (headers.get(f"x-forwarded-{name}") or own) if trusted else own

        real_ip = (headers.get(gateway.real_ip_header) or ip) if trusted else ip
        forwarded_port = forwarded("port", str(here))
        version = str(_given(properties, "request.protocol", "HTTP/1.1")).rpartition("/")[2]
        request = Request(
            text(b":method"),
            scheme,
            host,
            here,
            raw_path,
            normalize(raw_path),
            query,
            headers,
            VERSIONS.get(version, 1.1),
            forwarded("proto", scheme),
            forwarded("host", host),
            int(forwarded_port) if forwarded_port.isdigit() else here,
            forwarded("path", raw_path),
            forwarded("prefix", "") or None,
            token_hex(16),
            self._started_ns / 1e9,
        )
        return request, Client(ip, port, real_ip.rpartition(",")[2].strip(), port)

    def _request_phases(self) -> Run:
        context, gateway = self.context, self._gateway
        context.phase = "rewrite"
        for plugin, config in gateway.with_phase("rewrite", context):
            yield from self._run(plugin, config)
            if context.exit is not None:
                return
        if not self._route():
            return
        context.phase = "access"
        for plugin, config in gateway.with_phase("access", context):
            yield from self._run(plugin, config)
            if context.exit is not None:
                return
        if context.route is None or context.route.service is None:
            self._refuse(503)

    def _run(self, plugin: Plugin, config: Any) -> Run:
        self._running = plugin.name
        yield from plugin.run(self.context.phase, self.context, config)

    _running = ""
    """Name of the plugin that runs, or that ran last."""

    def _route(self) -> bool:
        """Find the route. Returns whether the request continues."""
        context, gateway = self.context, self._gateway
        request = context.request
        match = gateway.router.match(request.method, request.path, request.headers.get("host") or "", request.headers)
        if match is None:
            self._refuse(404)
            return False
        self._match = match
        reference = match.route.get("service")
        service = gateway.services[reference["id"]] if reference else None
        context.route = Route(match.route, service, match.captures, match.unnamed_captures)
        secure = {"https", "grpcs"}
        if secure.issuperset(match.route["protocols"]) and request.forwarded_scheme != "https":
            self._redirect(match.route["https_redirect_status_code"])
            return False
        if service is not None:
            path = match.upstream_path(service.get("path") or "/", request.path)
            upstream = gateway.upstreams.get(service["host"], {})
            host_header = None if match.route["preserve_host"] else upstream.get("host_header") or host_of(service)
            context.upstream = Upstream(service["protocol"], service["host"], service["port"], path, host_header)
        return True

    def _refuse(self, status: int) -> None:
        self._gateways_own = True
        self.context.exit = Exit(status, [JSON], error_body(TEXTS[status], self.context.request.id))

    _gateways_own = False

    def _redirect(self, status: int) -> None:
        request = self.context.request
        if status == 426:
            self._refuse(426)
            assert self.context.exit is not None  # noqa: S101 - `_refuse` has set it
            self.context.exit.headers.extend([(b"connection", b"Upgrade"), (b"upgrade", b"TLS/1.2, HTTP/1.1")])
            return
        target = request.raw_path + (f"?{request.query}" if request.query else "")
        self.context.exit = Exit(status, [(b"location", f"https://{request.forwarded_host}{target}".encode("latin-1"))])

    def _request_done(self, error: Exception | None) -> None:
        context = self.context
        self._task = None
        self._request.stopped = {}
        if error is not None:
            log_failure(self._running, context.phase, error)
            self._refuse(500)
        self._collected = [
            (plugin, config)
            for plugin in self._gateway._plugins
            if (config := self._gateway.config_of(plugin, context)) is not None
        ]
        self._chunks = [(plugin, config) for plugin, config in self._collected if "body_filter" in plugin.phases]
        if context.exit is not None:
            self._phase = "upstream"
            given = context.exit
            self._local_response(given.status, given.headers, given.body, ERROR if self._gateways_own else EXIT, None)
        else:
            self._to_filters()

    def _to_filters(self) -> None:
        """Feed the request, as plugins have left it, to the filters."""
        self._phase = "upstream"
        context = self.context
        request, upstream = context.request, context.upstream
        assert upstream is not None  # noqa: S101 - there is a service
        self._use(self.host._ready(self._gateway.chain(context)))
        self._forward()
        host = request.headers.get("host") or ""
        headers = request.headers.pairs[:]
        headers[:] = [
            (b":authority", host.encode("latin-1")),
            (b":path", (upstream.path + (f"?{request.query}" if request.query else "")).encode("latin-1")),
            (b":method", request.method.encode("latin-1")),
            (b":scheme", request.scheme.encode("latin-1")),
            *[pair for pair in headers if pair[0] != b"host"],
        ]
        body = bytes(self._body) if request.body is None else request.body
        if request.body is not None and body != bytes(self._body):
            set_length(headers, len(body) if body else 0)
        ended, self._body = self._came, bytearray()
        if request.body is not None:  # a plugin has read or replaced the body
            ended = True
        self._request.on_headers(headers, ended and not body and self._trailers is None)
        if body and not self._request.aborted:
            self._request.on_data(body, ended and self._trailers is None)
        if self._trailers is not None and not self._request.aborted:
            self._request.on_trailers(self._trailers)

    def _forward(self) -> None:
        """Add the headers that describe the client, as Kong does: ``X-Forwarded-…``, ``X-Real-IP``."""
        context = self.context
        request, client, headers = context.request, context.client, context.request.headers
        told = {
            b"x-forwarded-for": ", ".join([*headers.all("x-forwarded-for"), client.ip]),
            b"x-real-ip": client.forwarded_ip,
            b"x-forwarded-proto": request.forwarded_scheme,
            b"x-forwarded-host": request.forwarded_host,
            b"x-forwarded-port": str(request.forwarded_port),
            b"x-forwarded-path": request.forwarded_path,
            b"x-kong-request-id": request.id,
        }
        prefix = self._match.prefix if self._match and self._match.route.get("strip_path") else ""
        if prefix and prefix != "/":
            told[b"x-forwarded-prefix"] = prefix
        upstream = context.upstream
        if upstream is not None and upstream.host_header is not None:
            told[b"host"] = upstream.host_header
        headers.replace(told)

    def _for_wire(self, direction: int, headers: HeaderList) -> HeaderList | None:
        """The headers to send; those of a request name the destination."""
        checked = super()._for_wire(direction, headers)
        if checked is None or direction != REQUEST or self.context.upstream is None:
            return checked
        out = [pair for pair in checked if pair[0] != ROUTING_HEADER]
        out.append((ROUTING_HEADER, self._destination()))
        return out

    def _destination(self) -> bytes:
        """The value of `ROUTING_HEADER`: the id of the service, or the URL of another target that was set."""
        upstream, route = self.context.upstream, self.context.route
        assert upstream is not None and route is not None and route.service is not None  # noqa: PT018, S101
        service = route.service
        if (upstream.scheme, upstream.host, upstream.port) == (service["protocol"], service["host"], service["port"]):
            return str(service["id"]).encode()
        scheme = "https" if upstream.scheme in {"https", "grpcs"} else "http"
        if upstream.host in self._gateway.upstreams:
            return f"{scheme}://{upstream.host}".encode("latin-1")
        return f"{scheme}://{upstream.host}:{upstream.port}".encode("latin-1")

    def request_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed a part of the client's body."""
        if self._phase != "request":
            return super().request_body(data, end_stream)
        self._body += data
        self._came = end_stream
        self._body_in()
        return self.host.drain()

    def request_trailers(self, trailers: HeaderList) -> list[Effect]:
        """Feed the client's trailers."""
        if self._phase != "request":
            return super().request_trailers(trailers)
        self._trailers, self._came = trailers, True
        self._body_in()
        return self.host.drain()

    def _body_in(self) -> None:
        if self._task is None:
            return
        if self._came and self._task.awaits_body:
            body = self.context.request.body = bytes(self._body)
            self._task.resume_with_body(body)
        elif self._task.awaits_body and len(self._body) > self.buffer_limit:
            self._cancel_task()
            self._phase = "upstream"
            self._over_limit(self._request)

    def _whole_body(self) -> bytes | None:
        """The request's body, for a plugin that asks for it; ``None`` until all of it has arrived."""
        request = self.context.request
        if self._phase != "request":
            return request.body or b""
        if request.body is None and self._came:
            request.body = bytes(self._body)
        return request.body

    @property
    def request_full(self) -> bool:
        """Whether to stop reading from the client."""
        if self._phase == "request":
            waits = self._task is not None and self._task.awaits_body
            return not waits and len(self._body) > self.buffer_limit
        return super().request_full

    # -- The response --------------------------------------------------------------------------------------------

    def response_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """Feed upstream's headers."""
        if self.local is not None or self._response.aborted or not self._request.started:
            return super().response_headers(headers, end_stream, owned=owned)
        checked = self._checked(headers, 2, owned)
        if checked is None:
            return self.host.drain()
        self.details = "via_upstream"
        status = next((value for name, value in checked if name == b":status"), b"502")
        rest = [pair for pair in checked if pair[0] != b":status"]
        context = self.context
        failed = bool(_given(self.properties, "response.flags", 0))
        context.service_response = None if failed else Response(int(status), Headers(rest[:]))
        context.response = Response(int(status), Headers(rest), "error" if failed else "service")
        self._body, self._came = bytearray(), end_stream
        if failed and end_stream is False:
            text = UPSTREAM_TEXTS.get(int(status), TEXTS[500])
            self._failed_body = error_body(text, context.request.id)
            rest[:] = [JSON, (b"content-length", b"%d" % len(self._failed_body))]
        wanted = context.state.get("buffering") or any("response" in plugin.phases for plugin, _ in self._collected)
        if wanted and not failed:
            self._phase = "response"
            if end_stream:
                self._response_whole()
        else:
            self._to_client(end_stream)
        return self.host.drain()

    _failed_body: bytes | None = None

    def response_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """Feed a part of upstream's body."""
        if self._phase == "response":
            self._body += data
            if len(self._body) > self.buffer_limit:
                self._phase = "client"
                self._over_limit(self._response)
            elif end_stream:
                self._response_whole()
            return self.host.drain()
        if self.local is None and not self._response.aborted:
            if self._failed_body is not None:
                if not end_stream:
                    return self.host.drain()
                data, self._failed_body = self._failed_body, None
            data, end_stream = self._filter_body(data, end_stream)
        return super().response_body(data, end_stream)

    def response_trailers(self, trailers: HeaderList) -> list[Effect]:
        """Feed upstream's trailers."""
        if self._phase == "response":
            self._trailers = trailers
            self._response_whole()
            return self.host.drain()
        return super().response_trailers(trailers)

    def _response_whole(self) -> None:
        context = self.context
        assert context.response is not None  # noqa: S101 - its headers have arrived
        context.response.body = bytes(self._body)
        context.response.last = True
        if context.service_response is not None:
            context.service_response.body = context.response.body
        self._start(self._response_phases(), self._response_done)

    def _response_phases(self) -> Run:
        context = self.context
        context.phase = "response"
        for plugin, config in self._collected:
            if "response" in plugin.phases:
                yield from self._run(plugin, config)
                if context.exit is not None:
                    return

    def _response_done(self, error: Exception | None) -> None:
        context = self.context
        self._task = None
        self._request.stopped = {}
        self._phase = "client"
        if error is not None:
            log_failure(self._running, "response", error)
            self._refuse(500)
        response = context.response
        assert response is not None  # noqa: S101 - its headers have arrived
        if context.exit is not None:
            self._local_response(context.exit.status, context.exit.headers, context.exit.body, EXIT, None)
            return
        body = response.body
        if body != bytes(self._body):
            set_length(response.headers.pairs, len(body))
        self._to_client(not body and self._trailers is None)
        if body and not self._response.aborted:
            data, end = self._filter_body(body, self._trailers is None)
            self._response.on_data(data, end)
        if self._trailers is not None and not self._response.aborted:
            self._response.on_trailers(self._trailers)

    def _to_client(self, end_stream: bool) -> None:
        """Run ``header_filter``, and feed the headers to the filters."""
        self._phase = "client"
        response = self.context.response
        assert response is not None  # noqa: S101 - its headers have arrived
        pending = context_pending(self.context)
        response.headers.pairs[:0] = pending.pairs
        pending.pairs.clear()
        response.headers.set("x-kong-request-id", self.context.request.id)
        self._run_at_once("header_filter", self._collected)
        if self._chunks:
            response.headers.remove("content-length")
        headers = [(b":status", b"%d" % response.status), *response.headers.pairs]
        self._response.on_headers(headers, end_stream and not self._chunks)
        if end_stream and self._chunks and not self._response.aborted:
            self._response.on_data(self._filter_body(b"", True)[0], True)

    def _filter_body(self, data: bytes, end_stream: bool) -> tuple[bytes, bool]:
        """Run ``body_filter`` for a part of a body."""
        response = self.context.response
        if not self._chunks or response is None:
            return data, end_stream
        response.body, response.last = data, end_stream
        self._run_at_once("body_filter", self._chunks)
        return response.body, response.last

    def _run_at_once(self, phase: str, plugins: Iterable[tuple[Plugin, Any]]) -> None:
        """Run a phase that must not wait. A failure is logged, and the next plugins run."""
        self.context.phase = phase
        for plugin, config in plugins:
            if phase not in plugin.phases:
                continue
            try:
                for effect in plugin.run(phase, self.context, config):
                    raise RuntimeError(f"API disabled in the context of {phase}: {type(effect).__name__}")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
                log_failure(plugin.name, phase, error)

    def _complete_response(self, local: LocalResponse) -> tuple[HeaderList, bytes]:
        """The local response, after it has passed the plugins like a response from upstream."""
        headers, body = super()._complete_response(local)
        if not hasattr(self, "context"):
            return headers, body
        rest = [pair for pair in headers if pair[0] != b":status"]
        source = "error" if self._gateways_own or local.details in HOSTS_OWN else "exit"
        response = self.context.response = Response(local.status, Headers(rest), source, body, True)
        self.context.response.headers.set("x-kong-request-id", self.context.request.id)
        self._run_at_once("header_filter", self._collected)
        self._run_at_once("body_filter", self._chunks)
        if response.body != body:
            set_length(rest, len(response.body))
        return [(b":status", b"%d" % response.status), *rest], response.body

    # -- The end -------------------------------------------------------------------------------------------------

    def close(self, details: str = "") -> list[Effect]:
        """Run ``log`` of the plugins, then close as `HttpStream.close` does."""
        if not self.closed and hasattr(self, "context"):
            self._cancel_task()
            self.context.phase = "log"
            for plugin, config in self._collected:
                if "log" in plugin.phases:
                    self._gateway.detach(plugin.run("log", self.context, config), plugin.name, "log")
        return super().close(details)

    def _start(self, run: Run, done: Any) -> None:
        self._task = Task(self._gateway, run, done, self._whole_body)
        self._request.stopped = {0: None}  # the carrier waits for plugins, not for the client
        self._task.resume()

    @property
    def waiting_for(self) -> str:
        """The reason why the stream waits, for a log line."""
        if self._task is not None and not self._task.awaits_body:
            return f"plugin {self._running!r} in {self.context.phase}"
        return super().waiting_for

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._request.stopped = {}

    def _local_response(
        self, status: int, headers: HeaderList, body: bytes, details: str, grpc_status: int | None
    ) -> None:
        if self._phase in {"request", "response"}:  # instead of the result of plugins
            self._cancel_task()
            self._phase = "upstream"
        super()._local_response(status, headers, body, details, grpc_status)

    @property
    def changes_bodies(self) -> bool:
        """Whether a filter or a plugin can change a body."""
        return bool(self._chunks) or super().changes_bodies

    # -- Properties ----------------------------------------------------------------------------------------------

    _namespaces = KONG

    def _own_property(self, name: str) -> PropertyValue:
        """A property in ``kong.…`` or ``ngx.…``. Raises: LookupError."""
        return read(self.context, self._gateway.node_id, name)

    def _set_own(self, name: str, value: bytes) -> Refusal | None:
        """Set a property in ``kong.…``."""
        refusal = write(self.context, name, value)
        response = self.context.response
        if refusal is None and name == "kong.response.status" and response is not None:
            replace(self._response.headers, b":status", b"%d" % response.status)
        return refusal


def without_last_hop(headers: HeaderList) -> HeaderList:
    """Headers as the client sent them, without the address that the carrier has appended to ``X-Forwarded-For``."""
    before = []
    for name, value in headers:
        if name == b"x-forwarded-for":
            hops = value.rpartition(b",")[0].strip()
            before += [(name, hops)] if hops else []
        else:
            before.append((name, value))
    return before


def context_pending(context: Context) -> Headers:
    """The headers that plugins set before the response arrives, to be added to it."""
    pending: Headers = context.state.setdefault(PENDING_HEADERS, Headers([]))
    return pending


def set_length(headers: HeaderList, length: int) -> None:
    """Set ``content-length``."""
    headers[:] = [pair for pair in headers if pair[0] not in {b"content-length", b"transfer-encoding"}]
    headers.append((b"content-length", b"%d" % length))


def host_of(service: Mapping[str, Any]) -> str:
    """``Host`` for a service, without the port if it is the protocol's default."""
    usual = PORTS.get(service["protocol"]) == service["port"]
    return str(service["host"]) if usual else f"{service['host']}:{service['port']}"


def _given(properties: Mapping[str, PropertyValue], name: str, otherwise: Any) -> Any:
    try:
        return properties[name]
    except LookupError:
        return otherwise

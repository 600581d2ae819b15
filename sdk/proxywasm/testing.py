"""A small host in memory, to run filters under CPython in unit tests and with a debugger. ::

    import my_filter                       # registers its filter
    from proxywasm.testing import Host

    def test_header():
        host = Host(my_filter.Token, {"token": "t"})
        host.http["idp"] = 200, {}, b'{"sub": "alice"}'
        result = host.request("GET", "/", {"authorization": "t"})
        assert result.upstream_headers["x-user"] == "alice"

It handles requests whose body arrives whole. Test everything else with the packed filter in `proxywasm_host.testing`.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from proxywasm import _callbacks, _fake, _tasks

__all__ = ["Host", "Result"]

LEVELS = ["trace", "debug", "info", "warn", "error", "critical"]
ROOT = 1


class Result:
    """The outcome of a request: what upstream got (None if nothing), and what the client got."""

    def __init__(self) -> None:
        self.upstream_headers: dict[str, str] | None = None
        self.upstream_body = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""


class Host:
    """A host with one filter. `http` has the replies of clusters: (status, headers, body), or None for no reply.

    `upstream` is upstream's response; `logs` has (level, message); `metrics` and `shared_data` are dicts.
    Raises: ValueError, if the filter refuses its configuration.
    """

    def __init__(self, filter: Any, config: Any = None) -> None:
        self.http: dict[str, Any] = {}
        self.upstream: tuple[int, dict[str, str], bytes] = 200, {}, b""
        self.logs: list[tuple[str, str]] = []
        self.metrics: dict[str, int] = {}
        self.shared_data: dict[str, bytes] = {}
        self.properties: dict[str, bytes] = {}
        self.handlers_: list[Any] = []
        self.error_: Any = None
        self._names: list[str] = []
        self._config = b"" if config is None else json.dumps(config).encode()
        self._maps: dict[int, list[tuple[str, str]]] = {}
        self._buffers: dict[int, bytes] = {}
        self._calls: list[tuple[int, str]] = []
        self._tokens = 0
        self._streams = ROOT
        self._local: tuple[int, list[tuple[str, str]], bytes] | None = None
        self._held = {0: False, 1: False}
        _callbacks.contexts.clear()
        _callbacks.classes.clear()
        _tasks.http_calls.clear()
        _fake.install(self)
        _callbacks.register(filter)
        self._call("context_create", ROOT, 0)
        self._call("vm_start", ROOT, 0)
        self._buffers[7] = self._config
        if not self._call("configure", ROOT, len(self._config), otherwise=1):
            raise ValueError(f"the filter refuses its configuration: {self.logs}")

    def _call(self, name: str, *arguments: int, otherwise: int = 0) -> int:
        handler = self.handlers_[_callbacks.NAMES.index(name)]
        answer = None if handler is None else handler(*arguments)
        return otherwise if answer is None else int(answer)

    # Requests

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Result:
        """Send a request through the filter, and upstream's response back."""
        result = Result()
        self._streams += 1
        stream = self._streams
        self._local = None
        self._held = {0: False, 1: False}
        head = [(":method", method), (":path", path), (":authority", "example.com"), (":scheme", "http")]
        self._maps = {0: head + list((headers or {}).items()), 1: [], 2: [], 3: []}
        self._call("context_create", stream, ROOT)
        if self._direction(stream, 0, body):
            result.upstream_headers = dict(self._maps[0])
            result.upstream_body = self._buffers[0]
            status, more, content = self.upstream
            self._maps[2] = [(":status", str(status)), *more.items()]
            if self._direction(stream, 1, content):
                result.headers = {name: value for name, value in self._maps[2] if name != ":status"}
                result.status = int(dict(self._maps[2])[":status"])
                result.body = self._buffers[1]
        if self._local is not None:
            result.status, pairs, result.body = self._local
            result.headers = dict(pairs)
            if result.body:  # as Envoy does
                result.headers = {"content-length": str(len(result.body)), "content-type": "text/plain", **result.headers}
        self._call("log", stream)
        self._call("delete", stream)
        return result

    def _direction(self, stream: int, direction: int, body: bytes) -> bool:
        """Run the filter on the headers and body of one direction, and return whether they are sent on."""
        kind = "response" if direction else "request"
        self._buffers[direction] = b""
        self._held[direction] = bool(self._call(f"{kind}_headers", stream, len(self._maps[2 * direction]), int(not body)))
        self._answer()
        if self._held[direction] or self._local is not None:
            return False
        if body:
            self._buffers[direction] = body
            self._held[direction] = bool(self._call(f"{kind}_body", stream, len(body), 1))
            self._answer()
        return not self._held[direction] and self._local is None

    def _answer(self) -> None:
        while self._calls:
            token, cluster = self._calls.pop(0)
            reply = self.http[cluster]
            if reply is None:
                self._call("http_call_response", ROOT, token, 0, 0, 0)
                continue
            status, headers, body = reply
            self._maps[6] = [(":status", str(status)), *headers.items()]
            self._buffers[4] = body
            self._call("http_call_response", ROOT, token, len(self._maps[6]), len(body), 0)

    # Hostcalls, with the names of the module `_proxywasm`

    def handlers(self, handlers: list[Any]) -> None:
        self.handlers_ = handlers

    def error(self, error: Any) -> None:
        self.error_ = error

    def traceback(self, error: BaseException) -> str:
        import traceback

        return "".join(traceback.format_exception(type(error), error, error.__traceback__))

    def log(self, level: int, message: str) -> None:
        self.logs.append((LEVELS[level], message))

    def time_ns(self) -> int:
        return time.time_ns()

    def random_bytes(self, size: int) -> bytes:
        return os.urandom(size)

    def tick_period(self, milliseconds: int) -> None:
        pass

    def effective_context(self, context: int) -> None:
        pass

    def get_header(self, map: int, name: str) -> str | None:
        found = [value for key, value in self._maps[map] if key == name.lower()]
        return ",".join(found) if found else None

    def set_header(self, map: int, name: str, value: str) -> None:
        pairs = self._maps[map]
        at = next((i for i, (key, _) in enumerate(pairs) if key == name.lower()), len(pairs))
        rest = [pair for pair in pairs[at:] if pair[0] != name.lower()]
        self._maps[map] = [*pairs[:at], (name.lower(), value), *rest]

    def add_header(self, map: int, name: str, value: str) -> None:
        self._maps[map].append((name.lower(), value))

    def remove_header(self, map: int, name: str) -> None:
        self._maps[map] = [pair for pair in self._maps[map] if pair[0] != name.lower()]

    def get_pairs(self, map: int) -> list[tuple[str, str]]:
        return list(self._maps[map])

    def set_pairs(self, map: int, pairs: list[tuple[str, str]]) -> None:
        self._maps[map] = list(pairs)

    def get_buffer(self, type: int, start: int, size: int) -> bytes:
        return self._buffers.get(type, b"")[start : start + size]

    def set_buffer(self, type: int, start: int, size: int, data: str | bytes) -> None:
        data = data.encode() if isinstance(data, str) else data
        old = self._buffers[type]
        self._buffers[type] = old[:start] + data + old[start + size :]

    def continue_stream(self, type: int) -> None:
        self._held[type] = False

    def local_response(
        self, status: int, details: str, body: bytes, headers: list[tuple[str, str]], grpc_status: int
    ) -> None:
        self._local = status, headers, body

    def http_call(
        self, cluster: str, headers: list[tuple[str, str]], body: bytes, trailers: list[tuple[str, str]], timeout: int
    ) -> int:
        if cluster not in self.http:
            raise self.error_(2)
        self._tokens += 1
        self._calls.append((self._tokens, cluster))
        return self._tokens

    def get_property(self, path: str) -> bytes | None:
        return self.properties.get(path.replace("\0", "."))

    def set_property(self, path: str, value: str | bytes) -> None:
        self.properties[path.replace("\0", ".")] = value.encode() if isinstance(value, str) else value

    def get_shared(self, key: str) -> tuple[bytes, int] | None:
        return (self.shared_data[key], 1) if key in self.shared_data else None

    def set_shared(self, key: str, value: str | bytes, cas: int) -> None:
        self.shared_data[key] = value.encode() if isinstance(value, str) else value

    def define_metric(self, type: int, name: str) -> int:
        self._names.append(name)
        self.metrics[name] = 0
        return len(self._names) - 1

    def increment_metric(self, metric: int, offset: int) -> None:
        self.metrics[self._names[metric]] += offset

    def record_metric(self, metric: int, value: int) -> None:
        self.metrics[self._names[metric]] = value

    def get_metric(self, metric: int) -> int:
        return self.metrics[self._names[metric]]

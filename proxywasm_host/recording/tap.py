"""Notes the events of some streams of one host as they happen. It does no I/O, and keeps nothing of other streams.

Rules of this module:

* A recorded stream becomes a `RecordedStream`, which notes each event that is fed to it. The tap is a listener of the
  host, and so hears the filters' callbacks and hostcalls, while a stream is recorded and while filters start.
* Events that are no stream's (replies to callouts, ticks, messages in queues) are noted for each recorded stream that
  they can matter to: a reply for the stream that has called, ticks and messages for all.
* Numbers that differ from process to process are not written down: contexts are left out, and callouts are counted for
  each cluster.
* Every plugin that has started in a VM is part of its state. So a recording has all plugins in the VMs of its stream,
  also those that the stream does not pass. Notes refer to plugins as objects; their names are written at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, TypeVar, cast

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.hostcalls.foreign import OF_HOST
from proxywasm_host.abi.hostcalls.wasi import MONOTONIC
from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.table import Callback
from proxywasm_host.abi.types import BufferType, MapType
from proxywasm_host.recording.file_format import Event, Recording
from proxywasm_host.recording.redaction import Redaction
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect, Reply
from proxywasm_host.runtime.failure import describe
from proxywasm_host.runtime.filter_chain import RESPONSE
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.services.foreign import BUILT_IN

__all__ = ["WHOLE", "RecordedStream", "Tap"]

T = TypeVar("T")
FAILED = "wasm_fail_stream"
"""Details of a stream that ends because its VM has failed, which another stream may have made it."""
WHOLE = 1 << 40
"""Bytes of a recording without a limit."""
DISPATCH = frozenset(("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream", "proxy_redis_call"))
"""Hostcalls whose result is the token of a callout; the cluster is the first argument."""
TOKEN = frozenset(("proxy_grpc_send", "proxy_grpc_close", "proxy_grpc_cancel"))
OUTSIDE = {
    "proxy_get_current_time_nanoseconds": "time",
    "clock_time_get": "time",
    "random_get": "random",
    "proxy_get_shared_data": "shared_data",
    "proxy_set_shared_data": "stored",
    "proxy_register_shared_queue": "queue",
    "proxy_resolve_shared_queue": "queue",
    "proxy_dequeue_shared_queue": "message",
    "proxy_get_metric": "metric",
    "proxy_call_foreign_function": "foreign",
}
"""Hostcalls whose answers a filter alone does not determine, and what the answer is in a recording."""
STARTS = frozenset(("on_context_create", "on_vm_start", "on_configure"))
REPLIES = frozenset(
    (
        *("on_http_call_response", "on_redis_call_response", "on_grpc_receive_initial_metadata"),
        *("on_grpc_receive", "on_grpc_receive_trailing_metadata", "on_grpc_close"),
    )
)
GRPC_CALL = 1
"""Kind of a callout, in the two lowest bits of its token."""
MAX_START = 256
"""Events of a filter that are kept from its start on."""


class Callouts:
    """Callouts as recordings name them: by cluster, and by how many were made to it before."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.known: dict[tuple[Plugin, int], tuple[str, int]] = {}

    def copy(self) -> Callouts:
        copied = Callouts()
        copied.made, copied.known = self.made.copy(), dict(self.known)
        return copied

    def add(self, plugin: Plugin, token: int, cluster: str) -> tuple[str, int]:
        self.made[cluster] += 1
        named = self.known[plugin, token] = cluster, self.made[cluster]
        return named


class Notes:
    """The notes of one stream, or of a plugin from its start on."""

    def __init__(self, tap: Tap, redaction: Redaction, callouts: Callouts, most: int) -> None:
        self.events: list[Event] = []
        self.callouts = callouts
        self.redaction = redaction
        self._tap = tap
        self._left = most
        """Bytes that it may still grow."""

    @property
    def cut(self) -> bool:
        return self._left < 0

    def event(self, name: str, **given: Any) -> None:
        """Something happens."""
        for value in given.values():
            self._left -= _size(value)
            if value.__class__ is list:
                self.redaction.learn(value)
        if not self.cut:
            self.events.append(Event(name, self._tap.now(), given))

    def line(self, text: str) -> tuple[Event, int] | None:
        """A line of what is done in the last event: where it is, to be completed."""
        self._left -= len(text)
        if self.cut or not self.events:
            return None
        did = self.events[-1].did
        did.append(text)
        return self.events[-1], len(did) - 1

    def call(self, plugin: Plugin | None, call: Call) -> None:
        """A hostcall was answered."""
        row, args, result = call
        if row.name in DISPATCH and isinstance(result, int) and plugin is not None:
            made = plugin._root.callout(result)
            if self.events:
                self.events[-1].answers.append(("token", [plugin, result]))
            result = "callout {1} to {0!r}".format(*self.callouts.add(plugin, result, made.cluster if made else ""))
        elif row.name in TOKEN and args and plugin is not None and (plugin, args[0]) in self.callouts.known:
            args = ("callout {1} to {0!r}".format(*self.callouts.known[plugin, args[0]]), *args[1:])
        elif row.name == "proxy_set_effective_context" and args:
            args = ("…",)
        asked = _asked(call)
        if asked and self.events and not self.cut:
            answer = [result.status] if isinstance(result, Refusal) else result
            self._left -= _size(answer)
            self.events[-1].answers.append((asked, list(answer) if isinstance(answer, tuple) else answer))
        self.line(f"  {describe(self.redaction.call(Call(row, args, result)))}")


class RecordedStream(HttpStream):
    """A recorded stream: it notes what the carrier feeds, and not what a filter or another event brings."""

    notes: Notes
    tap: Tap
    plugins: list[Plugin]
    neighbours: list[Plugin]
    """Others in their VMs, in the order in which they were started."""
    context_ids: list[int]
    _inside = False

    def _event(self, name: str, feed: Callable[[], T], **given: Any) -> T:
        by_guest = any(plugin._vm.busy for plugin in self.plugins) and given.get("details") != FAILED
        if self._inside or by_guest or self.closed:
            return feed()
        self.notes.event(name, **given)
        self._inside = True
        try:
            return feed()
        finally:
            self._inside = False

    def request_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().request_headers, headers, end_stream, owned=owned)
        return self._event("request_headers", feed, headers=list(headers), end_stream=end_stream)

    def response_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().response_headers, headers, end_stream, owned=owned)
        return self._event("response_headers", feed, headers=list(headers), end_stream=end_stream)

    def request_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().request_body, data, end_stream)
        return self._event("request_body", feed, data=bytes(data), end_stream=end_stream)

    def response_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().response_body, data, end_stream)
        return self._event("response_body", feed, data=bytes(data), end_stream=end_stream)

    def request_trailers(self, trailers: HeaderList) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().request_trailers, trailers)
        return self._event("request_trailers", feed, trailers=list(trailers))

    def response_trailers(self, trailers: HeaderList) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        feed = partial(super().response_trailers, trailers)
        return self._event("response_trailers", feed, trailers=list(trailers))

    def _local_response(
        self, status: int, headers: HeaderList, body: bytes, details: str, grpc_status: int | None
    ) -> None:
        feed = partial(super()._local_response, status, headers, body, details, grpc_status)
        given = {"status": status, "headers": list(headers), "body": body}
        self._event("local_response", feed, **given, details=details, grpc_status=grpc_status)

    def _reset(self, details: str) -> None:
        self._event("reset", partial(super()._reset, details), details=details)

    def time_out(self) -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        return self._event("time_out", super().time_out)

    def _abandon(self) -> None:
        self._event("abandon", super()._abandon)

    def close(self, details: str = "") -> list[Effect]:
        """As that of an `HttpStream`, and noted."""
        closed = self.closed
        done = self._event("close", partial(super().close, details), details=details)
        if not closed:
            self.tap.end(self)
        return done


class Tap:
    """Listens to one host, and hands each recording to `keep` when its stream is closed. See `begin`.

    Args:
        host: whose streams; before its filters are loaded, so that their start is seen.
        keep: takes a recording and its redaction, and returns at once.
        most: bytes that one recording may have, roughly.
        redaction: what is masked; each recording gets a copy.
        now: tells the time, in nanoseconds since 1970; the host's clock, if not given.
    """

    def __init__(
        self,
        host: Host,
        keep: Callable[[Recording, Redaction], None],
        most: int,
        redaction: Redaction,
        now: Callable[[], int] | None = None,
    ) -> None:
        self.host = host
        self._keep = keep
        self._most = most
        self._redaction = redaction
        self.now = now or host.services.clock.time_ns
        self._streams: dict[RecordedStream, Notes] = {}
        self._starts: dict[Plugin, Notes] = {}
        self._unowned: list[Call] = []
        """Hostcalls before the first callback of a plugin, as its module was initialised."""
        self._open: list[tuple[list[Notes], Plugin, str, list[tuple[Event, int]], dict[str, Any] | None]] = []
        self._settled = False
        self._listening = True
        host.add_listener(self)

    def settle(self, *, by_force: bool) -> bool:
        """Listen no more to what filters do after their start, if they wait for nothing, or `by_force`; whether so."""
        settled = by_force or not any(plugin._root.calls for plugin in self._starts)
        if settled:
            self._settled = True
            self._listen()
        return settled

    def begin(self, stream: HttpStream) -> None:
        """Record a stream, to which nothing has happened yet."""
        stream.__class__ = RecordedStream  # it has the same layout, so that streams of nobody are as fast as ever
        recorded = cast("RecordedStream", stream)
        contexts = stream._contexts
        recorded.plugins = [context.plugin for context in contexts]
        vms = {plugin._vm for plugin in recorded.plugins}
        recorded.neighbours = [each for each in self._starts if each._vm in vms and each not in recorded.plugins]
        callouts = Callouts()
        for plugin in dict.fromkeys((*recorded.plugins, *recorded.neighbours)):
            if plugin in self._starts:
                callouts.made.update(self._starts[plugin].callouts.made)
                callouts.known.update(self._starts[plugin].callouts.known)
        recorded.tap, recorded.notes = self, Notes(self, self._redaction.copy(), callouts, self._most)
        recorded.context_ids = [context.id for context in contexts]
        self._streams[recorded] = recorded.notes
        self._listen()

    def end(self, stream: RecordedStream) -> None:
        """A recorded stream is closed."""
        notes = self._streams.pop(stream, None)
        if notes is not None:
            self.settle(by_force=False)
            self._keep(self._recording(stream, notes), notes.redaction)

    def _listen(self) -> None:
        wanted = bool(self._streams) or not self._settled
        if wanted != self._listening:
            self._listening = wanted
            (self.host.add_listener if wanted else self.host.remove_listener)(self)

    def not_started(self, filters: Iterable[FilterConfig]) -> Recording:
        """A recording without a stream, of filters of which one was not started. Raises: OSError."""
        loaded = [
            replace(filter, name=filter.plugin_name, limits=filter.limits or self.host.limits) for filter in filters
        ]
        return Recording(
            loaded,
            [_digest(_code(self.host, filter)) for filter in loaded],
            _named([event for notes in self._starts.values() for event in notes.events], list(self._starts)),
            profile=self.host.profile.name,
            engine=self.host.engine.name,
            log_level=self.host.services.log.level,
        )

    def _recording(self, stream: RecordedStream, notes: Notes) -> Recording:
        plugins, host = stream.plugins, self.host
        everyone = [*plugins, *stream.neighbours]
        starts = [notes for plugin, notes in self._starts.items() if plugin in everyone]
        response = stream._chain(RESPONSE)
        status = dict(response.headers).get(b":status", b"") if response.headers else b""
        failure = stream.failure or next((plugin.failure for plugin in plugins if plugin.failure), None)
        return Recording(
            [_as_loaded(plugin) for plugin in plugins],
            [_digest(plugin._vm.config.code) for plugin in plugins],
            _named([event for start in starts for event in start.events], everyone),
            _named(notes.events, everyone),
            {**host.properties, **{name: value for name, value in stream.properties.items() if value is not None}},
            dict(notes.callouts.made),
            stream.context_ids,
            host.profile.name,
            host.engine.name,
            stream.buffer_limit,
            stream.header_limits,
            host.services.log.level,
            {
                name: value
                for name, value in (
                    ("status", int(status) if status.isdigit() else None),
                    ("details", stream.details),
                    ("reset", stream.reset_details),
                    ("failure", failure and f"{failure.plugin} failed in {failure.callback}: {failure.message}"),
                )
                if value
            },
            notes.cut or any(start.cut for start in starts),
            [(_place(each, plugins), _as_loaded(each)) for each in stream.neighbours],
        )

    # -- What is heard -------------------------------------------------------------------------------------------

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """As a listener."""
        plugin: Plugin = context.plugin  # type: ignore[attr-defined]
        stream: Any = getattr(context, "stream", None)
        given: dict[str, Any] | None = None
        if stream is not None:
            notes = [self._streams[stream]] if stream in self._streams else []
        elif row.key in STARTS:
            notes = self._started(plugin, row.key)
        else:
            name, given, named = _of_plugin(context, plugin, row.key, args)
            notes = [each for each in self._about(plugin) if named is None or named in each.callouts.known]
            for each in notes:
                if named is not None:
                    cluster, number = each.callouts.known[named]
                    each.event(name, plugin=plugin, cluster=cluster, number=number, **given)
                else:
                    each.event(name, plugin=plugin, **given)
            given = None if named is None or notes else {"plugin": plugin, **given}
        shown = args[2:] if row.key in REPLIES or row.key == "on_context_create" else args[1:]
        text = f"{plugin.name}: {row.name}({', '.join(map(str, shown))})"
        places = [place for each in notes if (place := each.line(text))]
        self._open.append((notes, plugin, text, places, given))

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        """As a listener."""
        _, _, _, places, _ = self._open.pop()
        told = " = trap" if failed else "" if row.result is None else f" = {result}"
        for event, at in places:
            event.did[at] += told

    def hostcall(self, context: Context, call: Call) -> None:
        """As a listener."""
        if not self._open:
            self._unowned.append(call)
            return
        notes, plugin, text, places, given = self._open[-1]
        stream: Any = getattr(context, "stream", None)
        if given is not None and stream in self._streams:  # it answers what another stream has asked, and matters here
            each = self._streams[stream]
            each.event("reply", cluster=None, number=0, **given)
            place = each.line(text)
            self._open[-1] = notes, plugin, text, places, None
            notes.append(each)
            places.extend([place] if place else [])
        for each in notes:
            each.call(plugin, call)

    def _started(self, plugin: Plugin, key: str) -> list[Notes]:
        """Notes of a plugin that starts, anew if its VM is another."""
        if key == "on_context_create" or plugin not in self._starts:
            self._starts = {each: notes for each, notes in self._starts.items() if not (each.closed or each is plugin)}
            self._starts[plugin] = Notes(self, self._redaction, Callouts(), self._most)
            self._starts[plugin].event("start", plugin=plugin)
            for call in self._unowned:
                self._starts[plugin].call(plugin, call)
            self._unowned.clear()
        return [self._starts[plugin]]

    def _about(self, plugin: Plugin) -> list[Notes]:
        """Who notes what a plugin does for no stream."""
        streams = [notes for each, notes in self._streams.items() if plugin in (*each.plugins, *each.neighbours)]
        start = self._starts.get(plugin)
        if start is not None and not streams and len(start.events) < MAX_START:
            return [start]
        return streams


def _named(events: Iterable[Event], everyone: Sequence[Plugin]) -> list[Event]:
    """Events as they are written: with the names of those whom they concern (see `Event.given`)."""
    nth: dict[Plugin, int] = {}
    for at, plugin in enumerate(everyone):
        nth.setdefault(plugin, sum(each.name == plugin.name for each in everyone[:at]))

    def named(event: Event) -> Event:
        given = dict(event.given)
        plugin = given.get("plugin")
        if plugin is not None:
            given["plugin"] = plugin.name
            if nth.get(plugin):
                given["nth"] = nth[plugin]
        answers = [
            (name, [answer[0].name, answer[1], nth.get(answer[0], 0)] if name == "token" else answer)
            for name, answer in event.answers
        ]
        return replace(event, given=given, answers=answers)

    return [named(event) for event in events]


def _place(neighbour: Plugin, plugins: Sequence[Plugin]) -> int:
    """That of the first plugin in the VM of another."""
    return next(at for at, plugin in enumerate(plugins) if plugin._vm is neighbour._vm)


def _asked(call: Call) -> str | None:
    """What of the outside world a hostcall has asked for, if anything."""
    row, args, _ = call
    if row.name == "clock_time_get" and args and args[0] == MONOTONIC:
        return "monotonic"
    if row.name == "proxy_call_foreign_function" and args:
        name = args[0].decode("utf-8", "replace")
        return None if name in OF_HOST or name in BUILT_IN else "foreign"
    return OUTSIDE.get(row.name)


def _of_plugin(
    root: Context, plugin: Plugin, key: str, args: tuple[int, ...]
) -> tuple[str, dict[str, Any], tuple[Plugin, int] | None]:
    """What happens to a plugin: the event, what comes, and the callout that is replied to."""
    if key in REPLIES:
        return "reply", {"reply": _reply(root, key, args)}, (plugin, args[1])
    if key == "on_tick":
        return "tick", {}, None
    if key == "on_queue_ready":
        return "queue", {"token": args[1]}, None
    return key, {}, None


def _reply(root: Context, key: str, args: tuple[int, ...]) -> Reply:
    """The reply that a guest is about to get."""
    maps, buffers = root.maps, root.buffers
    if key == "on_http_call_response":
        headers = maps[MapType.HTTP_CALL_RESPONSE_HEADERS]
        if headers is None:
            return effects.CalloutFailed()
        trailers = maps[MapType.HTTP_CALL_RESPONSE_TRAILERS] or []
        return effects.HttpCallReply(
            list(headers), bytes(buffers[BufferType.HTTP_CALL_RESPONSE_BODY] or b""), list(trailers)
        )
    if key == "on_redis_call_response":
        response = bytes(buffers[BufferType.REDIS_CALL_RESPONSE] or b"")
        return effects.CalloutFailed() if args[2] else effects.RedisCallReply(response)
    if key == "on_grpc_receive":
        message = bytes(buffers[BufferType.GRPC_RECEIVE_BUFFER] or b"")
        return (effects.GrpcCallReply if args[1] & 3 == GRPC_CALL else effects.GrpcMessage)(message)
    if key == "on_grpc_receive_initial_metadata":
        return effects.GrpcInitialMetadata(list(maps[MapType.GRPC_RECEIVE_INITIAL_METADATA] or []))
    if key == "on_grpc_receive_trailing_metadata":
        return effects.GrpcTrailingMetadata(list(maps[MapType.GRPC_RECEIVE_TRAILING_METADATA] or []))
    return effects.GrpcClosed(args[2], root.status[1].decode("utf-8", "replace"))


@lru_cache(64)
def _digest(code: bytes) -> str:
    """SHA-256 of a module, which many recordings share."""
    return sha256(code).hexdigest()


def _code(host: Host, filter: FilterConfig) -> bytes:
    if isinstance(filter.code, bytes):
        return filter.code
    return host.fetcher.read(filter.code, filter.sha256, filter.pull_policy)


def _as_loaded(plugin: Plugin) -> FilterConfig:
    """A filter as it was loaded, with the path of its module and the limits that hold for it."""
    config = plugin.config
    path = "" if isinstance(config.code, bytes) else str(config.code)
    given = {name: getattr(config, name) for name in FIELDS}
    return FilterConfig(path, name=plugin.name, limits=plugin._vm.config.limits, **given)


FIELDS = (
    *("configuration", "root_id", "vm_id", "vm_configuration", "environment", "capabilities", "failure_policy"),
    *("allow_on_headers_stop_iteration", "unknown_imports", "isolation"),
)


def _size(value: Any) -> int:
    """Bytes of something that is noted, roughly."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 8 + sum(map(_size, value))
    fields = getattr(value, "__dataclass_fields__", ())
    return 8 + sum(_size(getattr(value, name)) for name in fields)

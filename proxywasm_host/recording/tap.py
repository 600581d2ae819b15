"""Notes the events of some streams of one host as they happen. It does no I/O and stores nothing of other streams.

Rules of this module:

* A recorded stream becomes a `RecordedStream`, which notes each event that is fed to it. The tap is a listener of the
  host while a stream is recorded and while filters start. So it gets the filters' callbacks and hostcalls.
* Events that belong to no stream are noted for each recorded stream that they may affect: a reply to a callout for the
  stream that made the callout, ticks and messages in queues for all.
* Numbers that differ between processes are not recorded: contexts are left out, and callouts are counted by cluster.
* Every plugin that has started in a VM has changed its state. So a recording has all plugins in the VMs of its stream,
  including those that the stream does not pass. Notes refer to plugins as objects, which are replaced by names at the
  end.
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
from proxywasm_host.recording.file_format import RECORDED, Event, Recording
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
"""Details of a stream that ends because its VM has failed, perhaps by an event of another stream."""
WHOLE = 1 << 40
"""Maximum bytes for a recording that is in effect unlimited."""
DISPATCH = frozenset(("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream", "proxy_redis_call"))
"""Hostcalls that make a callout. Their result is its token, their first argument the cluster."""
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
"""Hostcalls whose results depend on the outside world, and the kind of answer in a recording."""
STARTS = frozenset(("on_context_create", "on_vm_start", "on_configure"))
REPLIES = frozenset(
    (
        *("on_http_call_response", "on_redis_call_response", "on_grpc_receive_initial_metadata"),
        *("on_grpc_receive", "on_grpc_receive_trailing_metadata", "on_grpc_close"),
    )
)
GRPC_CALL = 1
"""Kind of a callout, in the lowest two bits of its token."""
MAX_START = 256
"""Maximum number of events of a filter that are kept from its start on."""


class Callouts:
    """The names of callouts in recordings: cluster, and number of the callout to it."""

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
    """The notes of one stream, or of one plugin from its start on."""

    def __init__(self, tap: Tap, redaction: Redaction, callouts: Callouts, most: int) -> None:
        self.events: list[Event] = []
        self.callouts = callouts
        self.redaction = redaction
        self._tap = tap
        self._left = most
        """Bytes left until the limit."""

    @property
    def cut(self) -> bool:
        return self._left < 0

    def event(self, name: str, **given: Any) -> None:
        """Note an event."""
        for value in given.values():
            self._left -= _size(value)
            if value.__class__ is list:
                self.redaction.learn(value)
        if not self.cut:
            self.events.append(Event(name, self._tap.now(), given))

    def line(self, text: str) -> tuple[Event, int] | None:
        """Add a line to the last event. Returns its place, to complete it later, or ``None`` if it was not added."""
        self._left -= len(text)
        if self.cut or not self.events:
            return None
        did = self.events[-1].did
        did.append(text)
        return self.events[-1], len(did) - 1

    def call(self, plugin: Plugin | None, call: Call) -> None:
        """Note a hostcall with its result."""
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
    """A recorded stream. It notes the events that the carrier feeds, not those caused by a filter or another event."""

    notes: Notes
    tap: Tap
    plugins: list[Plugin]
    neighbours: list[Plugin]
    """Other plugins in the same VMs, in the order of their starts."""
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
        """As in `HttpStream`, after noting the event."""
        feed = partial(super().request_headers, headers, end_stream, owned=owned)
        return self._event("request_headers", feed, headers=list(headers), end_stream=end_stream)

    def response_headers(self, headers: HeaderList, end_stream: bool = False, *, owned: bool = False) -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
        feed = partial(super().response_headers, headers, end_stream, owned=owned)
        return self._event("response_headers", feed, headers=list(headers), end_stream=end_stream)

    def request_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
        feed = partial(super().request_body, data, end_stream)
        return self._event("request_body", feed, data=bytes(data), end_stream=end_stream)

    def response_body(self, data: bytes, end_stream: bool = False) -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
        feed = partial(super().response_body, data, end_stream)
        return self._event("response_body", feed, data=bytes(data), end_stream=end_stream)

    def request_trailers(self, trailers: HeaderList) -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
        feed = partial(super().request_trailers, trailers)
        return self._event("request_trailers", feed, trailers=list(trailers))

    def response_trailers(self, trailers: HeaderList) -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
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
        """As in `HttpStream`, after noting the event."""
        return self._event("time_out", super().time_out)

    def _abandon(self) -> None:
        self._event("abandon", super()._abandon)

    def close(self, details: str = "") -> list[Effect]:
        """As in `HttpStream`, after noting the event."""
        closed = self.closed
        done = self._event("close", partial(super().close, details), details=details)
        if not closed:
            self.tap.end(self)
        return done


class Tap:
    """Listens to one host, and passes each recording to `keep` when its stream is closed. See `begin`.

    Args:
        host: the host of the streams. Its filters must not be loaded yet, so that their start is noted.
        keep: a function that accepts a recording and its redaction, and returns quickly.
        most: approximate maximum bytes of a recording.
        redaction: how secrets are masked. Each recording gets a copy.
        now: returns the time in nanoseconds since 1970; by default the host's clock.
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
        """Hostcalls before the first callback of a plugin, during the initialisation of its module."""
        self._open: list[tuple[list[Notes], Plugin, str, list[tuple[Event, int]], dict[str, Any] | None]] = []
        self._settled = False
        self._listening = True
        host.add_listener(self)

    def settle(self, *, by_force: bool) -> bool:
        """Stop noting filters after their start, if no callout is open or `by_force`. Returns whether it stopped."""
        settled = by_force or not any(plugin._root.calls for plugin in self._starts)
        if settled:
            self._settled = True
            self._listen()
        return settled

    def begin(self, stream: HttpStream) -> None:
        """Record a stream that has had no event yet."""
        stream.__class__ = RecordedStream  # a subclass with the same layout, so that other streams stay as fast
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
        """Finish the recording of a closed stream."""
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
        """A recording without a stream, after a filter failed to start. Raises: OSError."""
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

    # -- As a listener of the host -------------------------------------------------------------------------------

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """See `Listener`."""
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
        """See `Listener`."""
        _, _, _, places, _ = self._open.pop()
        told = " = trap" if failed else "" if row.result is None else f" = {result}"
        for event, at in places:
            event.did[at] += told

    def hostcall(self, context: Context, call: Call) -> None:
        """See `Listener`."""
        if not self._open:
            self._unowned.append(call)
            return
        notes, plugin, text, places, given = self._open[-1]
        stream: Any = getattr(context, "stream", None)
        if given is not None and stream in self._streams:  # replies to another stream, and affects this one
            each = self._streams[stream]
            each.event("reply", cluster=None, number=0, **given)
            place = each.line(text)
            self._open[-1] = notes, plugin, text, places, None
            notes.append(each)
            places.extend([place] if place else [])
        for each in notes:
            each.call(plugin, call)

    def _started(self, plugin: Plugin, key: str) -> list[Notes]:
        """The notes of a plugin that starts; new ones if it starts in a new VM."""
        if key == "on_context_create" or plugin not in self._starts:
            self._starts = {each: notes for each, notes in self._starts.items() if not (each.closed or each is plugin)}
            self._starts[plugin] = Notes(self, self._redaction, Callouts(), self._most)
            self._starts[plugin].event("start", plugin=plugin)
            for call in self._unowned:
                self._starts[plugin].call(plugin, call)
            self._unowned.clear()
        return [self._starts[plugin]]

    def _about(self, plugin: Plugin) -> list[Notes]:
        """The notes to which an event of a plugin outside of streams is added."""
        streams = [notes for each, notes in self._streams.items() if plugin in (*each.plugins, *each.neighbours)]
        start = self._starts.get(plugin)
        if start is not None and not streams and len(start.events) < MAX_START:
            return [start]
        return streams


def _named(events: Iterable[Event], everyone: Sequence[Plugin]) -> list[Event]:
    """Events with the names of plugins instead of objects (see `Event.given`)."""
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
    """The index of the first plugin in the VM of a neighbour."""
    return next(at for at, plugin in enumerate(plugins) if plugin._vm is neighbour._vm)


def _asked(call: Call) -> str | None:
    """The kind of answer that a hostcall has got from the outside world, or ``None``."""
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
    """An event of a plugin: its name, its content, and the callout to which it replies, if any."""
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
    """SHA-256 of a module, cached because many recordings share it."""
    return sha256(code).hexdigest()


def _code(host: Host, filter: FilterConfig) -> bytes:
    if isinstance(filter.code, bytes):
        return filter.code
    return host.fetcher.read(filter.code, filter.sha256, filter.pull_policy)


def _as_loaded(plugin: Plugin) -> FilterConfig:
    """The options of a loaded filter, with the path of its module and its effective limits."""
    config = plugin.config
    path = "" if isinstance(config.code, bytes) else str(config.code)
    effective = {"name": plugin.name, "limits": plugin._vm.config.limits}
    return FilterConfig(path, **{name: getattr(config, name) for name in RECORDED} | effective)


def _size(value: Any) -> int:
    """Approximate bytes of a noted value."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 8 + sum(map(_size, value))
    fields = getattr(value, "__dataclass_fields__", ())
    return 8 + sum(_size(getattr(value, name)) for name in fields)

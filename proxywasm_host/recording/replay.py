"""Replays a recording without the outside world, with the recorded answers.

* Events come in the recorded order, each at its time. A part of the response waits until the request has been sent
  upstream, and a reply without its callout is dropped. So modules that behave differently can be replayed, too.
* A callout that is not in the recording gets the last answer of its cluster, or fails without one.
* A replay is also recorded, so that the same code writes both sides of the comparison.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from random import Random
from typing import Any

from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.types import Status
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.recording.file_format import Event, Recording, as_bytes, first_difference
from proxywasm_host.recording.redaction import Redaction
from proxywasm_host.recording.tap import WHOLE, Tap
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure, PluginError
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.listener import Listener
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.services import (
    ForeignCallFailed,
    GuestLog,
    InMemoryMetrics,
    InMemorySharedData,
    InMemorySharedQueues,
    ManualClock,
    Services,
)
from proxywasm_host.services.foreign import BUILT_IN

__all__ = ["Replay", "replay"]

CALLOUTS = (effects.HttpCall, effects.GrpcCall, effects.GrpcStream, effects.RedisCall, effects.NameLookup)
MAX_EXTRA = 1000
"""Maximum number of answers to callouts that are not in the recording. It stops a filter that asks again after each."""
LATE = frozenset(("response_headers", "response_body", "response_trailers"))
"""Events that wait until the request has been sent upstream."""


@dataclass
class Replay:
    """The result of a replay."""

    engine: str
    recording: Recording
    """The recording of the replay."""
    failure: Failure | None
    recorded: list[str]
    """The lines with which it is compared."""

    @property
    def lines(self) -> list[str]:
        """The actions of the filters, a line for each callback and hostcall."""
        return self.recording.lines

    @property
    def first_difference(self) -> tuple[int, str, str] | None:
        """Number (from 1), recorded text and replayed text of the first line that differs, or ``None``."""
        return first_difference(self.recorded, self.lines)


def replay(
    recording: Recording,
    modules: Sequence[str | Path | bytes] = (),
    *,
    engine: str | None = None,
    limits: Limits | None = None,
    hostcalls: Iterable[CustomHostcall] = (),
    listener: Listener | None = None,
) -> Replay:
    """Replay a recording, by default on the engine on which it was recorded.

    Args:
        modules: replacements of the recorded modules, in the same order.
        engine: the name of another engine.
        limits: limits of the guests instead of the recorded ones.
        hostcalls: your own hostcalls that the filters had. Their results are not in a recording.
        listener: gets every callback and hostcall.

    Raises: OSError, ModuleError, UnknownEngine, EngineUnavailable; ValueError, for a wrong number of modules.
    """
    if modules:
        filters = [replaced(filter, code=code) for filter, code in zip(recording.filters, modules, strict=True)]
        recording = replaced(recording, filters=filters)
    filters = recording.all_filters
    if limits is not None:
        filters = [replaced(filter, limits=limits) for filter in filters]
    world = _World(recording)
    name = engine or recording.engine or None
    services = world.services()
    host = _Host(name, profile=recording.profile, services=services, hostcalls=hostcalls, listener=listener)
    made: list[Recording] = []
    tap = Tap(host, lambda recording, _: made.append(recording), WHOLE, Redaction(credentials=False), world.clock.now)
    failure: Failure | None = None
    with host:
        plugins: dict[_Who, Plugin] = {}
        try:
            for who, filter in _in_order(filters, recording.start):
                world.at_start(who)
                plugins[who] = host.load_plugin(filter)
        except PluginError as error:
            failure = error.failure
            made.append(tap.not_started(filters))
        else:
            player = _Player(host, tap, world, plugins, recording)
            player.play()
            failure = player.stream.failure or next((each.failure for each in player.chain if each.failure), None)
    return Replay(host.engine.name, made[0], failure, recording.lines)


_Who = tuple[str, int]
"""The name of a plugin and its index among those with that name, as in `Event.given`."""


def _who(given: Mapping[str, Any]) -> _Who:
    return given["plugin"], given.get("nth", 0)


def _of(filters: Iterable[FilterConfig]) -> Iterator[tuple[_Who, FilterConfig]]:
    names: Counter[str] = Counter()
    for filter in filters:
        name = filter.plugin_name
        yield (name, names[name]), filter
        names[name] += 1


def _in_order(filters: Iterable[FilterConfig], start: Iterable[Event]) -> list[tuple[_Who, FilterConfig]]:
    """The filters in the order in which they were started."""
    order = [_who(event.given) for event in start if event.event == "start"]
    return sorted(_of(filters), key=lambda each: order.index(each[0]) if each[0] in order else len(order))


class _Host(Host):
    """A host without trial starts of plugins that join a VM, which would use up the recorded answers."""

    def _try(self, *_: object) -> None:
        pass


class _Player:
    """Feeds events to one stream and its plugins."""

    def __init__(
        self, host: Host, tap: Tap, world: _World, plugins: Mapping[_Who, Plugin], recording: Recording
    ) -> None:
        self._host, self._world, self._recording = host, world, recording
        self._plugins = plugins
        self.chain = [plugins[who] for who, _ in _of(recording.filters)]
        self._tap = tap
        self._callouts: defaultdict[str, list[effects.Callout]] = defaultdict(list)
        self._replies: dict[str, Event] = {}
        """The last reply of each cluster."""
        for event in (*recording.start, *recording.events):
            if event.event == "reply":
                self._replies[event.given["cluster"]] = event
        self._extra = 0
        self._request_out = False
        self._waiting: list[Event] = []
        self.stream: HttpStream

    def play(self) -> None:
        """Replay all events."""
        recording, host = self._recording, self._host
        self._take(host.drain())
        for event in recording.start:
            if event.event != "start":
                self._feed(event)
        self._world.at(None)
        if recording.events:
            self._world.clock.set(recording.events[0].time_ns)
        for plugin, number in reversed(list(zip(self.chain, recording.contexts, strict=False))):
            plugin._vm.next_context = number
        self.stream = host.http_stream(
            self.chain,
            properties=recording.properties,
            buffer_limit=recording.buffer_limit,
            header_limits=recording.header_limits,
        )
        self._tap.begin(self.stream)
        for event in recording.events:
            if self.stream.closed:
                break
            if event.event in LATE and not (self._request_out or self.stream.local):
                self._waiting.append(event)
            else:
                self._feed(event)
        self._take(self.stream.close())

    def _feed(self, event: Event) -> None:
        self._world.at(event)
        for name, token, *nth in reversed([answer for kind, answer in event.answers if kind == "token"]):
            plugin = self._plugins.get((name, nth[0] if nth else 0))
            if plugin is not None:
                plugin._vm.set_next_token(token)
        self._take(self._done(event))
        waiting: list[Event] = []
        if self._request_out and event.event not in LATE:
            waiting, self._waiting = self._waiting, []
        for late in waiting:
            self._feed(late)

    def _done(self, event: Event) -> list[Effect]:
        given = event.given
        if event.event == "reply":
            return self._reply(given)
        if event.event in ("tick", "queue"):
            plugin = self._plugins.get(_who(given))
            if plugin is None or plugin.failure is not None:
                return []
            return plugin.tick() if event.event == "tick" else plugin.queue_ready(given["token"])
        stream = self.stream
        if event.event == "local_response":
            if stream.local is None and not stream.closed:
                stream._local_response(**given)
        elif event.event == "reset":
            stream._reset(**given)
        elif event.event == "abandon":
            stream._abandon()
        elif event.event in FED:
            return getattr(stream, event.event)(**given)  # type: ignore[no-any-return]
        return self._host.drain()

    def _reply(self, given: Mapping[str, Any]) -> list[Effect]:
        made = self._callouts[given["cluster"]] if given["cluster"] is not None else []
        if len(made) < given["number"] or not made:
            return []
        return self._answer(made[given["number"] - 1], given["reply"])

    def _answer(self, callout: effects.Callout, reply: effects.Reply) -> list[Effect]:
        if getattr(callout, "answered", False) or not isinstance(reply, callout.Reply):
            return []
        return self._host.deliver(callout, reply)

    def _take(self, todo: list[Effect]) -> None:
        """Note effects, and answer callouts that are not in the recording."""
        queue = deque(todo)
        while queue:
            effect = queue.popleft()
            if isinstance(effect, effects.RequestHeaders):
                self._request_out = True
            elif isinstance(effect, CALLOUTS):
                made = self._callouts[effect.cluster]
                made.append(effect)
                if len(made) > self._recording.callouts.get(effect.cluster, 0) and self._extra < MAX_EXTRA:
                    self._extra += 1
                    last = self._replies.get(effect.cluster)
                    reply = effects.CalloutFailed() if last is None else last.given["reply"]
                    queue.extend(self._answer(effect, reply))


FED = frozenset(
    (
        *("request_headers", "request_body", "request_trailers"),
        *("response_headers", "response_body", "response_trailers"),
        *("time_out", "close"),
    )
)


class _World:
    """Replays the outside world of the recording: the time and the answers of hostcalls."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        starts = [event for event in recording.start if event.event == "start"]
        self.clock = _Clock(self, (starts or recording.events or [Event("", 0)])[0].time_ns)
        self._answers: defaultdict[str, deque[Any]] = defaultdict(deque)

    def at_start(self, who: _Who) -> None:
        """Prepare the time and the answers for the start of a filter."""
        starts = [each for each in self._recording.start if each.event == "start" and _who(each.given) == who]
        self.at(starts[0] if starts else None)

    def at(self, event: Event | None) -> None:
        """Prepare the time and the answers for an event."""
        self._answers.clear()
        if event is not None:
            self.clock.set(event.time_ns)
            for name, answer in event.answers:
                self._answers[name].append(answer)

    def answer(self, name: str) -> Any:
        """The next answer of this kind. Raises: LookupError, if none is left."""
        return self._answers[name].popleft()

    def services(self) -> Services:
        random = Random(0)  # noqa: S311 - for calls beyond the recorded ones

        def randbytes(size: int) -> bytes:
            try:
                found = as_bytes(self.answer("random"))
            except LookupError:
                found = b""
            return found if len(found) == size else random.randbytes(size)

        return Services(
            clock=self.clock,
            log=_Level(self._recording.log_level),
            metrics=_Metrics(self),
            shared_data=_SharedData(self),
            shared_queues=_SharedQueues(self),
            foreign_functions=_ForeignFunctions(self),
            clusters=frozenset(self._recording.callouts),
            random=randbytes,
        )


class _Clock(ManualClock):
    def __init__(self, world: _World, time_ns: int) -> None:
        super().__init__(time_ns)
        self._world = world

    def set(self, time_ns: int) -> None:
        self._now = max(self._now, time_ns)

    def now(self) -> int:
        """The time of the replay, even if guests get a recorded one."""
        return self._now

    def time_ns(self) -> int:
        try:
            return int(self._world.answer("time"))
        except LookupError:
            return super().time_ns()

    def monotonic_ns(self) -> int:
        try:
            return int(self._world.answer("monotonic"))
        except LookupError:
            return super().monotonic_ns()


class _Level:
    """Drops log lines, and returns the recorded level."""

    def __init__(self, level: int) -> None:
        self.level = level

    def log(self, line: GuestLog) -> None:
        """Drop the line, which is noted as a hostcall."""


class _Metrics(InMemoryMetrics):
    def __init__(self, world: _World) -> None:
        super().__init__()
        self._world = world

    def get(self, kind: int, name: str) -> int:
        try:
            return int(self._world.answer("metric"))
        except (LookupError, TypeError):
            return super().get(kind, name)


class _SharedData(InMemorySharedData):
    def __init__(self, world: _World) -> None:
        super().__init__()
        self._world = world

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        try:
            found = self._world.answer("shared_data")
        except LookupError:
            return super().get(vm_id, key)
        return (as_bytes(found[0]), found[1]) if len(found) == 2 else None

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        try:
            stored = self._world.answer("stored") is None
        except LookupError:
            return super().set(vm_id, key, value, cas)
        return super().set(vm_id, key, value) if stored else False


class _SharedQueues(InMemorySharedQueues):
    """Queues with the recorded tokens and messages."""

    def __init__(self, world: _World) -> None:
        super().__init__()
        self._world = world
        self._named: dict[int, int] = {}
        """Our token for each recorded one."""

    def _token(self, ours: int | None) -> int | None:
        try:
            recorded = self._world.answer("queue")
        except LookupError:
            return ours
        if not isinstance(recorded, int):
            return None
        if ours is not None:
            self._named[recorded] = ours
        return recorded

    def register(self, vm_id: str, name: bytes, on_ready: Any) -> int:
        token = super().register(vm_id, name, on_ready)
        return self._token(token) or token

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        return self._token(super().resolve(vm_id, name))

    def enqueue(self, token: int, message: bytes) -> None:
        if token in self._named or token in self._queues:
            super().enqueue(self._named.get(token, token), message)

    def dequeue(self, token: int) -> bytes | None:
        try:
            found = self._world.answer("message")
        except LookupError:
            return super().dequeue(self._named.get(token, token))
        return None if isinstance(found, list) else as_bytes(found)


class _ForeignFunctions(dict[str, Any]):
    """Foreign functions. Those of the host are called; those of the embedder return their recorded results."""

    def __init__(self, world: _World) -> None:
        super().__init__(BUILT_IN)
        self._world = world

    def get(self, name: str, default: Any = None) -> Any:
        if name in self:
            return super().get(name, default)

        def answer(arguments: bytes) -> bytes:
            try:
                found = self._world.answer("foreign")
            except LookupError:
                found = None
            if found is None or isinstance(found, list):
                status = found[0] if found else Status.NOT_FOUND
                raise ForeignCallFailed(status, "the recording has no result of it")
            return as_bytes(found)

        return answer

"""Filters under test and their environment: callouts, time, shared data, queues, metrics.

    with Harness() as harness:
        auth = harness("auth.wasm", "callout:idp")
        auth.http["idp"] = lambda call: Response(200) if "authorization" in call.request.headers else 403
        outcome = auth.get("/x", {"authorization": "Bearer secret"})
        assert outcome.status == 200

Rules:

* Nothing sleeps, and no server is contacted. Only `VirtualClock.advance` and a whole request that waits let time pass.
* A callout is answered when the callback that made it has returned, unless its answer is `later` or `NEVER`. A callout
  to a cluster without an answer is refused, as in Envoy.
* Filters of one harness share state as in production: a second ``harness(…)`` makes another VM, or another plugin in
  the same one, by the same rules (`FilterConfig.vm_id`).
* An exception in a function of the test reaches the test.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Union

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.profile import ENVOY, Profile
from proxywasm_host.abi.table import HOSTCALLS, Callback
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure, describe
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.filter_config import Code, FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.services import GuestLog, InMemoryMetrics, InMemorySharedData, InMemorySharedQueues, Services
from proxywasm_host.testing.callouts import NEVER, TOO_LATE, Answers, Callout, Later, Turns, asked, replies
from proxywasm_host.testing.clock import VirtualClock
from proxywasm_host.testing.function_counters import FunctionCounters, counted
from proxywasm_host.testing.http import HeadersLike, Request
from proxywasm_host.testing.outcome import Logs, Outcome
from proxywasm_host.testing.profiles import HostProfile, host_profile
from proxywasm_host.testing.stream import HttpExchange, TcpConnection
from proxywasm_host.testing.timeline import InputEvent, Invocation, Recorder, logs_of

if TYPE_CHECKING:
    from proxywasm_host.engine.cache import ModuleCache
    from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["FilterUnderTest", "Harness"]

MAX_ANSWERS = 1000
"""Maximum number of callouts and messages that cause each other at once. With more, the filter would never end."""
LAST = 12
"""Maximum number of hostcalls in `Harness.report`."""
LAST_EXCHANGES = 4
"""Maximum number of requests in `Harness.report`."""

Filter = Union[Code, FilterConfig]


class Harness:
    """The environment of filters under test. ``harness("filter.wasm", configuration)`` loads a filter into it.

    Args:
        engine, limits, properties, cache: see `proxywasm_host.Host`.
        profile: `envoy`, `spec`, `higress`, `gcp`, `wasmx`, `gcore`, or your own; see `testing.profiles`.
        seed: seed of the random numbers for guests.

    Raises: UnknownEngine, EngineUnavailable; LookupError, for an unknown profile.
    """

    def __init__(
        self,
        engine: str | Engine | None = None,
        *,
        profile: str | Profile | HostProfile = ENVOY,
        seed: int = 0,
        limits: Limits | None = None,
        properties: Mapping[str, PropertyValue] | None = None,
        cache: ModuleCache | None = None,
    ) -> None:
        self.profile = host_profile(profile)
        self.clock = VirtualClock()
        self.http, self.grpc, self.redis = Answers("http"), Answers("grpc"), Answers("redis")
        self.names = Answers("names")
        self.answers = self.http, self.grpc, self.redis, self.names
        self.callouts: list[Callout] = []
        """All callouts, in order."""
        self.recorder = StreamRecorder()
        self._metrics, self._shared, self._queues = InMemoryMetrics(), InMemorySharedData(), InMemorySharedQueues()
        self.host = Host(
            engine,
            profile=self.profile.profile,
            limits=limits,
            properties=properties,
            cache=cache,
            listener=self.recorder,
            services=Services(
                clock=self.clock,
                log=self.recorder,
                metrics=self._metrics,
                shared_data=self._shared,
                shared_queues=self._queues,
                clusters=_Clusters(self),
                random=Random(seed).randbytes,  # noqa: S311 - meant to be reproducible
            ),
        )
        self.resources = ExitStack()
        """Resources for an embedder's own kinds of filters, which `close` frees."""
        self.filters: list[FilterUnderTest] = []
        self.count_functions = False
        """Whether filters loaded from now on count entries of their functions."""
        self.function_counters: dict[Plugin, FunctionCounters] = {}
        self.find: Callable[[Any], Code] = lambda code: code
        """Finds a module by the name in a test."""
        self.withheld: list[str] = []
        """Properties that a filter has tried to read and the profile hides."""
        self.unanswered: dict[str, str] = {}
        """Clusters without an answer that filters have called, with code for the test that sets one."""
        self.exchanges: deque[HttpExchange] = deque(maxlen=LAST_EXCHANGES)
        """The last requests."""
        self.performers: dict[type, Callable[[Any], list[Effect]]] = {}
        """Functions that perform an embedder's own kinds of effects, by type. Each returns further effects."""
        self._streams: dict[int, tuple[object, Callable[[Effect], None]]] = {}
        self._periods: dict[int, int] = {}
        """The number of each plugin's present tick period, which identifies ticks of old periods."""

    # -- Filters -------------------------------------------------------------------------------------------------

    def __call__(
        self, filter: Filter | Sequence[Filter], configuration: object = b"", **options: Any
    ) -> FilterUnderTest:
        """Load a filter or a chain of filters.

        Args:
            filter: a path, a module's bytes, a `FilterConfig`, or a list of these.
            configuration: text or bytes, unchanged; anything else as JSON.
            options: further fields of a `FilterConfig`.

        Raises: the errors of `Host.load_plugin`: PluginError, ModuleError, OSError, ….
        """
        chain: Sequence[Any] = filter if isinstance(filter, (list, tuple)) else [filter]
        text = configuration if isinstance(configuration, (bytes, str)) else json.dumps(configuration)
        plugins = []
        for each in chain:
            config = (
                each if isinstance(each, FilterConfig) else FilterConfig(self.find(each), configuration=text, **options)
            )
            if config.capabilities is None:
                config = replace(config, capabilities=self.profile.capabilities)
            plugin = self.host.load_plugin(counted(config) if self.count_functions else config)
            if self.count_functions:
                self.function_counters[plugin] = FunctionCounters(plugin)
            self.restrict(plugin._root)
            plugins.append(plugin)
            self._perform(self.host.drain())
        under_test = FilterUnderTest(self, plugins)
        self.filters.append(under_test)
        return under_test

    # -- State ---------------------------------------------------------------------------------------------------

    @property
    def logs(self) -> Logs:
        """All lines that guests have logged."""
        return Logs(self.recorder.logs)

    @property
    def metrics(self) -> dict[str, int]:
        """Counters and gauges, by name."""
        return {name: value for (_, name), value in self._metrics.values.items()}

    @property
    def histograms(self) -> dict[str, list[int]]:
        """Samples of histograms, by name."""
        return dict(self._metrics.samples)

    def get_shared_data(self, key: str | bytes, vm_id: str = "") -> bytes | None:
        """The shared data of a ``vm_id`` under a key, or ``None``."""
        found = self._shared.get(vm_id, _bytes(key))
        return found[0] if found else None

    def set_shared_data(self, key: str | bytes, value: str | bytes, vm_id: str = "") -> None:
        """Set shared data of a ``vm_id``."""
        self._shared.set(vm_id, _bytes(key), _bytes(value))

    def enqueue(self, queue: str | bytes, message: str | bytes, vm_id: str = "") -> None:
        """Put a message into a shared queue, and call the filter that registered it. Raises: LookupError."""
        token = self._queues.resolve(vm_id, _bytes(queue))
        if token is None:
            raise LookupError(f"no filter has registered the queue {queue!r} in vm_id {vm_id!r}")
        self._queues.enqueue(token, _bytes(message))
        self._perform(self.host.drain())

    def dequeue(self, queue: str | bytes, vm_id: str = "") -> bytes | None:
        """Remove and return the oldest message of a shared queue, or ``None``."""
        token = self._queues.resolve(vm_id, _bytes(queue))
        return None if token is None else self._queues.dequeue(token)

    @property
    def failures(self) -> list[Failure]:
        """The failure of each failed plugin."""
        return [plugin.failure for plugin in self.host.plugins if plugin.failure]

    # -- Events --------------------------------------------------------------------------------------------------

    def attach(self, stream: object, perform: Callable[[Effect], None]) -> None:
        """Call `perform` with each effect of a stream, until `detach`."""
        self._streams[id(stream)] = stream, perform

    def restrict(self, *contexts: Any) -> None:
        """Hide properties that the profile lacks from guests."""
        if self.profile.properties is not None:
            for context in contexts:
                context.get_property = partial(self._get_property, context.get_property)

    def _get_property(
        self, get_property: Callable[[Sequence[str]], PropertyValue], path: Sequence[str]
    ) -> PropertyValue:
        name = ".".join(path)
        if not self.profile.shows(name):
            self.withheld.append(name)
            raise LookupError(name)
        return get_property(path)

    def detach(self, stream: object) -> None:
        """Drop further effects of a stream."""
        self._streams.pop(id(stream), None)

    def feed(self, what: str, size: int, end_stream: bool, event: Callable[[], list[Effect]]) -> None:
        """Feed an event and perform its effects. `what`, `size` and `end_stream` are for the report."""
        self.recorder.timeline.append(InputEvent(what, size, end_stream))
        self._perform(event())

    def _perform(self, todo: list[Effect]) -> None:
        queue, answered = deque(todo), 0
        while queue:
            effect = queue.popleft()
            self.recorder.timeline.append(effect)
            if isinstance(
                effect,
                (
                    effects.Callout,
                    effects.QueueReady,
                    effects.GrpcSend,
                ),
            ):
                answered += 1
                if answered > MAX_ANSWERS:
                    raise AssertionError(f"the filter asks again whenever it is answered: {MAX_ANSWERS} times at once")
            queue.extend(self._done(effect))

    def _done(self, effect: Effect) -> list[Effect]:
        """Perform an effect. Returns further effects."""
        performer = self.performers.get(type(effect))
        if performer is not None:
            return performer(effect)
        if isinstance(effect, effects.Callout):
            return self._call(effect)
        if isinstance(effect, effects.GrpcSend):
            callout = self._find(effect)
            if callout is None:
                return []
            callout.message = effect.message
            return self._answered(callout, self.grpc.answer(callout))
        if isinstance(effect, effects.CancelCallout):
            callout = self._find(effect)
            if callout is not None:
                callout.cancelled = True
        elif isinstance(effect, effects.QueueReady):
            self.recorder.timeline.append(InputEvent("message in a queue"))
            return effect.plugin.queue_ready(effect.token)
        elif isinstance(effect, effects.SetTickPeriod):
            self._set_tick(effect)
        elif isinstance(effect, effects.StreamEffect):
            _, perform = self._streams.get(id(effect.stream), (None, None))
            if perform is not None:
                perform(effect)
        return []

    # -- Time ----------------------------------------------------------------------------------------------------

    def _set_tick(self, effect: effects.SetTickPeriod) -> None:
        plugin = effect.plugin
        number = self._periods[id(plugin)] = self._periods.get(id(plugin), 0) + 1

        def tick() -> None:
            if self._periods[id(plugin)] == number and not plugin.closed and plugin.failure is None:
                self.clock.after(effect.milliseconds / 1000, tick)
                self.feed("tick", 0, False, plugin.tick)

        if effect.milliseconds:
            self.clock.after(effect.milliseconds / 1000, tick)

    # -- Callouts ------------------------------------------------------------------------------------------------

    def _call(self, effect: effects.Callout) -> list[Effect]:
        callout = Callout(effect, self._reply, self.recorder.stream_of(effect))
        self.callouts.append(callout)
        if callout.timeout:
            self.clock.after(callout.timeout, lambda: self._time_out(callout))
        answers = self._answers(callout)
        if callout.cluster not in answers.clusters():
            self.unanswered[callout.cluster] = f"f.{answers.kind}[{callout.cluster!r}] = …"
        return [] if callout.kind == "grpc stream" else self._answered(callout, answers.answer(callout))

    def _answers(self, callout: Callout) -> Answers:
        return {"http": self.http, "redis": self.redis, "name": self.names}.get(callout.kind, self.grpc)

    def _find(self, effect: effects.GrpcSend | effects.CancelCallout) -> Callout | None:
        for callout in reversed(self.callouts):
            if callout.effect.token == effect.token and callout.effect.plugin is effect.plugin:
                return callout
        return None

    def _answered(self, callout: Callout, answer: Any) -> list[Effect]:
        """Deliver an answer, now or later. Returns the effects."""
        if answer is NEVER:
            return []
        if isinstance(answer, Later):
            self.clock.after(answer.seconds, lambda: self._reply_if_open(callout, answer.answer))
            return []
        done: list[Effect] = []
        for reply in replies(callout, asked(answer, callout)):
            callout.answered = callout.kind != "grpc stream"
            callout.answers.append(reply if answer is None else answer)
            self.recorder.timeline.append(InputEvent(f"reply to callout {callout.effect.token}"))
            done += self.host.deliver(callout.effect, reply)
        return done

    def _reply(self, callout: Callout, answer: Any) -> None:
        self._perform(self._answered(callout, answer))

    def _reply_if_open(self, callout: Callout, answer: Any) -> None:
        if not callout.answered and not callout.cancelled:
            self._reply(callout, asked(answer, callout))

    def _time_out(self, callout: Callout) -> None:
        if not callout.answered and not callout.cancelled:
            callout.answered = True
            callout.answers.append(TOO_LATE)
            self.recorder.timeline.append(InputEvent(f"time-out of callout {callout.effect.token}"))
            self._perform(self.host.deliver(callout.effect, effects.CalloutFailed("timeout")))

    # -- Reports -------------------------------------------------------------------------------------------------

    def transcript(self) -> list[str]:
        """A line for each callback and hostcall; the same on every engine."""
        lines = []
        for entry in self.recorder.timeline:
            if isinstance(entry, Invocation):
                lines += [repr(entry), *(f"  {_line(event)}" for event in entry.events)]
        return lines

    def report(self) -> str:
        """A report for a failed test: requests, log lines, the last hostcalls, failures."""
        lines = self.logs.lines()
        calls = [
            f"{entry.plugin} {entry.name}: {describe(event)}"
            for entry in self.recorder.invocations
            for event in entry.events
            if isinstance(event, Call) and event.row.name != "proxy_log"
        ]
        told = [f"engine: {self.host.engine.name} {self.host.engine.version}, profile: {self.profile.name}"]
        told += ["requests:"] if self.exchanges else []
        for exchange in self.exchanges:
            told += [f"  {exchange.told}", *(f"    {change}" for change in exchange.changes())]
        told += ["logs:", *(f"  {line}" for line in lines)] if lines else ["logs: none"]
        if calls:
            told += ["last hostcalls:", *(f"  {line}" for line in calls[-LAST:])]
        if self.withheld:
            told.append(f"the profile {self.profile.name!r} does not show: {', '.join(dict.fromkeys(self.withheld))}")
        if self.lacking:
            told.append(f"the profile {self.profile.name!r} does not have: {', '.join(self.lacking)}")
        told += [f"no answer is set for the cluster {name!r}: write {how}" for name, how in self.unanswered.items()]
        if self.callouts:
            told += ["callouts:", *(f"  {callout!r}" for callout in self.callouts)]
        return "\n".join([*told, *(failure.report() for failure in self.failures)])

    @property
    def lacking(self) -> list[str]:
        """Hostcalls that filters have made and the profile lacks."""
        has = self.profile.hostcalls
        if has is None:
            return []
        lacks = {row.name for row in HOSTCALLS} - has
        calls = (event for entry in self.recorder.invocations for event in entry.events if isinstance(event, Call))
        return list(dict.fromkeys(call.row.name for call in calls if call.row.name in lacks))

    def close(self) -> None:
        """End all filters."""
        with self.resources:
            self._perform(self.host.close())

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Harness on {self.host.engine.name} with {len(self.filters)} filters>"


class FilterUnderTest:
    """A filter or a chain of filters in a `Harness`, with access to the state of the harness.

    `upstream` answers requests. It is a `Response`, a status, a body, a list (one for each request, in turn), a
    function of the received `Request`, `later(…)`, `NEVER` or `FAIL`.
    """

    def __init__(self, harness: Harness, plugins: list[Any]) -> None:
        self.harness = harness
        self.plugins = plugins
        self.patience = 60.0
        """Maximum seconds of the test's clock for which a paused request waits for events."""
        self.buffer_limit = BUFFER_LIMIT
        """Maximum bytes of a body that filters may hold."""
        self.http, self.grpc, self.redis, self.clock = harness.http, harness.grpc, harness.redis, harness.clock
        self.names = harness.names
        self.turns: Any = 200

    def new_stream(self, plugins: Sequence[Plugin], properties: Mapping[str, PropertyValue]) -> HttpStream:
        """A new stream of the host for one request through these plugins."""
        return self.harness.host.http_stream(plugins, properties=properties, buffer_limit=self.buffer_limit)

    @property
    def upstream(self) -> Any:
        """The answer to requests; by default an empty response with status 200."""
        return self.turns

    @upstream.setter
    def upstream(self, answer: Any) -> None:
        self.turns = Turns(answer, "upstream") if isinstance(answer, list) else answer

    # -- Requests ------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        url: str = "/",
        headers: HeadersLike = (),
        body: bytes | str = b"",
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        **parts: Any,
    ) -> Outcome:
        """Send a whole request, answer it if it reaches upstream, and close the stream.

        `parts` are ``chunks``, ``chunk_size``, ``trailers`` and ``json`` of a `Request`, `properties` those of the
        stream.
        """
        with self.stream(method, url, headers, body, properties=properties, **parts) as stream:
            stream.send()
            if stream.request_is_out:
                stream.respond()
        return stream.result

    def get(self, url: str = "/", headers: HeadersLike = (), **parts: Any) -> Outcome:
        """`request` with the method GET."""
        return self.request("GET", url, headers, **parts)

    def post(self, url: str = "/", headers: HeadersLike = (), body: bytes | str = b"", **parts: Any) -> Outcome:
        """`request` with the method POST."""
        return self.request("POST", url, headers, body, **parts)

    def stream(
        self,
        method: str = "GET",
        url: str = "/",
        headers: HeadersLike = (),
        body: bytes | str = b"",
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        **parts: Any,
    ) -> HttpExchange:
        """Start a request that is fed part by part. The arguments are those of `request`."""
        return HttpExchange(self, Request(method, url, headers, body, **parts), dict(properties or {}))

    def tcp(self, *, properties: Mapping[str, PropertyValue] | None = None) -> TcpConnection:
        """Open a TCP connection through the filters."""
        return TcpConnection(self, dict(properties or {}))

    # -- State ---------------------------------------------------------------------------------------------------

    @property
    def logs(self) -> Logs:
        """The log lines of these filters."""
        names = {plugin.name for plugin in self.plugins}
        return Logs(line for line in self.harness.logs if line.plugin in names)

    @property
    def metrics(self) -> dict[str, int]:
        """Counters and gauges of the harness."""
        return self.harness.metrics

    @property
    def callouts(self) -> list[Callout]:
        """The callouts that these filters have made."""
        return [each for each in self.harness.callouts if each.effect.plugin in self.plugins]

    @property
    def failure(self) -> Failure | None:
        """The first failure of these filters, or ``None``."""
        return next((plugin.failure for plugin in self.plugins if plugin.failure), None)

    def close(self) -> None:
        """End these filters (on_done, on_delete)."""
        for plugin in self.plugins:
            self.harness.feed("end of a plugin", 0, True, plugin.close)

    def __repr__(self) -> str:
        return f"<FilterUnderTest {' → '.join(plugin.name or 'a filter' for plugin in self.plugins)}>"


class StreamRecorder(Recorder):
    """A recorder that also notes the streams of its entries."""

    def __init__(self) -> None:
        super().__init__(LogLevel.TRACE)
        self._about: dict[int, set[int]] = {}
        self._dispatched: dict[tuple[int, int], object] = {}

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        super().callback(context, row, args)
        self._about[id(self._open)] = set()
        self._note_stream(context)

    def hostcall(self, context: Context, call: Call) -> None:
        super().hostcall(context, call)
        self._note_stream(context)
        if isinstance(call.result, int):
            self._dispatched[id(getattr(context, "vm", None)), call.result] = getattr(context, "stream", None)

    def _note_stream(self, context: Context) -> None:
        stream = getattr(context, "stream", None)
        if stream is not None and self._open is not None:
            self._about[id(self._open)].add(id(stream))

    def stream_of(self, callout: effects.Callout) -> object:
        """The stream for which a callout was made, or ``None``."""
        vm = getattr(callout.plugin, "_vm", None)  # only filters have a VM
        return self._dispatched.get((id(vm), callout.token))

    def of(self, stream: object, first: int) -> tuple[list[Invocation], Logs]:
        """Callbacks and log lines for `stream` or without a stream, from the entry `first` of the timeline on."""
        entries = [
            entry
            for entry in self.timeline[first:]
            if isinstance(entry, Invocation) and (not (about := self._about[id(entry)]) or id(stream) in about)
        ]
        return entries, Logs(logs_of(list(entries)))


class _Clusters:
    """The clusters that have answers."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def __contains__(self, name: object) -> bool:
        harness = self._harness
        if any(name in [*answers.clusters()] for answers in harness.answers):
            return True
        harness.unanswered[str(name)] = f"f.http[{name!r}] = …, or f.grpc, or f.redis"
        return False


def _line(event: Call | GuestLog) -> str:
    return describe(event) if isinstance(event, Call) else f"log {event.level}: {event.message}"


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text

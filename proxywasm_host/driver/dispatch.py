"""The base class of all drivers, which routes effects.

Rules of this module:

* An effect of a stream goes to that stream's sink, even if the event of another stream, a tick or a reply caused it. A
  sink notes the effect and returns; it must not feed an event.
* Effects caused by effects are performed after the current ones.
* A callout without a client fails at once, so that its guest does not wait for ever.
* The client of a gRPC stream also gets a conversation, with the guest's messages and a way to deliver replies. The
  client returns the last reply.
* When the driver ends, it resets the streams that are still attached, as no reply or time-out would wake them later.
* A stream without progress, in or out, for `stream_idle_timeout` is ended. All streams are checked `IDLE_CHECKS` times
  in that time, so that none needs a timer.
* Background work of guests gets only a share of the time (`background`), so that requests are not held up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Union

from proxywasm_host.driver.background import CALLOUT, BackgroundWork, Work
from proxywasm_host.driver.conversation import MAX_UNSENT, Conversation
from proxywasm_host.recording.record import Record, StreamRecorder
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import (
    Callout,
    CalloutFailed,
    Effect,
    GrpcClosed,
    GrpcStream,
    Reply,
    StreamEffect,
)
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.tcp import TcpStream

__all__ = ["Dispatcher", "Sink", "Stream"]

Stream = Union[HttpStream, TcpStream]
Sink = Callable[[Any], None]
"""Notes one effect of its stream."""

CALLOUTS = (effects.HttpCall, effects.GrpcCall, effects.GrpcStream, effects.RedisCall, effects.NameLookup)
EXHAUSTED = 8
"""gRPC's RESOURCE_EXHAUSTED."""
IDLE_CHECKS = 8
ENDED = "driver_ended"
"""Response code details of streams that are still attached when their driver ends."""
HEAL_INTERVAL = 1.0
"""Seconds between attempts to replace a failed guest while there is no new stream that would do so."""
logger = logging.getLogger("proxywasm_host.driver")


class Progress:
    """The progress of a stream since its first check."""

    moved = False
    """Whether the stream has had an effect since the last check."""
    came: tuple[int | bool, ...] = ()
    """What the stream had received at the last check."""
    quiet = -1
    """Number of successive checks without progress; -1 before the first check."""

    def idle(self, stream: HttpStream) -> bool:
        """Whether the stream has made no progress for the whole time-out."""
        chains = stream._chain(REQUEST), stream._chain(RESPONSE)
        came = tuple(value for chain in chains for value in (chain.started, chain.received, chain.ended))
        if self.moved or came != self.came:
            self.moved, self.came, self.quiet = False, came, -1
        self.quiet += 1
        return self.quiet >= IDLE_CHECKS


def clients_by_type(clients: Any) -> dict[type[effects.Callout], Any]:
    """Check the functions that make callouts, by type. Raises: TypeError."""
    given = {} if clients is None else clients
    if not isinstance(given, Mapping) or not all(kind in CALLOUTS and callable(given[kind]) for kind in given):
        raise TypeError(f"clients are functions by the type of callout, {{RedisCall: my_client}}, not {given!r}")
    return dict(given)


class Dispatcher:
    """Routes the effects of one host. A driver implements waiting and callouts."""

    def __init__(self, host: Host, *, stream_idle_timeout: float | None = None, record: Record | None = None) -> None:
        given: Any = host
        if not isinstance(given, Host):
            raise TypeError(f"a driver is for one host, not {given!r}")
        self.host = host
        self.stream_idle_timeout = stream_idle_timeout
        self._recorder = None if record is None else StreamRecorder(host, record)
        self.sinks: dict[Stream, Sink] = {}
        """The sink of each attached stream."""
        if record is None:
            self.attach = self.sinks.__setitem__  # type: ignore[method-assign, assignment]  # in C
        self._progress: dict[Stream, Progress] = {}
        """Progress of the streams that were attached at the last check."""
        self._background = BackgroundWork()
        self._at_work = self._rests = False
        self._ticks: set[Plugin] = set()
        """Plugins with a tick that waits for its turn. Further ticks meanwhile are merged with it."""
        self._healing: set[Plugin] = set()
        """Plugins that need a new guest."""
        self._unmade: dict[tuple[Plugin, int], effects.Callout] = {}
        """Callouts that wait for their turn."""
        self._conversations: dict[tuple[Plugin, int], Conversation] = {}
        """gRPC streams, from their effect on."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.host!r}>"

    def attach(self, stream: Stream, sink: Sink) -> None:
        """Send the effects of a stream to `sink`, until `detach`. Call it before you feed the stream."""
        self.sinks[stream] = sink
        if self._recorder is not None and isinstance(stream, HttpStream):
            self._recorder.begin(stream)

    def detach(self, stream: Stream) -> None:
        """Remove the sink of a stream, whose effects are then dropped. A stream that is not attached is ignored."""
        self.sinks.pop(stream, None)

    @property
    def streams(self) -> int:
        """Number of attached streams."""
        return len(self.sinks)

    def perform(self, todo: Iterable[Effect]) -> None:
        """Perform all effects of an event, in order."""
        self._perform(todo, self._begin)
        self._take_turns()

    def tick(self, plugin: Plugin) -> None:
        """Run a tick of a plugin when it is its turn."""
        if plugin not in self._ticks:
            self._ticks.add(plugin)
            self._by_itself(plugin, lambda: self._ticked(plugin))

    def _perform(self, todo: Iterable[Effect], call: Callable[[effects.Callout], object]) -> None:
        sinks = self.sinks
        for effect in todo:
            if isinstance(effect, StreamEffect):
                sink = sinks.get(effect.stream)
                if sink is not None:
                    progress = self._progress.get(effect.stream)
                    if progress is not None:
                        progress.moved = True
                    sink(effect)
            elif isinstance(effect, effects.SetTickPeriod):
                self._arm(effect.plugin, effect.milliseconds)
            elif isinstance(effect, effects.CancelCallout):
                self._break_off(effect.plugin, effect.token)
            elif isinstance(effect, effects.GrpcSend):
                self._send(effect.plugin, effect.token, effect.message, end=effect.end_stream)
            elif isinstance(effect, effects.GrpcClose):
                self._send(effect.plugin, effect.token, None, end=True)
            elif isinstance(effect, effects.QueueReady):
                self._background.add(effect.plugin, partial(effect.plugin.queue_ready, effect.token))
            elif isinstance(effect, Callout):
                if isinstance(effect, GrpcStream):
                    self._conversations[effect.plugin, effect.token] = self._converse(effect)
                call(effect)

    def _break_off(self, plugin: Plugin, token: int) -> None:
        """Cancel a callout whose reply is no longer needed."""
        conversation = self._conversations.pop((plugin, token), None)
        if conversation is not None:
            conversation.cancel()
        if self._unmade.pop((plugin, token), None) is None:
            self._cancel(plugin, token)

    def _send(self, plugin: Plugin, token: int, message: bytes | None, *, end: bool) -> None:
        """Send a message or the end on a gRPC stream, unless it has ended."""
        conversation = self._conversations.get((plugin, token))
        if conversation is not None and not conversation.send(message, end=end):
            self._break_off(plugin, token)
            self._deliver(conversation.callout, GrpcClosed(EXHAUSTED, f"more than {MAX_UNSENT} bytes wait to be sent"))

    def _check_idle_every(self, seconds: float) -> None:
        """Call `check_idle` at intervals of `seconds`."""

        def check() -> None:
            self.check_idle()
            self._check_idle_every(seconds)

        self._later(seconds, check)

    def check_idle(self) -> None:
        """End streams without progress. Called `IDLE_CHECKS` times in `stream_idle_timeout`."""
        before = self._progress
        self._progress = {stream: before.get(stream) or Progress() for stream in self.sinks}
        for stream, progress in list(self._progress.items()):
            if not isinstance(stream, HttpStream) or stream.closed or not progress.idle(stream):
                continue
            progress.quiet = -1
            response = stream._chain(RESPONSE)
            if not (response.complete or response.aborted):
                request = dict(stream._chain(REQUEST).headers)
                method, path = (request.get(name, b"").decode("latin-1") for name in (b":method", b":path"))
                logger.warning(
                    "%s %r made no progress for %g seconds and timed out; it waited for %s",
                    method, path.partition("?")[0], self.stream_idle_timeout, stream.waiting_for,
                )  # fmt: skip
                self.perform(stream.time_out())

    def heal(self, plugins: Iterable[Plugin]) -> None:
        """Replace the guests of these plugins after failures, as their policy allows, without waiting for a stream.

        Otherwise a load balancer that sends nothing until the server is ready would wait for ever, and ticks would
        stop.
        """
        for plugin in plugins:
            plugin.on_failure.append(partial(self._heal_later, plugin))

    def _heal_later(self, plugin: Plugin, _: object = None) -> None:
        if plugin not in self._healing and plugin.config.failure_policy is FailurePolicy.FAIL_RELOAD:
            self._healing.add(plugin)
            self._later(HEAL_INTERVAL, lambda: self._heal(plugin))

    def _heal(self, plugin: Plugin) -> None:
        """Replace the guest when it is the plugin's turn, so that guests that fail at their start take only that
        share."""
        self._by_itself(plugin, partial(self._healed, plugin))

    def _healed(self, plugin: Plugin) -> Iterable[Effect]:
        self._healing.discard(plugin)
        if plugin.closed:
            return ()
        plugin.heal()
        if plugin.failure is not None:
            self._heal_later(plugin)
        return self.host.drain()

    def _reset_streams(self) -> None:
        """Reset all streams: the client gets 503, or its response is cut."""
        for stream in list(self.sinks):
            if isinstance(stream, HttpStream):
                stream._reset(ENDED)
                self._perform(self.host.drain(), self._begin)
                self._perform(stream.close(ENDED), self._begin)

    # -- Background work ---------------------------------------------------------------------------------------

    def _by_itself(self, plugin: Plugin, work: Work) -> None:
        self._background.add(plugin, work)
        self._take_turns()

    def _take_turns(self) -> None:
        """Run waiting work within its share of the time."""
        if self._at_work or self._rests:
            return
        self._at_work = True
        try:
            while (seconds := self._background.wait()) is not None:
                if seconds:
                    self._rests = True
                    self._later(seconds, self._rested)
                    return
                self._perform(self._background.next(), self._begin_later)
        finally:
            self._at_work = False

    def _rested(self) -> None:
        """Continue after a pause."""
        self._rests = False
        self._take_turns()

    def _forget(self) -> None:
        """Drop all waiting work."""
        self._background.clear()
        self._unmade.clear()
        self._ticks.clear()
        self._progress.clear()
        for conversation in self._conversations.values():
            conversation.cancel()
        self._conversations.clear()

    def _ticked(self, plugin: Plugin) -> list[Effect]:
        self._ticks.discard(plugin)
        return plugin.tick()

    def _begin_later(self, callout: effects.Callout) -> None:
        self._unmade[callout.plugin, callout.token] = callout
        self._background.add(callout.plugin, lambda: self._begin_now(callout), CALLOUT)

    def _begin_now(self, callout: effects.Callout) -> tuple[Effect, ...]:
        if self._unmade.pop((callout.plugin, callout.token), None) is callout:
            self._begin(callout)
        return ()

    def _begin(self, callout: effects.Callout) -> None:
        if not self._call(callout):
            reason = f"no client for {type(callout).__name__}"
            logger.warning("plugin %s calls %r, but there is %s", callout.plugin.name, callout.cluster, reason)
            self._background.add(callout.plugin, partial(self.host.deliver, callout, CalloutFailed(reason)))

    def _finish(self, callout: effects.Callout, reply: Reply) -> None:
        """Deliver the reply to a callout; for a gRPC stream, the last one."""
        conversation = self._conversations.pop((callout.plugin, callout.token), None)
        if conversation is not None:
            conversation.end()
        self._deliver(callout, reply)

    def _deliver(self, callout: effects.Callout, reply: Reply, then: Callable[[], None] | None = None) -> None:
        """Deliver a reply when it is the plugin's turn, and call `then` after it."""

        def deliver() -> list[Effect]:
            try:
                return self._delivered(callout, reply)
            finally:
                if then is not None:
                    then()

        if callout.background:
            self._by_itself(callout.plugin, deliver)
        else:
            self.perform(deliver())

    def _delivered(self, callout: effects.Callout, reply: Reply) -> list[Effect]:
        try:
            return self.host.deliver(callout, reply)
        except TypeError as error:
            logger.error("the client's answer to %s cannot be used: %s", type(callout).__name__, error)  # noqa: TRY400 - whole
            return self.host.deliver(callout, CalloutFailed("the client's answer cannot be used"))

    # -- For subclasses -----------------------------------------------------------------------------------------

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after `seconds`, unless the driver has ended."""
        raise NotImplementedError

    def _arm(self, plugin: Plugin, milliseconds: int) -> None:
        """Tick at intervals of `milliseconds` from now on; 0 stops the ticks."""
        raise NotImplementedError

    def _call(self, callout: effects.Callout) -> bool:
        """Start a callout, whose reply is delivered later. Returns false without a client for it."""
        raise NotImplementedError

    def _cancel(self, plugin: Plugin, token: int) -> None:
        """Cancel a callout."""
        raise NotImplementedError

    def _converse(self, callout: GrpcStream) -> Conversation:
        """The guest's side of a gRPC stream, for its client."""
        raise NotImplementedError

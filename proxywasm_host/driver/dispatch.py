"""Who performs which effect: what drivers of all kinds have in common.

Rules of this module:

* An effect of a stream goes to that stream's sink, whoever brought it about: another stream's event, a tick, a reply.
  A sink takes note and returns; it feeds nothing.
* What a performed effect brings about is performed after what is at hand.
* A callout that nobody has a client for fails at once, so that no guest waits for ever.
* A guest that brings about ever more by itself (a message in its own queue, a callout that fails at once) gets
  `AT_ONCE` turns, and each further one when others have had theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Union

from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import CalloutFailed, Effect, Reply
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.tcp import TcpStream

__all__ = ["Dispatcher", "Sink", "Stream"]

Stream = Union[HttpStream, TcpStream]
Sink = Callable[[Any], None]
"""Takes note of one effect of its stream."""

CALLOUTS = (effects.HttpCall, effects.GrpcCall, effects.GrpcStream, effects.RedisCall)
AT_ONCE = 64
logger = logging.getLogger("proxywasm_host.driver")


class Dispatcher:
    """Routes the effects of one host. A driver says how to wait and how to call out."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._sinks: dict[Stream, Sink] = {}

    def attach(self, stream: Stream, sink: Sink) -> None:
        """Give the effects of a stream to `sink`, until `detach`."""
        self._sinks[stream] = sink

    def detach(self, stream: Stream) -> None:
        """Forget a stream: its effects are dropped from now on. Unknown ones are ignored."""
        self._sinks.pop(stream, None)

    @property
    def streams(self) -> int:
        """How many streams are attached."""
        return len(self._sinks)

    def perform(self, todo: Iterable[Effect]) -> None:
        """Perform effects in order; to be given all that an event has returned."""
        sinks = self._sinks
        queue = list(todo)
        turns = AT_ONCE
        for effect in queue:  # which grows meanwhile
            stream = getattr(effect, "stream", None)
            if stream is not None:
                sink = sinks.get(stream)
                if sink is not None:
                    sink(effect)
            elif isinstance(effect, effects.SetTickPeriod):
                self._arm(effect.plugin, effect.milliseconds)
            elif isinstance(effect, effects.CancelCallout):
                self._cancel(effect.plugin, effect.token)
            elif isinstance(effect, effects.QueueReady) or (isinstance(effect, CALLOUTS) and not self._call(effect)):
                if turns:
                    turns -= 1
                    queue.extend(self._turn(effect))
                else:
                    self._soon(effect)

    def _turn(self, effect: effects.QueueReady | effects.Callout) -> list[Effect]:
        if isinstance(effect, effects.QueueReady):
            return effect.plugin.queue_ready(effect.token)
        reason = f"no client for {type(effect).__name__}"
        logger.warning("plugin %s calls %r, but there is %s", effect.plugin.name, effect.cluster, reason)
        return self.host.deliver(effect, CalloutFailed(reason))

    def _deliver(self, callout: effects.Callout, reply: Reply) -> None:
        try:
            todo = self.host.deliver(callout, reply)
        except TypeError:
            logger.exception("the client's answer to %r is none", callout)
            todo = self.host.deliver(callout, CalloutFailed("the client's answer is none"))
        self.perform(todo)

    def _soon(self, effect: Effect) -> None:
        """Perform an effect after what others have ready by now."""
        raise NotImplementedError

    def _arm(self, plugin: Plugin, milliseconds: int) -> None:
        """Tick each so many milliseconds from now on; 0 is never again."""
        raise NotImplementedError

    def _call(self, callout: effects.Callout) -> bool:
        """Begin a callout, whose reply is delivered later; false if there is no client for it."""
        raise NotImplementedError

    def _cancel(self, plugin: Plugin, token: int) -> None:
        """Break a callout off."""
        raise NotImplementedError

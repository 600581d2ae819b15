"""`exchange` feeds one whole request to a chain, and performs the effects."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, Union, get_args

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect, Reply
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT, HEADER_LIMITS
from proxywasm_host.runtime.filter_chain import REQUEST, RESPONSE
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.testing.message import Message
from proxywasm_host.testing.result import ExchangeResult
from proxywasm_host.testing.timeline import InputEvent, Invocation, Recorder, logs_of, recording

__all__ = ["Answer", "exchange"]

MAX_REPLIES = 1000
"""Maximum number of replies and queue messages in one exchange, because a filter may ask again after each answer."""

Answer = Union[Reply, Sequence[Reply], Callable[[effects.Callout], Sequence[Reply]]]
"""The answer of a cluster to a callout: a reply, several replies (gRPC streams), or a function that returns them."""
REPLIES: tuple[type, ...] = get_args(Reply)


def exchange(
    host: Host,
    plugins: Sequence[Plugin],
    request: Message | None = None,
    response: Message | None = None,
    *,
    recorder: Recorder | None = None,
    properties: Mapping[str, PropertyValue] | None = None,
    buffer_limit: int = BUFFER_LIMIT,
    header_limits: HeaderLimits | None = HEADER_LIMITS,
    callouts: Mapping[str, Answer] | None = None,
    late_replies: bool = False,
    ticks: int = 0,
    began: Callable[[HttpStream], object] | None = None,
    stream: HttpStream | None = None,
) -> ExchangeResult:
    """Send a request through the plugins, answer it, and close the stream.

    Args:
        host, plugins, properties, buffer_limit (in bytes), header_limits: see `Host.http_stream`. request: by default a
            GET of ``http://example.com/``.
        response: upstream's response; by default an empty one with status 200.
        recorder: the recorder to use instead of the host's own `Recorder` or a new one.
        callouts: replies, by cluster. Filters may call these clusters and those of the host (`Services.clusters`).
            late_replies: deliver replies after the whole request or response was fed, instead of at once.
        ticks: maximum number of ticks while a message is paused.
        began: called with the stream before it is fed.
        stream: the stream to use instead of a new one through the plugins.

    Raises: TypeError or ValueError, for a wrong argument; RuntimeError, if a plugin was closed.
    """
    request = Message.request() if request is None else request
    response = Message.response() if response is None else response
    callouts = {} if callouts is None else callouts
    _check(host, request, response, recorder, callouts, ticks)
    with recording(host, recorder, callouts) as record:
        if stream is None:
            stream = host.http_stream(
                plugins, properties=properties, buffer_limit=buffer_limit, header_limits=header_limits
            )
        if began is not None:
            began(stream)
        run = _Run(host, plugins, stream, record, callouts, late_replies, ticks)
        return run.through(request, response)


def _check(host: Any, request: Any, response: Any, recorder: Any, callouts: Any, ticks: Any) -> None:
    """Check the arguments. Raises: TypeError, ValueError."""
    if not isinstance(host, Host):
        raise TypeError(f"the host comes first, not {host!r}: write exchange(host, [plugin], …)")
    for what, message, mine, others in (
        ("request", request, "request('GET', 'http://example.com/')", ":status"),
        ("response", response, "response(200)", ":method"),
    ):
        if not isinstance(message, Message):
            raise TypeError(f"the {what} is a Message, not {message!r}: write Message.{mine}")
        if message.first(others.encode()) and not message.first(b":method" if what == "request" else b":status"):
            raise ValueError(f"the {what} has {others}: the request comes before the response")
    if recorder is not None and not isinstance(recorder, Recorder):
        raise TypeError(f"a recorder is a Recorder(), not {recorder!r}")
    if not isinstance(callouts, Mapping):
        raise TypeError(f"callouts are replies by cluster, not {callouts!r}: write {{'cluster': HttpCallReply(…)}}")
    for cluster, answer in callouts.items():
        _check_answer(cluster, answer)
    if not isinstance(ticks, int):
        raise TypeError(f"ticks are a number, not {ticks!r}")


def _check_answer(cluster: str, answer: Any) -> None:
    if callable(answer):
        return
    for reply in answer if isinstance(answer, (list, tuple)) else [answer]:
        if not isinstance(reply, REPLIES):
            raise TypeError(
                f"cluster {cluster!r} answers with a reply, a list of them, or a function that makes them, "
                f"not {reply!r}: write HttpCallReply([(b':status', b'200')], b'body')"
            )


class _Run:
    def __init__(
        self,
        host: Host,
        plugins: Sequence[Plugin],
        stream: HttpStream,
        recorder: Recorder,
        callouts: Mapping[str, Answer],
        late_replies: bool,
        ticks: int,
    ) -> None:
        self.host = host
        self.plugins = plugins
        self.recorder = recorder
        self.callouts = callouts
        self.late_replies = late_replies
        self.ticks = ticks
        self.replies = 0
        self.waiting: list[effects.Callout] = []
        self.start = len(self.recorder.timeline)
        self.result = ExchangeResult()
        self.stream = stream

    def through(self, request: Message, response: Message) -> ExchangeResult:
        stream, result = self.stream, self.result
        result.request, result.response = request, response
        self._perform(self.host.drain())
        self._feed("request", request)
        if result.upstream_request and result.upstream_request.complete and not self._over:
            self._feed("response", response)
        self._note_state()
        self._fed("end")
        gone = "" if result.client_response and result.client_response.complete else "downstream_remote_disconnect"
        self._perform(stream.close("" if stream.reset_details else gone))
        result.failure = stream.failure or next((plugin.failure for plugin in self.plugins if plugin.failure), None)
        timeline = self.recorder.timeline[self.start :]
        result.invocations = [entry for entry in timeline if isinstance(entry, Invocation)]
        result.logs = logs_of(timeline)
        return result

    def _note_state(self) -> None:
        stream, result = self.stream, self.result
        result.local_response, result.details, result.reset = stream.local, stream.details or "", stream.reset_details
        for direction, which in ((REQUEST, "request"), (RESPONSE, "response")):
            chain = stream._chain(direction)
            holding = chain.holding
            if holding is not None and not chain.complete and not chain.aborted:
                result.held_by[which] = holding.name

    # -- Feeding -------------------------------------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return self.stream.local is not None or self.stream.reset_details is not None

    def _feed(self, which: str, message: Message) -> None:
        stream = self.stream
        headers, body, end = (getattr(stream, f"{which}_{part}") for part in ("headers", "body", "trailers"))
        chunks, trailers = message.chunks, message.trailers
        self._event(f"{which} headers", headers, message.headers, not (chunks or trailers))
        for number, chunk in enumerate(chunks, 1):
            self._event(f"{which} body", body, chunk, number == len(chunks) and not trailers)
        if trailers:
            self._event(f"{which} trailers", lambda part, _: end(part), trailers, True)
        self._answer_waiting()
        self._wait()

    def _event(self, what: str, feed: Callable[..., list[Effect]], part: Sized, end_stream: bool) -> None:
        if not self._over:
            self._fed(what, len(part), end_stream)
            self._perform(feed(part, end_stream))

    def _fed(self, what: str, size: int = 0, end_stream: bool = False) -> None:
        self.recorder.timeline.append(InputEvent(what, size, end_stream))

    def _wait(self) -> None:
        """Run ticks while a message is paused."""
        while self.ticks > 0 and self.stream.paused:
            ticking = [plugin for plugin in self.plugins if plugin._root.tick_period and not plugin.failure]
            if not ticking:
                return
            self.ticks -= 1
            self._fed("tick")
            for plugin in ticking:
                self._perform(plugin.tick())
            self._answer_waiting()

    # -- Effects -------------------------------------------------------------------------------------------------

    def _perform(self, todo: list[Effect]) -> None:
        queue = deque(todo)
        while queue:
            effect = queue.popleft()
            self.result.effects.append(effect)
            self.recorder.timeline.append(effect)
            queue.extend(self._done(effect))

    def _done(self, effect: Effect) -> list[Effect]:
        """Perform one effect. Returns further effects."""
        if isinstance(effect, effects.Callout):
            self.waiting.append(effect)
            if not self.late_replies:
                return [more for callout in self._taken() for more in self._replies(callout)]
        elif isinstance(effect, effects.CancelCallout):
            self.waiting = [c for c in self.waiting if (c.plugin, c.token) != (effect.plugin, effect.token)]
        elif isinstance(effect, effects.QueueReady) and self._may():
            self._fed("message in a queue")
            return effect.plugin.queue_ready(effect.token)
        elif isinstance(effect, effects.StreamEffect) and effect.stream is self.stream:
            self._collect(effect)
        return []

    def _may(self) -> bool:
        self.replies += 1
        return self.replies <= MAX_REPLIES

    def _taken(self) -> list[effects.Callout]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def _answer_waiting(self) -> None:
        """Answer waiting callouts, and those caused by the replies."""
        while callouts := self._taken():
            for callout in callouts:
                self._perform(self._replies(callout))

    def _replies(self, callout: effects.Callout) -> list[Effect]:
        """Deliver the replies of its cluster to a callout. Returns further effects."""
        answer = self.callouts.get(callout.cluster)
        if callable(answer):
            answer = answer(callout)
        replies: Iterable[Reply] = answer if isinstance(answer, Sequence) else [answer] if answer is not None else []
        done: list[Effect] = []
        for reply in replies:
            if self._may():
                self._fed(f"reply to callout {callout.token}")
                done += self.host.deliver(callout, reply)
        return done

    def _collect(self, effect: Effect) -> None:
        """Add a part of a message that was sent."""
        result = self.result
        if isinstance(effect, effects.RequestHeaders):
            result.upstream_request = Message(list(effect.headers), complete=effect.end_stream)
        elif isinstance(effect, effects.ResponseHeaders):
            result.client_response = Message(list(effect.headers), complete=effect.end_stream)
        elif isinstance(effect, (effects.RequestBody, effects.RequestTrailers)):
            _extend(result.upstream_request, effect)
        elif isinstance(effect, (effects.ResponseBody, effects.ResponseTrailers)):
            _extend(result.client_response, effect)


def _extend(
    message: Message | None,
    effect: effects.RequestBody | effects.RequestTrailers | effects.ResponseBody | effects.ResponseTrailers,
) -> None:
    assert message is not None  # noqa: S101 - headers come first
    if isinstance(effect, (effects.RequestBody, effects.ResponseBody)):
        message.chunks.append(effect.data)
        message.complete = effect.end_stream
    else:
        message.trailers = list(effect.trailers)
        message.complete = True

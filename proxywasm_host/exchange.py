"""One whole request and its response through a chain of filters, in one call. Nothing is contacted.

    recorder = Recorder()
    with Host(listener=recorder, services=Services(log=recorder)) as host:
        plugin = host.load_plugin("auth.wasm")
        result = exchange(host, [plugin], Message.request("GET", "http://example.com/"), recorder=recorder)
    result.client_response.status, result.upstream_request, result.logs

Rules:

* Upstream answers once the whole request has come out to it. A request that stays paused, is reset or is answered
  by a filter never reaches it.
* A callout to a cluster of `callouts` gets its reply from there, as soon as the callback has returned (or, with
  `late_replies`, once the whole message has been fed). What the host refuses or nobody answers stays unanswered.
* Time stands still: `ticks` says how many ticks may pass while something is paused.
* The stream is closed at the end, whatever became of it; plugins and host stay open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Union
from urllib.parse import urlsplit

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.hostcalls.headers import joined
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.table import Callback
from proxywasm_host.abi.types import LogLevel, MapType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Effect, Reply
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import LocalResponse
from proxywasm_host.runtime.path import REQUEST, RESPONSE
from proxywasm_host.runtime.plain import BUFFER_LIMIT
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.services import GuestLog

__all__ = ["Answer", "Exchange", "Fed", "Invocation", "Message", "Recorder", "exchange"]

MAX_REPLIES = 1000
"""Replies and messages that one exchange gives at most: a filter that asks again whenever it is answered ends there."""

Text = Union[str, bytes]
Pairs = Iterable[tuple[Text, Text]]
Answer = Union[Reply, Sequence[Reply], Callable[[effects.Callout], Sequence[Reply]]]
"""What a cluster answers to a callout: a reply, several (gRPC streams), or a function that makes them."""


# -- Messages ----------------------------------------------------------------------------------------------------------


@dataclass
class Message:
    """A request or a response as filters see it: pseudo headers first, names in lower case.

    The last of `chunks` carries the end of the stream if there are no trailers; the headers do, if there is neither.
    A body whose end comes by itself, as HTTP/1.1 delivers it, has an empty last chunk.
    """

    headers: HeaderList
    chunks: list[bytes] = field(default_factory=list)
    trailers: HeaderList = field(default_factory=list)
    complete: bool = True
    """Whether its end has come out, for a message that came out of the filters."""

    @classmethod
    def request(
        cls,
        method: str = "GET",
        url: str = "http://example.com/",
        headers: Pairs = (),
        chunks: Iterable[bytes] = (),
        trailers: Pairs = (),
        *,
        http1: bool = True,
    ) -> Message:
        """A request as Envoy shows it: ``:authority``, ``:path``, ``:method``, ``:scheme``, then `headers`.

        `url` may be a path alone. ``host`` becomes ``:authority``; a pseudo header among `headers` wins over what
        `method` and `url` say; values of a header that there is only once are joined. `http1`: a body ends with an
        empty chunk, unless there are trailers.

        Raises: ValueError, if `url` is none.
        """
        scheme, authority, path = _parts(url)
        given = _pairs(headers)
        host = next((value for name, value in given if name == b"host"), authority)
        pseudo = {b":authority": host, b":path": path, b":method": method.encode(), b":scheme": scheme}
        pseudo.update(pair for pair in given if pair[0][:1] == b":")
        rest = [pair for pair in given if pair[0] != b"host" and pair[0] not in pseudo]
        return cls._of([*pseudo.items(), *rest], MapType.REQUEST_HEADERS, chunks, trailers, http1)

    @classmethod
    def response(
        cls,
        status: int = 200,
        headers: Pairs = (),
        chunks: Iterable[bytes] = (),
        trailers: Pairs = (),
        *,
        http1: bool = True,
    ) -> Message:
        """A response as Envoy shows it; arguments as those of `request`."""
        pairs = [(b":status", b"%d" % status), *_pairs(headers)]
        return cls._of(pairs, MapType.RESPONSE_HEADERS, chunks, trailers, http1)

    @classmethod
    def _of(cls, headers: HeaderList, map: MapType, chunks: Iterable[bytes], trailers: Pairs, http1: bool) -> Message:
        parts, last = list(chunks), _pairs(trailers)
        if http1 and parts and not last:
            parts.append(b"")
        return cls(joined(headers, map), parts, last)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def status(self) -> int:
        """The status of a response. Raises: ValueError, if it has none that is a number."""
        return int(self.first(b":status"))

    def first(self, name: bytes) -> bytes:
        """The first value of a header; empty if there is none."""
        return next((value for key, value in self.headers if key == name), b"")


def _parts(url: str) -> tuple[bytes, bytes, bytes]:
    """Scheme, authority and path of a URL."""
    if not url or any(character.isspace() for character in url):
        raise ValueError(f"{url!r} is no URL: it is empty or has white space in it")
    if url.startswith("/"):
        return b"http", b"example.com", url.partition("#")[0].encode()
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if not parts.netloc:
        raise ValueError(f"{url!r} is no URL: it names no host")
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    return parts.scheme.encode(), parts.netloc.rpartition("@")[2].encode(), path.encode()


def _pairs(pairs: Pairs) -> HeaderList:
    return [(_bytes(name).lower(), _bytes(value)) for name, value in pairs]


def _bytes(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else text


# -- What happened -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, repr=False)
class Invocation:
    """One callback: which plugin was called with what, what it returned, and what it did meanwhile.

    `arguments` begin with the context's id. `result` is ``None`` for a callback without one, or that `failed`.
    """

    plugin: str
    row: Callback
    arguments: tuple[int, ...]
    result: int | None = None
    failed: bool = False
    events: list[Call | GuestLog] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.row.name

    def __repr__(self) -> str:
        result = "trap" if self.failed else self.result
        return f"{self.plugin}: {self.name}({', '.join(map(str, self.arguments))}) = {result}"


@dataclass(frozen=True, slots=True)
class Fed:
    """A mark in the recorded order: this is given to the filters now (``request headers``, ``tick``, ``end``, …).

    `size` is that of a body in bytes, else the number of headers; `end_stream` whether nothing follows.
    """

    what: str
    size: int = 0
    end_stream: bool = False


class Recorder:
    """Remembers what guests are called with, do and log: a listener and a log sink for one `Host`.

    `timeline` holds everything in order; what a guest does in a callback is inside of its `Invocation`.
    """

    def __init__(self, level: int = LogLevel.TRACE) -> None:
        self.level = level
        self.timeline: list[Invocation | Fed | Call | GuestLog | Effect] = []
        self._open: Invocation | None = None

    @property
    def invocations(self) -> list[Invocation]:
        return [entry for entry in self.timeline if isinstance(entry, Invocation)]

    @property
    def logs(self) -> list[GuestLog]:
        """All lines in order. A line below `level` is not kept, as a proxy would not."""
        return [line for entry in self.timeline for line in _logs(entry)]

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        self._open = Invocation(context.name, row, args)
        self.timeline.append(self._open)

    def returned(self, context: Context, row: Callback, result: int | None, failed: bool) -> None:
        made, self._open = self._open, None
        assert made is not None  # noqa: S101 - it began
        made.failed = failed
        made.result = None if failed or row.result is None else result

    def hostcall(self, context: Context, call: Call) -> None:
        result = list(call.result) if isinstance(call.result, list) else call.result
        self._note(call._replace(result=result))

    def log(self, line: GuestLog) -> None:
        if line.level >= self.level:
            self._note(line)

    def _note(self, event: Call | GuestLog) -> None:
        if self._open is None:
            self.timeline.append(event)
        else:
            self._open.events.append(event)


def _logs(entry: object) -> list[GuestLog]:
    if isinstance(entry, GuestLog):
        return [entry]
    return [event for event in entry.events if isinstance(event, GuestLog)] if isinstance(entry, Invocation) else []


@dataclass
class Exchange:
    """What became of a request.

    `upstream_request` and `client_response` are ``None`` if nothing of them came out, and not `Message.complete` if
    they stopped half-way. `invocations` and `logs` are those of this exchange, if there was a recorder.
    """

    upstream_request: Message | None = None
    client_response: Message | None = None
    local_response: LocalResponse | None = None
    details: str = ""
    """Envoy's response code details."""
    reset: str | None = None
    """Why the stream was broken off, if it was."""
    held_by: dict[str, str] = field(default_factory=dict)
    """What was still paused at the end: ``request`` or ``response`` → name of the plugin that holds it."""
    failure: Failure | None = None
    effects: list[Effect] = field(default_factory=list)
    invocations: list[Invocation] = field(default_factory=list)
    logs: list[GuestLog] = field(default_factory=list)


# -- The exchange ------------------------------------------------------------------------------------------------------


def exchange(
    host: Host,
    plugins: Sequence[Plugin],
    request: Message | None = None,
    response: Message | None = None,
    *,
    recorder: Recorder | None = None,
    properties: Mapping[str, PropertyValue] | None = None,
    buffer_limit: int = BUFFER_LIMIT,
    callouts: Mapping[str, Answer] | None = None,
    late_replies: bool = False,
    ticks: int = 0,
) -> Exchange:
    """Send a request through the plugins, answer it, and close the stream.

    Args:
        host, plugins: see `Host.http_stream`, as for `properties` and `buffer_limit` (in bytes).
        request: a GET of ``http://example.com/`` if it is not given.
        response: what upstream answers; status 200 and nothing else if it is not given.
        recorder: the listener and log sink of the host, if callbacks and logs are wanted.
        callouts: replies by cluster. The host must know these clusters (`Services.clusters`), else it refuses them.
        late_replies: give replies once the whole request, or response, was fed, and not at once.
        ticks: how many ticks may pass while something is paused.
    """
    run = _Run(host, plugins, recorder, callouts or {}, late_replies, ticks, properties, buffer_limit)
    return run.through(request or Message.request(), response or Message.response())


class _Run:
    def __init__(
        self,
        host: Host,
        plugins: Sequence[Plugin],
        recorder: Recorder | None,
        callouts: Mapping[str, Answer],
        late_replies: bool,
        ticks: int,
        properties: Mapping[str, PropertyValue] | None,
        buffer_limit: int,
    ) -> None:
        self.host = host
        self.plugins = plugins
        self.recorder = recorder or Recorder()
        self.callouts = callouts
        self.late_replies = late_replies
        self.ticks = ticks
        self.replies = 0
        self.waiting: list[effects.Callout] = []
        self.start = len(self.recorder.timeline)
        self.result = Exchange()
        self.stream = host.http_stream(plugins, properties=properties, buffer_limit=buffer_limit)

    def through(self, request: Message, response: Message) -> Exchange:
        stream, result = self.stream, self.result
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
        result.logs = [line for entry in timeline for line in _logs(entry)]
        return result

    def _note_state(self) -> None:
        stream, result = self.stream, self.result
        result.local_response, result.details, result.reset = stream.local, stream.details or "", stream.reset_details
        for direction, which in ((REQUEST, "request"), (RESPONSE, "response")):
            path = stream.path(direction)
            holding = path.holding
            if holding is not None and not path.complete and not path.aborted:
                result.held_by[which] = holding.name

    # -- In ------------------------------------------------------------------------------------------------------

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
        self.recorder.timeline.append(Fed(what, size, end_stream))

    def _wait(self) -> None:
        """Let time pass while something is paused."""
        while self.ticks > 0 and self.stream.paused:
            ticking = [plugin for plugin in self.plugins if plugin.root.tick_period and not plugin.failure]
            if not ticking:
                return
            self.ticks -= 1
            self._fed("tick")
            for plugin in ticking:
                self._perform(plugin.tick())
            self._answer_waiting()

    # -- Out -----------------------------------------------------------------------------------------------------

    def _perform(self, todo: list[Effect]) -> None:
        queue = deque(todo)
        while queue:
            effect = queue.popleft()
            self.result.effects.append(effect)
            self.recorder.timeline.append(effect)
            queue.extend(self._done(effect))

    def _done(self, effect: Effect) -> list[Effect]:
        """Perform one effect; what came of it."""
        if isinstance(effect, (effects.HttpCall, effects.GrpcCall, effects.GrpcStream, effects.RedisCall)):
            self.waiting.append(effect)
            if not self.late_replies:
                return [more for callout in self._taken() for more in self._replies(callout)]
        elif isinstance(effect, effects.CancelCallout):
            self.waiting = [c for c in self.waiting if (c.plugin, c.token) != (effect.plugin, effect.token)]
        elif isinstance(effect, effects.QueueReady) and self._may():
            self._fed("message in a queue")
            return effect.plugin.queue_ready(effect.token)
        elif getattr(effect, "stream", None) is self.stream:
            self._collect(effect)
        return []

    def _may(self) -> bool:
        self.replies += 1
        return self.replies <= MAX_REPLIES

    def _taken(self) -> list[effects.Callout]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def _answer_waiting(self) -> None:
        """Reply to what waits, and to what is asked for because of that."""
        while callouts := self._taken():
            for callout in callouts:
                self._perform(self._replies(callout))

    def _replies(self, callout: effects.Callout) -> list[Effect]:
        """Give a callout the replies that its cluster has for it; what came of them."""
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
        """Add a part of a message that comes out."""
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
    assert message is not None  # noqa: S101 - its headers came first
    if isinstance(effect, (effects.RequestBody, effects.ResponseBody)):
        message.chunks.append(effect.data)
        message.complete = effect.end_stream
    else:
        message.trailers = list(effect.trailers)
        message.complete = True

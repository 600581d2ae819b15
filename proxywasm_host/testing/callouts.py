"""Callouts of a filter under test, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Union

from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    HttpCallReply,
    Reply,
)
from proxywasm_host.testing.http import Request, Response, encoded, response_of

__all__ = ["FAIL", "NEVER", "Answers", "Callout", "GrpcStatus", "Later", "RedisError", "RedisStatus", "later"]

Key = Union[str, tuple[str, ...]]


class _Word:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NEVER = _Word("NEVER")
"""No answer, so the callout times out."""
TOO_LATE = _Word("nothing in time")
FAIL = _Word("FAIL")
"""A failure: the connection was lost."""


@dataclass(frozen=True)
class Later:
    """A delayed answer, made by `later`."""

    seconds: float
    answer: Any


def later(seconds: float, answer: Any) -> Later:
    """An answer after `seconds` of the test's clock; with 0, after the current message was fed."""
    return Later(seconds, answer)


@dataclass(frozen=True)
class GrpcStatus:
    """An answer that ends a gRPC call or stream with a status and its message."""

    status: int
    message: str = ""


class RedisStatus(str):
    """A simple string as an answer of Redis: ``RedisStatus("OK")``."""

    __slots__ = ()


class RedisError(str):
    """An error as an answer of Redis: ``RedisError("WRONGTYPE …")``."""

    __slots__ = ()


class Callout:
    """A callout of a filter: its request, its answers and its state.

    `kind` is ``http``, ``grpc``, ``grpc stream``, ``redis`` or ``name``. `timeout` is in seconds; 0 for none.
    """

    def __init__(self, effect: effects.Callout, deliver: Callable[[Callout, Any], None], stream: object) -> None:
        self.effect = effect
        self.stream = stream
        """The `HttpStream` or `TcpStream` for which it was made, or ``None``."""
        self._deliver = deliver
        self.cluster = effect.cluster
        self.plugin = effect.plugin.name
        self.timeout: float = getattr(effect, "timeout", 0) / 1000
        self.answered = False
        self.cancelled = False
        self.answers: list[Any] = []
        """The answers so far; more than one only for a gRPC stream."""
        self.kind = KINDS[type(effect)]
        self.service, self.method = getattr(effect, "service", ""), getattr(effect, "method", "")
        self.message: bytes = getattr(effect, "message", b"")
        """For gRPC: the message; for a stream, the last one."""
        self.command = list(_resp(effect.query)) if isinstance(effect, effects.RedisCall) else []
        """For Redis: the words of the command."""

    @property
    def request(self) -> Request:
        """The request of an HTTP callout. Raises: AttributeError, for other kinds."""
        effect = self.effect
        if not isinstance(effect, effects.HttpCall):
            raise AttributeError(f"a callout of {self.kind} has no request")  # noqa: TRY004 - it is about an attribute
        return Request.of(effect.headers, effect.body, effect.trailers)

    def reply(self, answer: Any) -> None:
        """Answer the callout now, if the answer of its cluster is `NEVER` or `later`."""
        self._deliver(self, answer)

    def __repr__(self) -> str:
        asks: dict[str, Callable[[], str]] = {
            "http": lambda: f"{self.request.method} {self.request.path}",
            "name": lambda: "its address",
            "redis": lambda: b" ".join(self.command).decode("utf-8", "backslashreplace"),
        }
        asked = asks.get(self.kind, lambda: f"{self.service}/{self.method}")()
        state = "cancelled" if self.cancelled else f"answered {self.answers[-1]!r}" if self.answers else "not answered"
        return f"<Callout {self.kind} {self.cluster}: {asked}; {state}>"


KINDS: dict[type, str] = {
    effects.HttpCall: "http",
    effects.GrpcCall: "grpc",
    effects.GrpcStream: "grpc stream",
    effects.RedisCall: "redis",
    effects.NameLookup: "name",
}


class Answers:
    """The answers to callouts of one kind: ``answers["cluster"] = answer``.

    An answer is a value, a list of values (one for each callout, in turn), or a function that returns one for a
    `Callout`. For gRPC, a service, or a service and a method, may follow the cluster; the most specific entry is used.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._answers: dict[tuple[str, ...], Any] = {}

    def __setitem__(self, key: Key, answer: Any) -> None:
        self._answers[(key,) if isinstance(key, str) else tuple(key)] = (
            Turns(answer, f"{self.kind} {key!r}") if isinstance(answer, list) else answer
        )

    def __delitem__(self, key: Key) -> None:
        del self._answers[(key,) if isinstance(key, str) else tuple(key)]

    def clusters(self) -> Iterator[str]:
        """The clusters that have answers."""
        return (key[0] for key in self._answers)

    def answer(self, callout: Callout) -> Any:
        """The answer to a callout; `NEVER` without an entry. Raises: AssertionError, if a list is exhausted."""
        names = (callout.cluster, callout.service, callout.method)
        for length in (3, 2, 1):
            if names[:length] in self._answers:
                return asked(self._answers[names[:length]], callout)
        return NEVER

    def __repr__(self) -> str:
        return f"<Answers of {self.kind}: {', '.join(map('/'.join, self._answers)) or 'none'}>"


class Turns:
    """Answers that are used once each, in order."""

    def __init__(self, answers: Iterable[Any], whose: str) -> None:
        self._left = list(answers)
        self._whose, self._given = whose, 0

    def take(self) -> Any:
        """Remove and return the next answer. Raises: AssertionError, if none is left."""
        if not self._left:
            raise AssertionError(f"{self._whose} has {self._given} answers, and was asked once more")
        self._given += 1
        return self._left.pop(0)


def asked(answer: Any, question: object) -> Any:
    """The answer to a question: the next one of a list, the result of a function, or the value itself."""
    if isinstance(answer, Turns):
        return asked(answer.take(), question)
    return asked(answer(question), question) if callable(answer) else answer


# -- Replies -----------------------------------------------------------------------------------------------------------


def replies(callout: Callout, answer: Any) -> Iterator[Reply]:
    """The replies for the host from an answer. Raises: TypeError."""
    what = f"{callout.kind} cluster {callout.cluster!r}"
    if answer is FAIL:
        yield CalloutFailed()
    elif callout.kind == "http":
        response = response_of(answer, what)
        yield HttpCallReply(response.pairs, response.body, encoded(response.trailers.pairs))
    elif callout.kind == "redis":
        yield effects.RedisCallReply(resp(answer))
    elif callout.kind == "name":
        yield effects.NameLookupReply(ip_address(answer).packed)
    elif isinstance(answer, GrpcStatus):
        yield GrpcClosed(answer.status, answer.message)
    elif callout.kind == "grpc":
        yield effects.GrpcCallReply(message_of(answer, what))
    elif isinstance(answer, (GrpcInitialMetadata, GrpcTrailingMetadata)):
        yield answer
    elif isinstance(answer, (list, tuple)):
        for each in answer:
            yield from replies(callout, each)
    elif answer is not None:
        yield GrpcMessage(message_of(answer, what))


def answer_of(reply: Reply) -> Any:
    """The answer from a reply, the reverse of `replies`."""
    if isinstance(reply, HttpCallReply):
        return Response.of(reply.headers, reply.body, reply.trailers)
    if isinstance(reply, effects.RedisCallReply):
        return value_of(reply.response)
    if isinstance(reply, effects.NameLookupReply):
        return str(ip_address(reply.address))
    if isinstance(reply, (effects.GrpcCallReply, GrpcMessage)):
        return reply.message
    if isinstance(reply, GrpcClosed):
        return GrpcStatus(reply.status, reply.message)
    return FAIL if isinstance(reply, CalloutFailed) else reply


def value_of(response: bytes) -> Any:
    """The value from a response in RESP, the reverse of `resp`. Raises: ValueError."""
    value, rest = _value(response)
    if rest:
        raise ValueError(f"{rest!r} comes after the end of a value")
    return value


def _value(data: bytes) -> tuple[Any, bytes]:
    line, _, rest = data.partition(b"\r\n")
    kind, text = line[:1], line[1:].decode("utf-8", "surrogateescape")
    if kind == b":":
        return int(text), rest
    if kind in (b"+", b"-"):
        return (RedisStatus if kind == b"+" else RedisError)(text), rest
    if kind not in (b"$", b"*"):
        raise ValueError(f"{line!r} is not the beginning of a RESP value")
    size = int(text)
    if size < 0:
        return None, rest
    if kind == b"$":
        return rest[:size], rest[size + 2 :]
    items = []
    for _ in range(size):
        item, rest = _value(rest)
        items.append(item)
    return items, rest


def message_of(answer: Any, what: str) -> bytes:
    """The bytes of a gRPC message, given as bytes or as a protobuf object. Raises: TypeError."""
    made = answer.SerializeToString() if hasattr(answer, "SerializeToString") else answer
    if not isinstance(made, (bytes, bytearray)):
        raise TypeError(f"{what} answers with a message as bytes or a protobuf object, or a GrpcStatus, not {answer!r}")
    return bytes(made)


def resp(answer: Any) -> bytes:
    """A value in RESP. Text and bytes become bulk strings, ``None`` the null bulk string. Raises: TypeError."""
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, (RedisStatus, RedisError)):
        return b"%c%b\r\n" % (b"+-"[isinstance(answer, RedisError)], answer.encode())
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, (str, bytes)):
        data = answer.encode() if isinstance(answer, str) else answer
        return b"$%d\r\n%b\r\n" % (len(data), data)
    if isinstance(answer, Sequence):
        return b"*%d\r\n%b" % (len(answer), b"".join(map(resp, answer)))
    raise TypeError(
        f"Redis answers with text, bytes, a number, None, a list, RedisStatus or RedisError, not {answer!r}"
    )


def _resp(query: bytes) -> Iterator[bytes]:
    """The words of a command, which is an array of bulk strings or a line."""
    if query[:1] != b"*":
        yield from query.split()
        return
    _, _, rest = query.partition(b"\r\n")
    while rest[:1] == b"$":
        size, _, rest = rest[1:].partition(b"\r\n")
        yield rest[: int(size)]
        rest = rest[int(size) + 2 :]

"""One request with all that happens around it, as data, as a test in Python, and as a command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from proxywasm_host.testing import FAIL, NEVER, FilterUnderTest, GrpcStatus, Outcome, Response, later
from proxywasm_host.testing.literal import literal

__all__ = ["Example", "Reply"]

LATE = 0.05
"""Seconds after which a late answer comes."""


@dataclass(frozen=True)
class Reply:
    """What a cluster answers to every callout."""

    kind: Literal["answer", "late", "fail", "never"] = "answer"
    status: int = 200
    body: bytes = b""


@dataclass(frozen=True)
class Example:
    """A request, upstream's response, and what clusters answer.

    `leaves_after`: the client is gone after so many parts of its request (the headers are the first); ``None``: it
    stays.
    """

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    response_headers: tuple[tuple[str, str], ...] = ()
    response_chunks: tuple[bytes, ...] = ()
    response_trailers: tuple[tuple[str, str], ...] = ()
    replies: dict[str, Reply] = field(default_factory=dict)
    leaves_after: int | None = None

    @property
    def in_one(self) -> Example:
        """The same with each body in one chunk."""
        return replace(self, chunks=_in_one(self.chunks), response_chunks=_in_one(self.response_chunks))

    # -- Run -----------------------------------------------------------------------------------------------------

    def send(self, to: FilterUnderTest) -> Outcome:
        """Send it through filters."""
        for cluster, reply in self.replies.items():
            to.http[cluster] = _answer(reply, Response(reply.status, body=reply.body))
            to.grpc[cluster] = _answer(reply, reply.body if reply.status == 200 else GrpcStatus(14, "no"))
            to.redis[cluster] = _answer(reply, reply.body)
        to.upstream = Response(
            self.status, self.response_headers, chunks=self.response_chunks, trailers=self.response_trailers
        )
        parts: dict[str, Any] = {"chunks": self.chunks, "trailers": self.trailers}
        if self.leaves_after is None:
            return to.request(self.method, self.path, self.headers, **parts)
        with to.stream(self.method, self.path, self.headers, **parts) as stream:
            stream.request_headers()
            for chunk in self.chunks[: self.leaves_after - 1]:
                if not stream.over:
                    stream.request_body(chunk)
        return stream.result

    # -- Told ----------------------------------------------------------------------------------------------------

    def arguments(self) -> str:
        """The request as arguments of `FilterUnderTest.request`."""
        told = [repr(self.method), repr(self.path)]
        told += [f"headers={literal(self.headers)}"] if self.headers else []
        told += [f"chunks={literal(self.chunks)}"] if self.chunks else []
        told += [f"trailers={literal(self.trailers)}"] if self.trailers else []
        return ", ".join(told)

    def world(self) -> list[str]:
        """Statements that set up what is around a filter ``f``."""
        told = [
            f"f.{kind}[{cluster!r}] = {_told(reply, kind)}" for cluster, reply in self.replies.items() for kind in KINDS
        ]
        response = [repr(self.status)] if self.status != 200 or self.response_headers else []
        response += [literal(self.response_headers)] if self.response_headers else []
        response += [f"chunks={literal(self.response_chunks)}"] if self.response_chunks else []
        response += [f"trailers={literal(self.response_trailers)}"] if self.response_trailers else []
        return [*told, *([f"f.upstream = Response({', '.join(response)})"] if response else [])]

    def statements(self) -> list[str]:
        """Statements that send it through a filter ``f``; what became of it is ``outcome``."""
        if self.leaves_after is None:
            return [f"outcome = f.request({self.arguments()})"]
        body = [f"    stream.request_body({literal(chunk)})" for chunk in self.chunks[: self.leaves_after - 1]]
        return [
            f"with f.stream({self.arguments()}) as stream:",
            "    stream.request_headers()",
            *body,
            "outcome = stream.result",
        ]

    def command(self, filter: str, options: list[str]) -> str:
        """A command line that sends it; empty, if there is none: for late answers, and a client that leaves."""
        texts = [*self.chunks, *self.response_chunks, *(reply.body for reply in self.replies.values())]
        texts += [text.encode("utf-8", "surrogateescape") for text in self._texts()]
        kinds = {reply.kind for reply in self.replies.values()}
        if self.leaves_after is not None or kinds & {"late", "never"} or any(map(_unspeakable, texts)):
            return ""
        words = ["proxywasm", "run", filter, self.method, self.path, *options, "--framing", "http2"]
        for option, values in (
            ("-H", [f"{name}: {value}" for name, value in self.headers]),
            ("--chunk", [chunk.decode() for chunk in self.chunks]),
            ("--trailer", [f"{name}: {value}" for name, value in self.trailers]),
            ("--response-status", [str(self.status)] if self.status != 200 else []),
            ("--response-header", [f"{name}: {value}" for name, value in self.response_headers]),
            ("--response-chunk", [chunk.decode() for chunk in self.response_chunks]),
            ("--response-trailer", [f"{name}: {value}" for name, value in self.response_trailers]),
            ("--callout", [_canned(cluster, reply) for cluster, reply in self.replies.items()]),
        ):
            words += [word for value in values for word in (option, value)]
        return shlex.join(words)

    def _texts(self) -> list[str]:
        pairs = (*self.headers, *self.trailers, *self.response_headers, *self.response_trailers)
        return [self.path, *(text for pair in pairs for text in pair)]


KINDS = ("http", "grpc", "redis")


def _in_one(chunks: tuple[bytes, ...]) -> tuple[bytes, ...]:
    whole = b"".join(chunks)
    return (whole,) if whole else ()


def _answer(reply: Reply, answer: Any) -> Any:
    return {"answer": answer, "late": later(LATE, answer), "fail": FAIL, "never": NEVER}[reply.kind]


def _told(reply: Reply, kind: str) -> str:
    told = {
        "http": f"Response({reply.status}, body={reply.body!r})",
        "grpc": repr(reply.body) if reply.status == 200 else "GrpcStatus(14, 'no')",
        "redis": repr(reply.body),
    }[kind]
    return {"answer": told, "late": f"later({LATE}, {told})", "fail": "FAIL", "never": "NEVER"}[reply.kind]


def _canned(cluster: str, reply: Reply) -> str:
    return f"{cluster}=fail" if reply.kind == "fail" else f"{cluster}={reply.status}:{reply.body.decode()}"


def _unspeakable(text: bytes) -> bool:
    """Whether it cannot be said as a word of a command line, where ``@`` names a file."""
    return b"\0" in text or text[:1] == b"@" or b"\xef\xbf\xbd" in text or not _is_utf8(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True

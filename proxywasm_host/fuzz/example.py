"""One request as Hypothesis draws it: flat and frozen. It can become a `Scenario`, and a command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from proxywasm_host.testing import FAIL, NEVER, GrpcStatus, Response, later
from proxywasm_host.testing.scenario import Scenario

__all__ = ["Example", "Reply"]

LATE = 0.05
"""Seconds until a late answer arrives."""


@dataclass(frozen=True)
class Reply:
    """The answer of a cluster to every callout."""

    kind: Literal["answer", "late", "fail", "never"] = "answer"
    status: int = 200
    body: bytes = b""


@dataclass(frozen=True)
class Example:
    """A request, upstream's response, and the answers of clusters.

    `leaves_after`: the number of parts of the request (headers are the first) after which the client disconnects;
    ``None`` if it stays.
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
        """The example with each body in one chunk."""
        return replace(self, chunks=_in_one(self.chunks), response_chunks=_in_one(self.response_chunks))

    @property
    def scenario(self) -> Scenario:
        """The example in the form that tests send and write."""
        answers = {(kind, cluster): _answer(reply, kind) for cluster, reply in self.replies.items() for kind in KINDS}
        upstream = Response(
            self.status, self.response_headers, chunks=self.response_chunks, trailers=self.response_trailers
        )
        usual = (self.status, self.response_headers, self.response_chunks, self.response_trailers) == (200, (), (), ())
        return Scenario(
            self.method,
            self.path,
            self.headers,
            self.chunks,
            self.trailers,
            upstream=None if usual else upstream,
            answers=answers,
            leaves_after=None if self.leaves_after is None else self.leaves_after - 1,
        )

    def command(self, filter: str, options: list[str]) -> str:
        """A command line that sends the example.

        Empty if none can: for late answers, a client that leaves, or bytes that no argument can contain.
        """
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


def _answer(reply: Reply, kind: str) -> Any:
    """The answer of a cluster to a callout of this kind."""
    answers = {
        "http": Response(reply.status, body=reply.body),
        "grpc": reply.body if reply.status == 200 else GrpcStatus(14, "no"),
        "redis": reply.body,
    }
    answer = answers[kind]
    return {"answer": answer, "late": later(LATE, answer), "fail": FAIL, "never": NEVER}[reply.kind]


def _canned(cluster: str, reply: Reply) -> str:
    return f"{cluster}=fail" if reply.kind == "fail" else f"{cluster}={reply.status}:{reply.body.decode()}"


def _unspeakable(text: bytes) -> bool:
    """Whether a text cannot be an argument of the command line, where ``@`` names a file."""
    return b"\0" in text or text[:1] == b"@" or b"\xef\xbf\xbd" in text or not _is_utf8(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True

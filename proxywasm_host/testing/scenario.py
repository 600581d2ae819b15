"""A request with the answers of upstream and clusters, to be sent through a filter under test or written as a test.

``proxywasm fuzz`` and ``proxywasm replay --to pytest`` write such tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxywasm_host.runtime.effects import GrpcInitialMetadata, GrpcTrailingMetadata
from proxywasm_host.testing.callouts import GrpcStatus, Later, RedisError, RedisStatus
from proxywasm_host.testing.harness import FilterUnderTest, Harness
from proxywasm_host.testing.http import Response
from proxywasm_host.testing.outcome import Outcome

__all__ = ["Scenario", "headers_source", "literal"]

MANY = 40


@dataclass(frozen=True)
class Scenario:
    """A request with its answers."""

    method: str = "GET"
    url: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    chunks: Sequence[bytes] = ()
    trailers: Sequence[tuple[str, str]] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)
    upstream: Any = None
    """Upstream's answer, or ``None`` for the default."""
    answers: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """Answers of clusters, by kind (``http``, ``grpc`` or ``redis``) and name of the cluster."""
    leaves_after: int | None = None
    """Number of chunks after which the client leaves; ``None`` if it stays."""
    patience: float | None = None
    """Seconds after which the proxy ends the request; ``None`` for never."""

    # -- Sending -------------------------------------------------------------------------------------------------

    def set_answers(self, world: Harness | FilterUnderTest) -> None:
        """Set the answers of clusters."""
        for (kind, cluster), answer in self.answers.items():
            getattr(world, kind)[cluster] = list(answer) if isinstance(answer, list) else answer

    def send(self, filters: FilterUnderTest) -> Outcome:
        """Send the request, after `set_answers`."""
        if self.upstream is not None:
            filters.upstream = self.upstream
        options: dict[str, Any] = {"chunks": self.chunks, "trailers": self.trailers, "properties": self.properties}
        if self.leaves_after is None and self.patience is None:
            return filters.request(self.method, self.url, self.headers, **options)
        if self.patience is not None:
            filters.patience = self.patience
        with filters.stream(self.method, self.url, self.headers, **options) as stream:
            if self.leaves_after is None:
                stream.send()
            else:
                stream.request_headers()
                for chunk in self.chunks[: self.leaves_after]:
                    if not stream.over:
                        stream.request_body(chunk)
            if self.patience is not None:
                if self.leaves_after is not None:
                    stream.wait()
                if self.upstream is not None:
                    stream.respond()
                stream.time_out()
        return stream.result

    # -- Writing -------------------------------------------------------------------------------------------------

    def answers_source(self, world: str) -> Iterator[str]:
        """Statements for `set_answers`; `world` is the name of the harness or filter."""
        for (kind, cluster), answer in self.answers.items():
            yield f"{world}.{kind}[{cluster!r}] = {_answer_source(answer)}"

    def source(self) -> Iterator[str]:
        """Statements for `send` to a filter ``f``; the result is ``outcome``."""
        if self.upstream is not None:
            yield f"f.upstream = {_answer_source(self.upstream)}"
        arguments = [repr(self.method), repr(self.url)]
        arguments += [headers_source(self.headers)] if self.headers else []
        arguments += [f"chunks={literal(self.chunks)}"] if self.chunks else []
        arguments += [f"trailers={headers_source(self.trailers)}"] if self.trailers else []
        arguments += [f"properties={self.properties!r}"] if self.properties else []
        if self.leaves_after is None and self.patience is None:
            yield f"outcome = f.request({', '.join(arguments)})"
            return
        if self.patience is not None:
            yield f"f.patience = {self.patience!r}"
        yield f"with f.stream({', '.join(arguments)}) as stream:"
        if self.leaves_after is None:
            yield "    stream.send()"
        else:
            yield "    stream.request_headers()"
            for chunk in self.chunks[: self.leaves_after]:
                yield f"    stream.request_body({literal(chunk)})"
        if self.patience is not None:
            if self.leaves_after is not None:
                yield "    stream.wait()"
            if self.upstream is not None:
                yield "    stream.respond()"
            yield "    stream.time_out()"
        yield "outcome = stream.result"


def _answer_source(answer: Any) -> str:
    if isinstance(answer, Later):
        return f"later({answer.seconds!r}, {_answer_source(answer.answer)})"
    if isinstance(answer, Response):
        arguments = [str(answer.status)]
        arguments += [headers_source(answer.headers.pairs)] if len(answer.headers) else []
        arguments += [f"chunks={literal(answer.chunks)}"] if answer.chunks else []
        arguments += [f"trailers={headers_source(answer.trailers.pairs)}"] if len(answer.trailers) else []
        return f"Response({', '.join(arguments)})"
    if isinstance(answer, (RedisStatus, RedisError)):
        return f"{type(answer).__name__}({str(answer)!r})"
    if isinstance(answer, GrpcStatus):
        return f"GrpcStatus({answer.status}{f', {answer.message!r}' if answer.message else ''})"
    if isinstance(answer, (GrpcInitialMetadata, GrpcTrailingMetadata)):
        return f"{type(answer).__name__}({answer.metadata!r})"
    if isinstance(answer, list):
        return f"[{', '.join(map(_answer_source, answer))}]"
    return literal(answer) if isinstance(answer, bytes) else repr(answer)


def headers_source(pairs: Sequence[tuple[str, str]]) -> str:
    """Source of headers: a mapping, or pairs if a name occurs several times."""
    if len(dict(pairs)) < len(pairs):
        return literal(pairs)
    return f"{{{', '.join(f'{name!r}: {literal(value)}' for name, value in pairs)}}}"


def literal(value: Any) -> str:
    """Source of text, bytes or a sequence of them, like ``b'a' * 2000`` for many equal characters."""
    if isinstance(value, (bytes, str)):
        return f"{value[:1]!r} * {len(value)}" if len(value) > MANY and len(set(value)) == 1 else repr(value)
    if all(isinstance(part, tuple) for part in value):
        return f"[{', '.join('(' + ', '.join(map(literal, part)) + ')' for part in value)}]"
    return f"[{', '.join(map(literal, value))}]"

"""The outcome of a stream through filters under test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.http import LocalResponse
from proxywasm_host.services import GuestLog
from proxywasm_host.testing.callouts import Callout
from proxywasm_host.testing.http import Request, Response
from proxywasm_host.testing.timeline import Invocation, refusals

__all__ = ["Logs", "Outcome"]


class Logs(list[GuestLog]):
    """Lines that guests logged. ``logs.info`` are the messages of a level; ``"text" in logs`` searches each message."""

    def messages(self, level: int) -> list[str]:
        """The messages with this level."""
        return [line.message for line in self if line.level == level]

    @property
    def trace(self) -> list[str]:
        """The messages of level ``trace``."""
        return self.messages(LogLevel.TRACE)

    @property
    def debug(self) -> list[str]:
        """The messages of level ``debug``."""
        return self.messages(LogLevel.DEBUG)

    @property
    def info(self) -> list[str]:
        """The messages of level ``info``."""
        return self.messages(LogLevel.INFO)

    @property
    def warn(self) -> list[str]:
        """The messages of level ``warn``."""
        return self.messages(LogLevel.WARN)

    @property
    def error(self) -> list[str]:
        """The messages of level ``error``."""
        return self.messages(LogLevel.ERROR)

    @property
    def critical(self) -> list[str]:
        """The messages of level ``critical``."""
        return self.messages(LogLevel.CRITICAL)

    def lines(self) -> list[str]:
        """A line for each entry: level, plugin, message."""
        return [f"{LogLevel(line.level).name.lower()} {line.plugin}: {line.message}" for line in self]

    def __contains__(self, what: object) -> bool:
        if isinstance(what, str):
            return any(what in line.message for line in self)
        return super().__contains__(what)

    def __repr__(self) -> str:
        return f"<Logs {self.lines()!r}>"


@dataclass(repr=False, eq=False)
class Outcome:
    """The result of a request, during or after it. Results with the same `lines` are equal."""

    upstream: Request | None = None
    """The request that upstream got; ``None`` if nothing reached it, and not ``complete`` if its end is missing."""
    response: Response | None = None
    """The response that the client got."""
    local_response: LocalResponse | None = None
    """The response of a filter, or of the host on its behalf, instead of upstream's."""
    details: str = ""
    """Envoy's response code details."""
    reset: str | None = None
    """The reason of a reset, or ``None``."""
    paused: dict[str, str] = field(default_factory=dict)
    """The plugin that holds the ``request`` or the ``response``."""
    failure: Failure | None = None
    """The first failure of a guest in this chain."""
    properties: dict[str, bytes] = field(default_factory=dict)
    """Properties that filters stored in the stream with ``proxy_set_property``."""
    callouts: list[Callout] = field(default_factory=list)
    """The callouts for this request, in order."""
    invocations: list[Invocation] = field(default_factory=list)
    """The callbacks for this request, with their hostcalls."""
    logs: Logs = field(default_factory=Logs)
    took: float = 0.0
    """Duration in seconds of the test's clock."""

    @property
    def status(self) -> int | None:
        """The status that the client got."""
        return self.response.status if self.response else None

    @property
    def refused(self) -> list[str]:
        """Refused hostcalls with the reason, except reads of absent values."""
        return refusals(self.invocations)

    def lines(self) -> list[str]:
        """Everything that is visible from outside, for output and comparison (``proxywasm_snapshot``)."""
        lines = ["upstream got:", *_indented(self.upstream), "", "the client got:", *_indented(self.response)]
        for title, told in (
            ("callouts", [f"{each.kind} {each.cluster}: {each!r}" for each in self.callouts]),
            ("logs", self.logs.lines()),
            ("properties", [f"{name}: {value!r}" for name, value in sorted(self.properties.items())]),
            ("refused", self.refused),
            ("ended", list(self.ended())),
        ):
            lines += ["", f"{title}:", *(f"  {line}" for line in told)] if told else []
        return lines

    def ended(self) -> Iterator[str]:
        """A text for each unusual end: a local response, a reset, a pause, a failure."""
        if self.local_response:
            yield f"answered on the way{f': {self.details}' if self.details else ''}"
        if self.reset:
            yield f"reset: {self.reset}"
        for which, plugin in self.paused.items():
            yield f"{plugin} holds the {which}"
        if self.failure:
            yield f"{self.failure.plugin} failed in {self.failure.callback}: {self.failure.message}"

    def __eq__(self, other: object) -> bool:
        return self.lines() == other.lines() if isinstance(other, Outcome) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        got = "nothing reached upstream" if self.upstream is None else f"upstream got {self.upstream!r}"
        client = "no response" if self.response is None else f"client got {self.response!r}"
        return f"<Outcome {'; '.join([got, client, *self.ended()])}>"


def _indented(message: Request | Response | None) -> list[str]:
    return ["  nothing"] if message is None else [f"  {line}".rstrip() for line in message.lines()]

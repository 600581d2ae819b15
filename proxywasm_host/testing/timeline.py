"""A `Recorder` notes guests' callbacks, hostcalls and log lines in order."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.table import Callback
from proxywasm_host.abi.types import LogLevel, Status
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import describe
from proxywasm_host.runtime.host import Host
from proxywasm_host.services import GuestLog, LogSink

__all__ = ["InputEvent", "Invocation", "Recorder", "logs_of", "recording", "refusals", "should_not_be_refused"]

BENIGN = frozenset((Status.NOT_FOUND, Status.EMPTY, Status.CAS_MISMATCH))
"""Statuses of refusals that are part of normal work, such as reads of absent values."""


@dataclass(slots=True, repr=False)
class Invocation:
    """One callback: plugin, arguments, result, and its hostcalls and log lines.

    `arguments` begin with the context's id. `result` is ``None`` if the callback has no result or has `failed`.
    """

    plugin: str
    row: Callback
    arguments: tuple[int, ...]
    result: int | None = None
    failed: bool = False
    events: list[Call | GuestLog] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The full name of the callback, such as ``proxy_on_request_headers``."""
        return self.row.name

    def __repr__(self) -> str:
        result = "trap" if self.failed else self.result
        return f"{self.plugin}: {self.name}({', '.join(map(str, self.arguments))}) = {result}"


def should_not_be_refused(call: Call) -> bool:
    """Whether a hostcall was refused unexpectedly, unlike a read of an absent value."""
    return isinstance(call.result, Refusal) and call.result.status not in BENIGN


def refusals(invocations: Iterable[Invocation]) -> list[str]:
    """Refused hostcalls with the reason, except reads of absent values."""
    return [
        f"{invocation.plugin}: {describe(event)}"
        for invocation in invocations
        for event in invocation.events
        if isinstance(event, Call) and should_not_be_refused(event)
    ]


@dataclass(frozen=True, slots=True)
class InputEvent:
    """A mark in the timeline for an event that is fed to the filters (``request headers``, ``tick``, ``end``, …).

    `size` is the bytes of a body, or the number of headers. `end_stream` is whether nothing follows.
    """

    what: str
    size: int = 0
    end_stream: bool = False


class Recorder:
    """Records guests' callbacks, hostcalls and log lines, as a listener and log sink of one `Host`.

    An exchange makes one for itself. ``Host(listener=recorder, services=Services(log=recorder))`` also records guests
    while they are loaded. `timeline` has everything in order; hostcalls and log lines of a callback are in its
    `Invocation`.
    """

    def __init__(self, level: int = LogLevel.TRACE) -> None:
        if not isinstance(level, int):
            raise TypeError(f"a level is a LogLevel, not {level!r}: write Recorder(LogLevel.INFO)")
        self.level = level
        self.timeline: list[Invocation | InputEvent | Call | GuestLog | Effect] = []
        self._open: Invocation | None = None

    @property
    def invocations(self) -> list[Invocation]:
        """All callbacks in order, with their hostcalls and log lines."""
        return [entry for entry in self.timeline if isinstance(entry, Invocation)]

    @property
    def logs(self) -> list[GuestLog]:
        """All log lines in order, without those below `level`."""
        return logs_of(self.timeline)

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """Note a callback that begins (as a listener)."""
        self._open = Invocation(context.name, row, args)
        self.timeline.append(self._open)

    def returned(self, context: Context, row: Callback, result: int | None, failed: bool) -> None:
        """Note the result or the failure of the callback (as a listener)."""
        made, self._open = self._open, None
        assert made is not None  # noqa: S101 - the stream has begun
        made.failed = failed
        made.result = None if failed or row.result is None else result

    def hostcall(self, context: Context, call: Call) -> None:
        """Note a hostcall with its result (as a listener)."""
        result = list(call.result) if isinstance(call.result, list) else call.result
        self._note(call._replace(result=result))

    def log(self, line: GuestLog) -> None:
        """Note a line (as a log sink)."""
        if line.level >= self.level:
            self._note(line)

    def _note(self, event: Call | GuestLog) -> None:
        if self._open is None:
            self.timeline.append(event)
        else:
            self._open.events.append(event)

    def __repr__(self) -> str:
        return f"<Recorder of {len(self.invocations)} callbacks and {len(self.logs)} log lines>"


def logs_of(entries: list[Invocation | InputEvent | Call | GuestLog | Effect]) -> list[GuestLog]:
    """The log lines of recorded entries, including those in callbacks."""
    lines: list[GuestLog] = []
    for entry in entries:
        events = entry.events if isinstance(entry, Invocation) else [entry]
        lines += [event for event in events if isinstance(event, GuestLog)]
    return lines


# -- Temporary recorders -----------------------------------------------------------------------------------------------


@contextmanager
def recording(host: Host, recorder: Recorder | None, clusters: Container[str]) -> Iterator[Recorder]:
    """Record the host's guests, and also let them call these clusters.

    If `recorder` is ``None``, the host's own is used, or else a new one with the level of the host's log. Other
    listeners and log sinks stay in place.
    """
    listener, services = host._listener, host.services
    if recorder is None:
        recorder = listener if isinstance(listener, Recorder) else Recorder(services.log.level)
    log = services.log if services.log is recorder else _BothLogs(recorder, services.log)
    if listener is not recorder:
        host.add_listener(recorder)
    host.use(replace(services, log=log, clusters=_Either(clusters, services.clusters)))
    try:
        yield recorder
    finally:
        host.use(services)
        if listener is not recorder:
            host.remove_listener(recorder)


class _BothLogs:
    """A log sink for two others, each of which gets the lines of its level."""

    def __init__(self, *sinks: LogSink) -> None:
        self._sinks = sinks
        self.level = min(sink.level for sink in sinks)

    def log(self, line: GuestLog) -> None:
        for sink in self._sinks:
            if line.level >= sink.level:
                sink.log(line)


class _Either:
    """The union of two containers."""

    def __init__(self, *containers: Container[str]) -> None:
        self._containers = containers

    def __contains__(self, name: object) -> bool:
        return any(name in container for container in self._containers)

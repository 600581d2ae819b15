"""Watches requests in the filters: all of them while the page is open, otherwise a sample for the metrics.

Rules of this module:

* Other requests have no overhead: the host has a listener only while a request is sampled or the page is open.
* A sampled request counts for all since the previous sample; while all are watched, each counts once. Callbacks outside
  of streams (ticks) are counted only while all are watched.
* A sample slows concurrent requests as well, so there are at most five samples a second.
* Credentials are not kept (`secrets`).
* Texts of filters are cut to a maximal length; beyond a maximal number, calls are counted but not kept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.table import Callback
from proxywasm_host.abi.types import MapType, Status
from proxywasm_host.describe import action_text, callback_text, hostcall_text, is_worth_telling, text
from proxywasm_host.recording.secrets import Secrets
from proxywasm_host.runtime.failure import describe
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.serve.metrics import FilterCounts
from proxywasm_host.testing import Invocation

__all__ = ["Tracer"]

KEPT = 200
"""Most requests that are kept."""
MAX_STEPS = 200
"""Most callbacks that are kept for one request, …"""
MAX_CALLS = 60
"""… of hostcalls for one callback, …"""
MAX_CALLS_IN_ALL = 300
"""… and for one request: a filter must not fill the host's memory with its calls."""
MAX_TEXT = 400
REST = 0.2
"""Seconds between two samples."""
LOOKED = 3.0
"""Seconds for which all requests are watched after a query of the page."""
MAPS = {
    "on_request_headers": MapType.REQUEST_HEADERS,
    "on_request_trailers": MapType.REQUEST_TRAILERS,
    "on_response_headers": MapType.RESPONSE_HEADERS,
    "on_response_trailers": MapType.RESPONSE_TRAILERS,
}
STATUSES = {int(status): status.name for status in Status}


@dataclass(slots=True)
class Record:
    """A watched request, for the page. `changed` is the number of its last change."""

    id: int
    weight: int
    began: float
    clock: float
    chain: int
    changed: int = 0
    request: str = ""
    status: str = ""
    details: str = ""
    ended: float | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    """Number of kept hostcalls."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds in each plugin."""
    secrets: Secrets = field(default_factory=Secrets)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "began": self.clock,
            "chain": self.chain,
            "request": self.request,
            "status": self.status,
            "details": self.details,
            "seconds": None if self.ended is None else self.ended - self.began,
            "spent": self.spent,
            "steps": self.steps,
        }


def cut(words: str) -> str:
    return words if len(words) <= MAX_TEXT else words[:MAX_TEXT] + "…"


def differences(before: HeaderList, after: HeaderList, secrets: Secrets) -> list[tuple[str, str]]:
    """Removed (``-``) and added (``+``) headers, as lines."""
    if before == after:
        return []
    gone, came = list(before), []
    for pair in after:
        if pair in gone:
            gone.remove(pair)
        else:
            came.append(pair)
    lines = [("-", pair) for pair in secrets.headers(gone)] + [("+", pair) for pair in secrets.headers(came)]
    return [(sign, cut(f"{text(name)}: {text(value)}")) for sign, (name, value) in lines[:MAX_CALLS]]


class Tracer:
    """The listener of the hosts of one process."""

    def __init__(
        self,
        filter_counts: FilterCounts,
        every: int,
        later: Callable[[float, Callable[[], None]], object],
        told: Callable[[bool], object] = bool,
    ) -> None:
        """`later` calls a function in the thread of the hosts after a number of seconds.

        `told` gets whether every request must now call `begin`; otherwise only one of `every` needs to.
        """
        self.filter_counts = filter_counts
        self.every = every
        self._later = later
        self._told = told
        self.live = every == 1
        """Whether every request is watched."""
        self.records: deque[Record] = deque(maxlen=KEPT)
        self._hosts: set[Host] = set()
        self._streams: dict[HttpStream, Record] = {}
        self._listening = False
        self._since = 0
        """Requests since the last sample."""
        self._next = 0.0
        """Earliest time of the next sample."""
        self._until = 0.0
        self._ids = 0
        self._changes = 0
        self._open: tuple[Record | None, dict[str, Any], HeaderList | None, float] | None = None

    # -- Sampling ------------------------------------------------------------------------------------------------

    def begin(self, stream: HttpStream, chain: int, method: bytes, path: bytes, passed: int = 1) -> bool:
        """Begin a request, the last of `passed`. Returns whether to watch it; if so, call `end` after it."""
        self._since += passed
        if not self.live:
            if self._since < self.every:
                return False
            now = time.monotonic()
            if now < self._next:
                return False
            self._next = now + REST
        weight = 1 if self.live else self._since
        self._since = 0
        self._ids += 1
        record = Record(self._ids, weight, time.perf_counter(), time.time(), chain)
        request = f"{method.decode()} {path.decode('latin-1')}".encode()
        record.request = cut(text(record.secrets.content(request)))
        self._streams[stream] = record
        self.records.append(record)
        self._listen()
        return True

    def end(self, stream: HttpStream) -> None:
        """Note the end of a watched request."""
        record = self._streams.pop(stream)
        record.ended = time.perf_counter()
        record.details = cut(stream.details or "")
        self._change(record)
        for plugin, seconds in record.spent.items():
            self.filter_counts.in_filter(plugin, seconds)
        self._listen()

    def watch(self) -> None:
        """Watch every request for some seconds. Called in the thread of the hosts."""
        if self.every == 1:
            return
        if not self.live:
            self.live = True
            self._told(True)
            self._listen()
            self._later(LOOKED, self._look_away)
        self._until = time.monotonic() + LOOKED

    def _look_away(self) -> None:
        left = self._until - time.monotonic()
        if left > 0:
            self._later(left, self._look_away)
        else:
            self.live = False
            self._told(False)
            self._listen()

    def _listen(self) -> None:
        wanted = self.live or bool(self._streams)
        if wanted != self._listening:
            self._listening = wanted
            for host in self._hosts:
                host.listen(self if wanted else None)

    def add(self, host: Host) -> None:
        """Listen to another host."""
        self._hosts.add(host)
        self._listening = self.live or bool(self._streams)
        host.listen(self if self._listening else None)

    def remove(self, host: Host) -> None:
        """Stop listening to a host."""
        self._hosts.discard(host)

    def _change(self, record: Record) -> None:
        self._changes += 1
        record.changed = self._changes

    def since(self, change: int) -> tuple[int, list[dict[str, Any]]]:
        """The number of the last change, and the requests that have changed after change number `change`."""
        return self._changes, [record.as_json() for record in self.records if record.changed > change]

    # -- Events --------------------------------------------------------------------------------------------------

    def callback(self, context: Context, row: Callback, args: tuple[int, ...]) -> None:
        """As in `Listener`."""
        stream = getattr(context, "stream", None)
        record = self._streams.get(stream) if stream else None
        weight = record.weight if record else int(self.live and not stream)
        if weight:
            self.filter_counts.callbacks[context.name, row.key] += weight
        words = callback_text(Invocation(context.name, row, args)) if record else ""
        step = {"plugin": context.name, "key": row.key, "callback": words, "calls": [], "more": 0, "weight": weight}
        headers = context.maps[MAPS[row.key]] if record and row.key in MAPS else None
        if record and headers:
            record.secrets.learn(headers)
        step["headers"] = headers
        self._open = record, step, None if headers is None else list(headers), time.perf_counter()

    def hostcall(self, context: Context, call: Call) -> None:
        """As in `Listener`."""
        if self._open is None:
            return
        record, step = self._open[:2]
        if record is None:  # a reply to a callout belongs to the stream of the callout
            stream = getattr(context, "stream", None)
            record = self._streams.get(stream) if stream else None
            if record is not None:
                step["weight"] = record.weight
            self._open = record, *self._open[1:]
        if step["weight"]:
            status = call.result.status if isinstance(call.result, Refusal) else 0
            self.filter_counts.hostcalls[step["plugin"], call.row.name, STATUSES.get(status, str(status))] += step[
                "weight"
            ]
        if record is None:
            return
        if len(step["calls"]) >= MAX_CALLS or record.calls >= MAX_CALLS_IN_ALL:
            step["more"] += 1
            return
        record.calls += 1
        call = record.secrets.call(call)
        if call.row.name == "proxy_log":
            verb, what = "logs", text((call.args or ("", b""))[1])
        elif is_worth_telling(call):
            verb, what = hostcall_text(call, step["key"])
        else:
            verb, what = "reads", describe(call).removeprefix("proxy_")
        step["calls"].append((verb, cut(what)))

    def returned(self, context: Context, row: Callback, result: int | None, *, failed: bool) -> None:
        """As in `Listener`."""
        opened, self._open = self._open, None
        record, step, before, began = opened or (None, {}, None, 0.0)
        if record is None:
            return
        seconds = time.perf_counter() - began
        headers = step.pop("headers")
        step["seconds"] = seconds
        step["action"] = "FAILED" if failed else action_text(row, result)
        step["changes"] = [] if before is None else differences(before, headers, record.secrets)
        plugin = step["plugin"]
        record.spent[plugin] = record.spent.get(plugin, 0.0) + seconds
        if row.key == "on_response_headers":
            record.status = cut(text(dict(reversed(headers)).get(b":status", b"")))
        if len(record.steps) < MAX_STEPS:
            record.steps.append(step)
        self._change(record)

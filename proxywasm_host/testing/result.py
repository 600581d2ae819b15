"""The result of a request, with a short repr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.http import LocalResponse
from proxywasm_host.services import GuestLog
from proxywasm_host.testing.message import Message
from proxywasm_host.testing.timeline import Invocation, refusals

__all__ = ["ExchangeResult"]

SHOWN = 4
"""Maximum number of changes of a message in the repr."""


@dataclass(repr=False)
class ExchangeResult:
    """The result of a request.

    `upstream_request` and `client_response` are ``None`` if nothing was sent, and not `Message.complete` if their end
    is missing. `invocations` and `logs` are those of this exchange.
    """

    upstream_request: Message | None = None
    client_response: Message | None = None
    local_response: LocalResponse | None = None
    details: str = ""
    """Envoy's response code details."""
    reset: str | None = None
    """The reason of a reset, or ``None``."""
    held_by: dict[str, str] = field(default_factory=dict)
    """The plugin that held the ``request`` or the ``response`` at the end."""
    failure: Failure | None = None
    effects: list[Effect] = field(default_factory=list)
    invocations: list[Invocation] = field(default_factory=list)
    logs: list[GuestLog] = field(default_factory=list)
    request: Message | None = None
    """The client's request."""
    response: Message | None = None
    """Upstream's response, even if it was not needed."""

    @property
    def answered_by(self) -> str:
        """``upstream``, the name of the plugin that answered instead, ``the host`` (limits, failures), or empty."""
        if self.local_response is None:
            return "upstream" if self.client_response else ""
        if self.failure is not None and self.details == "wasm_fail_stream":
            return "the host"
        for invocation in reversed(self.invocations):
            for event in invocation.events:
                if isinstance(event, Call) and event.row.name == "proxy_send_local_response":
                    return "the host" if isinstance(event.result, Refusal) else invocation.plugin
        return "the host"

    @property
    def refused(self) -> list[str]:
        """Refused hostcalls with the reason, except reads of absent values."""
        return refusals(self.invocations)

    def __repr__(self) -> str:
        return f"<ExchangeResult {'; '.join(self._told())}>"

    def _told(self) -> Iterator[str]:
        request, client = self.request, self.client_response
        asked = [request.first(name).decode("utf-8", "replace") for name in (b":method", b":path")] if request else []
        status = client.first(b":status").decode("utf-8", "replace") if client else "no response"
        yield " ".join([*asked, "→", status, *(["from", self.answered_by] if client else [])])
        if self.failure:
            yield f"{self.failure.plugin} failed in {self.failure.callback}"
        if self.reset:
            yield f"reset: {self.reset}"
        for which, plugin in self.held_by.items():
            yield f"{plugin} holds the {which}"
        if self.upstream_request is None:
            yield "nothing reached upstream"
        yield from _changes("request", self.request, self.upstream_request)
        if self.local_response is None:
            yield from _changes("response", self.response, client)
        for what, number in (("hostcall", len(self.refused)), ("log line", len(self.logs))):
            if number:
                yield f"{number} {what}{'' if number == 1 else 's'}{' refused' if what == 'hostcall' else ''}"


def _changes(which: str, before: Message | None, after: Message | None) -> Iterator[str]:
    if before is None or after is None:
        return
    changes = [*_lacks("-", before.headers, after.headers), *_lacks("+", after.headers, before.headers)]
    if len(changes) > SHOWN:
        changes[SHOWN:] = [f"… ({len(changes) - SHOWN} more)"]
    if before.body != after.body:
        changes.append(f"body {len(before.body)} → {len(after.body)} bytes")
    if before.trailers != after.trailers:
        changes.append("trailers")
    if not after.complete:
        changes.append("its end never came")
    if changes:
        yield f"{which}: {', '.join(changes)}"


def _lacks(sign: str, some: HeaderList, others: HeaderList) -> Iterator[str]:
    """Texts for the headers of `some` that `others` lacks."""
    left = Counter(some) - Counter(others)
    for name, value in some:
        if left[name, value] > 0:
            left[name, value] -= 1
            yield f"{sign}{name.decode('utf-8', 'replace')}: {value.decode('utf-8', 'replace')}"

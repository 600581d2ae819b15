"""Masks secrets in a recording.

A mask has the length of its secret, and equal secrets have equal masks. So lengths are the same in a replay, and values
that a filter compares stay equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy
from dataclasses import fields, is_dataclass, replace
from typing import Any

from proxywasm_host.abi.marshal import Call
from proxywasm_host.recording.file_format import Event, Recording
from proxywasm_host.recording.secrets import SHORTEST, Secrets
from proxywasm_host.runtime.filter_config import FilterConfig

__all__ = ["Redaction"]

BODIES = {
    "proxy_get_buffer_bytes": (),
    "proxy_set_buffer_bytes": (3,),
    "proxy_http_call": (2,),
    "proxy_send_local_response": (2,),
    "proxy_inject_encoded_data_to_filter_chain": (0,),
    "proxy_grpc_call": (4,),
    "proxy_grpc_send": (1,),
}
"""Hostcalls that read or write bodies, with the indices of the arguments that are bodies."""
SCHEME = re.compile(rb"^\s*(?:basic|bearer|digest|negotiate|token)\s+", re.IGNORECASE)
TEXT = ("utf-8", "surrogatepass")
WHOLE = frozenset(("data", "body", "message", "response"))
"""Names of bodies in events and replies."""


class Redaction(Secrets):
    """The redaction of one recording.

    Args:
        names: names of headers, and keys in JSON and queries, whose values are masked.
        credentials: also mask values that look like credentials or have the name of one (`recording.secrets`).
        bodies: write bodies and messages as strings of ``x`` with the same length.
    """

    def __init__(self, names: Iterable[str] = (), *, credentials: bool = True, bodies: bool = False) -> None:
        super().__init__()
        self._names = frozenset(name.lower().encode() for name in names)
        self._credentials = credentials
        self._bodies = bodies
        self._masks: dict[bytes, bytes] = {}
        words = b"|".join(map(re.escape, sorted(self._names)))
        self._named = re.compile(
            rb"(?P<before>[?&;](?:%b)=|\"(?:%b)\"\s*:\s*\")(?P<secret>[^\"&;#\s]+)" % (words, words), re.IGNORECASE
        )

    def copy(self) -> Redaction:
        """A copy with the same secrets, to which more can be added."""
        copied = copy(self)
        copied._known, copied._masks = set(self._known), dict(self._masks)
        return copied

    def is_secret(self, name: bytes) -> bool:
        """Whether the values of a header are masked."""
        return name.lower() in self._names or (self._credentials and super().is_secret(name))

    def _masked(self, found: re.Match[bytes]) -> bytes:
        return super()._masked(found) if self._credentials else found[0]

    def mask(self, secret: bytes) -> bytes:
        """The mask of a secret, with the same length. Equal secrets have equal masks."""
        if secret in self._masks.values():
            return secret
        number, size = len(self._masks) + 1, len(secret)
        word = b"*redacted-%d*" % number
        mask = (word if len(word) <= size else b"*%d" % number).ljust(size, b"*")[:size]
        return self._masks.setdefault(secret, mask)

    def learn(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the secrets in headers, to mask them wherever they appear again."""
        for name, value in headers:
            if self.is_secret(name):
                values = [part.partition(b"=")[2] for part in value.split(b";")] if b"cookie" in name else [value]
                self._known.update(found for each in values if len(found := SCHEME.sub(b"", each)) >= SHORTEST)

    def named(self, name: bytes, value: bytes) -> bytes:
        """The value of a name without secrets."""
        shown = self.content(value)
        return self.mask(value) if shown == value and value and self.is_secret(name) else shown

    def content(self, data: bytes) -> bytes:
        """A body or any other bytes without secrets."""
        data = super().content(data)
        if self._names:
            data = self._named.sub(lambda found: found["before"] + self.mask(found["secret"]), data)
        return data

    def call(self, call: Call) -> Call:
        """A hostcall without secrets."""
        row, args, result = call
        if self._bodies and row.name in BODIES and args is not None:
            args = tuple(_blank(arg) if at in BODIES[row.name] else arg for at, arg in enumerate(args))
            result = _blank(result) if isinstance(result, bytes) else result
            call = Call(row, args, result)
        return super().call(call)

    # -- A whole recording ---------------------------------------------------------------------------------------

    def recording(self, recording: Recording) -> Recording:
        """A recording without secrets."""
        return replace(
            recording,
            filters=[self._filter(filter) for filter in recording.filters],
            neighbours=[(at, self._filter(filter)) for at, filter in recording.neighbours],
            properties={name: self._property(name, value) for name, value in recording.properties.items()},
            start=[self._event(event) for event in recording.start],
            events=[self._event(event) for event in recording.events],
            outcome={name: self._value(value) for name, value in recording.outcome.items()},
        )

    def _filter(self, filter: FilterConfig) -> FilterConfig:
        return replace(
            filter,
            configuration=self._value(as_bytes(filter.configuration)),
            vm_configuration=self._value(as_bytes(filter.vm_configuration)),
            environment={
                name: self.named(name.encode(), value.encode()).decode()
                for name, value in (filter.environment or {}).items()
            },
        )

    def _event(self, event: Event) -> Event:
        return replace(
            event,
            given={name: self._given(name, value) for name, value in event.given.items()},
            did=[self._value(line) for line in event.did],
            answers=[(name, self._value(answer)) for name, answer in event.answers],
        )

    def _given(self, name: str, value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):  # a reply
            given = {each.name: self._given(each.name, getattr(value, each.name)) for each in fields(value)}
            return replace(value, **given)
        if self._bodies and name in WHOLE and isinstance(value, bytes):
            return _blank(value)
        return self._value(value)

    def _property(self, name: str, value: Any) -> Any:
        if isinstance(value, (bytes, str)) and self.is_secret(name.rpartition(".")[2].encode()):
            masked = self.mask(as_bytes(value))
            return masked if isinstance(value, bytes) else masked.decode()
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.content(value.encode(*TEXT)).decode(*TEXT)
        return super()._value(value)


def as_bytes(text: bytes | str) -> bytes:
    """The bytes of a configuration."""
    return text.encode() if isinstance(text, str) else text


def _blank(data: bytes) -> bytes:
    return b"x" * len(data)

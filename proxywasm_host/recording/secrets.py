"""Finds and masks credentials in headers, targets and bodies, wherever a filter puts them.

Rules of this module:

* If the name of a header says that it is a credential, its value is masked there and wherever it appears again.
* Elsewhere, text that looks like a credential is masked: ``Bearer …``, a JSON Web Token, ``token=…``.
* Values are masked before they are shortened, so that not even the beginning of a secret remains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime.failure import Failure

__all__ = ["MASK", "SHORTEST", "Secrets"]

MASK = b"[redacted]"
WORDS = (
    rb"(?:access[-_]?)?token|authorization|api[-_]?key|cookies?|credentials?|jwt|pass(?:word|wd)|secret|"
    rb"session(?:[-_]?id)?|sid|signature|sig"
)
NAME = re.compile(rb"(?:^|[-_.\0])(?:%b)(?:$|[-_])" % WORDS, re.IGNORECASE)
LOOKS = re.compile(
    rb"(?P<scheme>\b(?:bearer|basic|negotiate) +)[\w.~+/=-]+"
    rb"|\beyJ[\w-]{4,}\.[\w-]+\.?[\w-]*"
    rb"|(?P<query>[?&;](?:[\w.-]*[-_.])?(?:%b)=)[^&;#\s\"']+"
    rb"|(?P<json>\"(?:[\w.-]*[-_.])?(?:%b)\"\s*:\s*\")[^\"]*" % (WORDS, WORDS),
    re.IGNORECASE,
)
HINTS = (
    b"bearer ", b"basic ", b"negotiate ", b"eyj", b"token", b"authorization", b"api", b"cookie", b"credential", b"jwt",
    b"pass", b"secret", b"session", b"sid", b"sig",
)  # fmt: skip
"""Every match of `LOOKS` contains one of these in lower case, so a body without any is not searched."""
SHORTEST = 6
"""Minimum bytes of a secret that is masked elsewhere; shorter ones would occur in too many other words."""
KNOWN = 100
NAMED = frozenset(("proxy_add_header_map_value", "proxy_replace_header_map_value"))
READ = {"proxy_get_header_map_value": 1, "proxy_get_property": 0}
"""Hostcalls that return the value of a name, with the index of the argument that is the name."""


class Secrets:
    """The known secrets of one request."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def is_secret(self, name: bytes) -> bool:
        """Whether the name of a header or a property says that its value is a secret."""
        return NAME.search(name) is not None

    def mask(self, secret: bytes) -> bytes:
        """The text that replaces a secret."""
        return MASK

    def learn(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the credentials in headers, to mask them wherever they appear again."""
        for name, value in headers:
            if not self.is_secret(name):
                continue
            parts = re.split(rb"[;,=\s]+", value) if b"cookie" in name else [value.rpartition(b" ")[2]]
            for part in (value, *parts):
                if len(part) >= SHORTEST and len(self._known) < KNOWN:
                    self._known.add(part)

    def headers(self, headers: HeaderList) -> HeaderList:
        """Headers without secrets."""
        return [(name, self.named(name, value)) for name, value in headers]

    def named(self, name: bytes, value: bytes) -> bytes:
        """The value of a name without secrets."""
        return self.mask(value) if self.is_secret(name) else self.content(value)

    def content(self, data: bytes) -> bytes:
        """Content without known secrets and text that looks like one."""
        for known in sorted(self._known, key=len, reverse=True):
            if known in data:
                data = data.replace(known, self.mask(known))
        small = data.lower()
        return LOOKS.sub(self._masked, data) if any(hint in small for hint in HINTS) else data

    def call(self, call: Call) -> Call:
        """A hostcall without secrets."""
        row, args, result = call
        if args is None:
            return Call(row, args, self._value(result))
        shown = [self._value(value) for value in args]
        if row.name in NAMED and self.is_secret(args[1]):
            self.learn([(args[1], args[2])])
            shown[2] = self.named(args[1], args[2])
        elif row.name == "proxy_set_property" and self.is_secret(args[0]):
            self.learn([(args[0], args[1])])
            shown[1] = self.named(args[0], args[1])
        elif row.name in READ and isinstance(result, bytes) and self.is_secret(args[READ[row.name]]):
            self.learn([(args[READ[row.name]], result)])
            result = self.named(args[READ[row.name]], result)
        return Call(row, tuple(shown), self._value(result))

    def failure(self, failure: Failure) -> Failure:
        """A failure without secrets."""
        message = self.content(failure.message.encode()).decode("utf-8", "replace")
        return replace(failure, message=message, hostcalls=tuple(map(self.call, failure.hostcalls)))

    def _value(self, value: Any) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self.content(bytes(value))
        if isinstance(value, list):
            if all(isinstance(item, tuple) and len(item) == 2 for item in value):
                self.learn(value)
                return self.headers(value)
            return [self._value(item) for item in value]
        return tuple(map(self._value, value)) if type(value) is tuple else value

    def _masked(self, found: re.Match[bytes]) -> bytes:
        kept = found["scheme"] or found["query"] or found["json"] or b""
        return kept + self.mask(found[0][len(kept) :])

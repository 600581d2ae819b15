"""Checks the arguments of embedders. A wrong one is refused where it is passed, with a message that says what to write.

`CHECKS` has those of hosts and streams, by name: a name means the same everywhere. The options of a filter have their
checks in `runtime.filter_config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proxywasm_host.abi.profile import PROFILES, Profile
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.engine.registry import check_name
from proxywasm_host.errors import not_among
from proxywasm_host.services import Services

__all__ = ["CHECKS", "Check", "among", "as_body", "check_arguments", "expect", "how_to_write", "profile_of", "text"]

Check = Callable[[Any], object]
"""Raises TypeError, ValueError or LookupError for a wrong value."""


def check_arguments(**given: object) -> None:
    """Check several arguments. Raises: TypeError, ValueError, LookupError, UnknownEngine, for the first wrong one."""
    for name, value in given.items():
        CHECKS[name](value)


def profile_of(profile: str | Profile) -> Profile:
    """The profile itself, or the profile with that name. Raises: LookupError."""
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise LookupError(not_among("profile", profile, PROFILES))
    return PROFILES[profile]


def as_body(data: Any) -> bytes:
    """A part of a body as bytes. Raises: TypeError."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(data, str):
        raise TypeError(f"a body is bytes, not text: write {data[:20]!r}{'…' if len(data) > 20 else ''}.encode()")
    raise TypeError(f"a body is bytes, not {data!r}")


def how_to_write(headers: Any, pair: Any) -> str:
    """What to write instead of an invalid header."""
    if isinstance(headers, dict):
        return ": write list(headers.items())"
    if isinstance(pair, tuple) and [isinstance(part, (str, bytes)) for part in pair] == [True, True]:
        name, value = (part.encode() if isinstance(part, str) else part for part in pair)
        return f": write {(name, value)!r}"
    return ""


def expect(words: str, good: Callable[[Any], bool], *, optional: bool = False) -> Check:
    """A check that refuses a value that is not `good`; if `optional`, ``None`` stands for a default."""

    def check(value: Any) -> None:
        if not good(value) and not (optional and value is None):
            raise TypeError(f"{words}, not {value!r}")

    return check


def text(name: str) -> Check:
    """A check of an option that is text."""
    return expect(f"{_article(name)} {name} is text", lambda value: isinstance(value, str))


def among(name: str, values: Sequence[Any], *, optional: bool = False) -> Check:
    """A check of an option that has one of these values; if `optional`, ``None`` stands for a default."""
    *others, last = map(repr, values)

    def check(value: Any) -> None:
        if value not in values and not (optional and value is None):
            raise ValueError(f"{name} is {', '.join(others)} or {last}, not {value!r}")

    return check


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _engine(value: Any) -> None:
    if value is not None and not hasattr(value, "compile"):
        check_name(value)


def _listens(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("callback", "returned", "hostcall"))


def _size(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


CHECKS: Mapping[str, Check] = {
    # of hosts
    "services": expect("services are Services(…)", lambda value: isinstance(value, Services), optional=True),
    "listener": expect("a listener has the methods callback, returned and hostcall", _listens, optional=True),
    "cache": expect("a cache is a ModuleCache(Path(…))", lambda value: hasattr(value, "load"), optional=True),
    "wake": expect("wake is a function", callable, optional=True),
    # of hosts and filters
    "engine": _engine,
    "profile": lambda value: None if value is None else profile_of(value),
    "limits": expect("limits are Limits(memory=…, deadline=…)", lambda value: isinstance(value, Limits), optional=True),
    # of streams
    "buffer_limit": expect("buffer_limit is a number of bytes, 0 or more, such as 1 << 20", _size),
}

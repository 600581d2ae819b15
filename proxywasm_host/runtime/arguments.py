"""Checks the arguments of embedders, by name. A name means the same everywhere.

A wrong argument is refused where it is passed, with a message that says what to write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from proxywasm_host.abi.profile import PROFILES, Profile
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.engine.registry import check_name
from proxywasm_host.errors import not_among
from proxywasm_host.fetch.reference import check_sha256, local_path, reference_of
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.match import Match
from proxywasm_host.services import Services

__all__ = ["as_body", "check_arguments", "how_to_write", "profile_of"]

Check = Callable[[Any], object]


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


def _is(words: str, good: Callable[[Any], bool], *, optional: bool = False) -> Check:
    """A check that refuses a value that is not `good`; if `optional`, ``None`` stands for a default."""

    def check(value: Any) -> None:
        if not good(value) and not (optional and value is None):
            raise TypeError(f"{words}, not {value!r}")

    return check


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _size(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _names_to_text(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair)


def _listens(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in ("callback", "returned", "hostcall"))


def _code(value: object) -> None:
    if not isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise TypeError(f"a filter is the path of its file, its URL, or its bytes, not {value!r}")
    if isinstance(value, str) and reference_of(value) is None:
        local_path(value)


def _pull_policy(value: object) -> None:
    if value not in (None, "IfNotPresent", "Always"):
        raise ValueError(f"pull_policy is 'IfNotPresent' or 'Always', not {value!r}")


def _unknown_imports(value: object) -> None:
    if value not in ("error", "stub"):
        raise ValueError(f"unknown_imports is 'error' or 'stub', not {value!r}")


def _isolation(value: object) -> None:
    if value not in ("none", "stream", "filter"):
        raise ValueError(f"isolation is 'none', 'stream' or 'filter', not {value!r}")


def _capabilities(value: object) -> None:
    if isinstance(value, str):
        raise TypeError(f"capabilities are names of hostcalls and callbacks: write [{value!r}], a list")


def _engine(value: Any) -> None:
    if value is not None and not hasattr(value, "compile"):
        check_name(value)


def _configuration(value: object) -> None:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"a configuration is text or bytes, not {value!r}: encode it, with json.dumps for example")


CHECKS: Mapping[str, Check] = {
    # of hosts
    "services": _is("services are Services(…)", lambda value: isinstance(value, Services), optional=True),
    "listener": _is("a listener has the methods callback, returned and hostcall", _listens, optional=True),
    "cache": _is("a cache is a ModuleCache(Path(…))", lambda value: hasattr(value, "load"), optional=True),
    "wake": _is("wake is a function", callable, optional=True),
    # of hosts and filters
    "engine": _engine,
    "profile": lambda value: None if value is None else profile_of(value),
    "limits": _is("limits are Limits(memory=…, deadline=…)", lambda value: isinstance(value, Limits), optional=True),
    # of filters
    "code": _code,
    "sha256": check_sha256,
    "pull_policy": _pull_policy,
    "name": _is("a name is text", _text),
    "root_id": _is("a root_id is text", _text),
    "vm_id": _is("a vm_id is text", _text),
    "configuration": _configuration,
    "vm_configuration": _configuration,
    "environment": _is("an environment is a mapping of text to text", _names_to_text, optional=True),
    "capabilities": _capabilities,
    "failure_policy": FailurePolicy,
    "allow_on_headers_stop_iteration": lambda _: None,
    "reload_interval": _is("reload_interval is a number of seconds, 0 or more", _number),
    "isolation": _isolation,
    "unknown_imports": _unknown_imports,
    "match": _is("a match is Match(hosts=…, paths=…)", lambda value: isinstance(value, Match), optional=True),
    # of streams
    "buffer_limit": _is("buffer_limit is a number of bytes, 0 or more, such as 1 << 20", _size),
}

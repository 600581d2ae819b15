"""The errors of this library. Each message says what is wrong, where, and what to do.

All errors form one tree. docs/api.md lists them, with the public module of each. Those that several parts raise, or
whose part has no public module, are here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "ConfigError",
    "EngineUnavailable",
    "FetchError",
    "ModuleError",
    "ProxyWasmError",
    "UnencodableType",
    "UnencodableValue",
    "UnknownEngine",
    "Unreachable",
]


class ProxyWasmError(Exception):
    """Base class of all errors that this library raises on purpose.

    `code` identifies the class in logs, metrics and comparisons; it is one word and never changes.
    """

    code: ClassVar[str] = "error"


class UnknownEngine(ProxyWasmError, LookupError):
    """No engine with this name is installed or registered."""

    code = "unknown_engine"


class EngineUnavailable(ProxyWasmError):
    """The engine is known, but not installed or not usable here.

    `reason` is why, and `remedy` what to do about it.
    """

    code = "engine_unavailable"

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"engine {name!r} is {reason}: {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[EngineUnavailable], tuple[str, str, str]]:
        return type(self), (self.name, self.reason, self.remedy)


class ModuleError(ProxyWasmError):
    """A module that cannot be a filter: not WebAssembly, an unknown ABI or import, no allocator, beyond a limit."""

    code = "module"


class FetchError(ModuleError):
    """A module that could not be fetched, or differs from the requested one."""

    code = "fetch"


class Unreachable(FetchError):
    """A server cannot answer now. Its last module remains usable."""

    code = "unreachable"


class ConfigError(ProxyWasmError):
    """A configuration that cannot be used."""

    code = "configuration"


class UnencodableValue(ProxyWasmError, ValueError):
    """The value of a property has no form in the ABI (SERIALIZATION_FAILURE to the guest)."""

    code = "unencodable_value"


class UnencodableType(UnencodableValue, TypeError):
    """No value of that type has a form in the ABI."""

    code = "unencodable_type"


def not_among(what: str, name: object, known: Iterable[str], where: str = "") -> str:
    """``no engine is called 'v9'. Did you mean 'v8'? There are v8, wasmer, wasmtime.``"""
    from difflib import get_close_matches  # noqa: PLC0415 - for an error only

    names = list(known)
    near = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    verb = "are" if len(names) > 1 else "is"
    return f"no {what} is called {name!r}{where}.{hint} There {verb} {', '.join(names) or 'none'}."

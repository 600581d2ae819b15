"""The errors of this library. Each message says what is wrong, where, and what to do.

All errors form one tree, listed in docs/api.md. Errors of one part are in the module of that part: `Trap` in
`engine.protocol`, `QuotaExceeded` in `services`, `PluginError` in `runtime.failure`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

__all__ = ["ConfigError", "EngineUnavailable", "ModuleError", "ProxyWasmError", "UnknownEngine", "not_among"]


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


class ConfigError(ProxyWasmError):
    """A configuration that cannot be used."""

    code = "configuration"


def not_among(what: str, name: object, known: Iterable[str], where: str = "") -> str:
    """``no engine is called 'v9'. Did you mean 'v8'? There are v8, wasmer, wasmtime.``"""
    from difflib import get_close_matches  # noqa: PLC0415 - for an error only

    names = list(known)
    near = get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    verb = "are" if len(names) > 1 else "is"
    return f"no {what} is called {name!r}{where}.{hint} There {verb} {', '.join(names) or 'none'}."

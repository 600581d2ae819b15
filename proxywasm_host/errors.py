"""What can go wrong before a guest runs. Each message says what was wrong, where, and what to do.

What a guest does wrong while it runs is a `proxywasm_host.runtime.failure.PluginError`.
"""

from __future__ import annotations

__all__ = ["ConfigError", "EngineUnavailable", "ModuleError", "ProxyWasmError", "UnknownEngine"]


class ProxyWasmError(Exception):
    """Base of all errors that this library raises on purpose."""


class UnknownEngine(ProxyWasmError, LookupError):
    """No engine of that name is known: neither ours, nor one that a plug-in or `register_engine` brought."""


class EngineUnavailable(ProxyWasmError):
    """The engine is known, but not installed or not usable here.

    `reason` says why, `remedy` what to do about it.
    """

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"engine {name!r} is {reason}: {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[EngineUnavailable], tuple[str, str, str]]:
        return type(self), (self.name, self.reason, self.remedy)


class ModuleError(ProxyWasmError):
    """The bytes are no filter that can be loaded: no WebAssembly, no known ABI, an unknown import, no allocator."""


class ConfigError(ProxyWasmError):
    """A configuration that cannot be used."""

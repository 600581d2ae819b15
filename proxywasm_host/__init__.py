"""A Proxy-Wasm host: run filters that were built for Envoy, Istio, Kong or Higress in a Python program.

A `Host` loads plugins and makes streams. You feed events to a stream; it returns effects, and does no I/O itself.

docs/api.md lists the public modules and names. All others are private.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxywasm_host import effects
    from proxywasm_host.abi.module_limits import ModuleLimits
    from proxywasm_host.abi.profile import ENVOY, SPEC, WASMX, Profile
    from proxywasm_host.abi.types import AbiVersion, LogLevel, PeerType, Status
    from proxywasm_host.engine.cache import ModuleCache
    from proxywasm_host.engine.protocol import Limits
    from proxywasm_host.engine.registry import list_engines, open_engine, register_engine
    from proxywasm_host.errors import EngineUnavailable, ModuleError, ProxyWasmError, UnknownEngine
    from proxywasm_host.extension import get_include
    from proxywasm_host.runtime.failure import Failure, PluginError
    from proxywasm_host.runtime.failure_policy import FailurePolicy
    from proxywasm_host.runtime.filter_config import FilterConfig
    from proxywasm_host.runtime.header_limits import HeaderLimits
    from proxywasm_host.runtime.host import Host
    from proxywasm_host.runtime.http import HttpStream, LocalResponse
    from proxywasm_host.runtime.match import Match
    from proxywasm_host.runtime.plugin import Plugin
    from proxywasm_host.runtime.rules import Rule, by_rule, matching
    from proxywasm_host.runtime.tcp import TcpStream
    from proxywasm_host.services import Services

__all__ = [
    "ENVOY",
    "SPEC",
    "WASMX",
    "AbiVersion",
    "EngineUnavailable",
    "Failure",
    "FailurePolicy",
    "FilterConfig",
    "HeaderLimits",
    "Host",
    "HttpStream",
    "Limits",
    "LocalResponse",
    "LogLevel",
    "Match",
    "ModuleCache",
    "ModuleError",
    "ModuleLimits",
    "PeerType",
    "Plugin",
    "PluginError",
    "Profile",
    "ProxyWasmError",
    "Rule",
    "Services",
    "Status",
    "TcpStream",
    "UnknownEngine",
    "by_rule",
    "effects",
    "get_include",
    "list_engines",
    "matching",
    "open_engine",
    "register_engine",
]

__version__ = "0.1.0"

_HOME = {
    "proxywasm_host.abi.module_limits": "ModuleLimits",
    "proxywasm_host.abi.profile": "ENVOY SPEC WASMX Profile",
    "proxywasm_host.abi.types": "AbiVersion LogLevel PeerType Status",
    "proxywasm_host.engine.cache": "ModuleCache",
    "proxywasm_host.engine.protocol": "Limits",
    "proxywasm_host.engine.registry": "list_engines open_engine register_engine",
    "proxywasm_host.errors": "EngineUnavailable ModuleError ProxyWasmError UnknownEngine",
    "proxywasm_host.extension": "get_include",
    "proxywasm_host.runtime.failure": "Failure PluginError",
    "proxywasm_host.runtime.filter_config": "FilterConfig",
    "proxywasm_host.runtime.header_limits": "HeaderLimits",
    "proxywasm_host.runtime.host": "Host",
    "proxywasm_host.runtime.http": "HttpStream LocalResponse",
    "proxywasm_host.runtime.failure_policy": "FailurePolicy",
    "proxywasm_host.runtime.match": "Match",
    "proxywasm_host.runtime.rules": "Rule by_rule matching",
    "proxywasm_host.runtime.plugin": "Plugin",
    "proxywasm_host.runtime.tcp": "TcpStream",
    "proxywasm_host.services": "Services",
}
"""The module of each public name. A module is imported on first use, so that importing the package is fast."""
_MODULES = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "effects":
        return import_module("proxywasm_host.effects")
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

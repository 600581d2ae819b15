"""A Proxy-Wasm host: run filters that were built for Envoy, Istio, Kong or Higress in a Python program.

A `Host` loads plugins and makes streams; a stream is fed with events and returns effects, and does no I/O itself.
"""

from proxywasm_host.abi.profile import ENVOY, SPEC, Profile
from proxywasm_host.abi.types import AbiVersion, LogLevel, PeerType, Status
from proxywasm_host.engine.cache import ModuleCache
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.engine.registry import list_engines, open_engine, register_engine
from proxywasm_host.errors import EngineUnavailable, ModuleError, ProxyWasmError, UnknownEngine
from proxywasm_host.runtime.failure import Failure, PluginError
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream, LocalResponse
from proxywasm_host.runtime.plugin import FailurePolicy, Plugin
from proxywasm_host.runtime.tcp import TcpStream
from proxywasm_host.services import Services

__all__ = [
    "ENVOY",
    "SPEC",
    "AbiVersion",
    "EngineUnavailable",
    "Failure",
    "FailurePolicy",
    "Host",
    "HttpStream",
    "Limits",
    "LocalResponse",
    "LogLevel",
    "ModuleCache",
    "ModuleError",
    "PeerType",
    "Plugin",
    "PluginError",
    "Profile",
    "ProxyWasmError",
    "Services",
    "Status",
    "TcpStream",
    "UnknownEngine",
    "list_engines",
    "open_engine",
    "register_engine",
]

__version__ = "0.1.0"

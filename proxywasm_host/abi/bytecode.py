"""A filter as bytes: its sections, and the version of the ABI that it was built for.

Source: ``getAbiVersion`` in ``bytecode_util.cc`` of Envoy's host: the first export with a known marker counts.
"""

from __future__ import annotations

from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.errors import ModuleError
from proxywasm_host.forks import cached_property
from proxywasm_host.wasm import (
    CODE,
    CUSTOM,
    DATA,
    EXPORT,
    FUNCTION,
    IMPORT,
    MEMORY,
    PAGE,
    TYPE,
    Binary,
    FunctionSignature,
)

__all__ = [
    "CODE",
    "CUSTOM",
    "DATA",
    "EXPORT",
    "FUNCTION",
    "IMPORT",
    "MEMORY",
    "PAGE",
    "TYPE",
    "Bytecode",
    "FunctionSignature",
]


class Bytecode(Binary):
    """A module as bytes, with the content of its sections; each is read on first use.

    Raises: ModuleError, on construction if the bytes are not a WebAssembly module or end early.
    """

    @cached_property
    def abi_version(self) -> AbiVersion:
        """The version that the marker export names.

        Raises: ModuleError, if no exported function is the marker of a known version.
        """
        markers = [
            name for name, kind, _ in self.exports if kind == "function" and name.startswith("proxy_abi_version_")
        ]
        known = {version.marker: version for version in AbiVersion}
        for marker in markers:
            if marker in known:
                return known[marker]
        versions = ", ".join(map(str, AbiVersion))
        if markers:
            raise ModuleError(f"the module is for an unknown Proxy-Wasm ABI ({markers[0]}); known are {versions}")
        raise ModuleError(
            "not a Proxy-Wasm filter: the module exports no proxy_abi_version_… function "
            f"(known versions: {versions}); build it with a Proxy-Wasm SDK, as a library and not as a program"
        )

"""Guesses the SDK and the language of a module from its bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxywasm_host.abi.bytecode import Bytecode

__all__ = ["Origin", "origin", "origin_of"]


@dataclass(frozen=True, slots=True)
class Origin:
    """`sdk` and `language` are empty if they are unknown."""

    sdk: str
    language: str

    def __str__(self) -> str:
        return f"{self.sdk} ({self.language})" if self.sdk and self.language else self.sdk or self.language


def _wide(text: str) -> bytes:
    """A pattern for text in AssemblyScript's encoding."""
    return re.escape(text.encode("utf-16-le"))


SDKS = (
    (rb"proxy-wasm-(?P<version>\d+\.\d+\.\d+[\w.+-]*)/src", "proxy-wasm", "Rust"),
    (rb"tetratelabs/proxy-wasm-go-sdk", "tetratelabs/proxy-wasm-go-sdk", "Go"),
    (rb"proxy-wasm/proxy-wasm-go-sdk", "proxy-wasm-go-sdk", "Go"),
    (rb"higress-group/wasm-go", "higress-group/wasm-go", "Go"),
    (rb"higress-group/proxy-wasm-go-sdk", "higress-group/proxy-wasm-go-sdk", "Go"),
    (_wide("@gcoredev/proxy-wasm-sdk-as"), "@gcoredev/proxy-wasm-sdk-as", "AssemblyScript"),
    (_wide("@solo-io/proxy-runtime"), "@solo-io/proxy-runtime", "AssemblyScript"),
    (rb"proxy_wasm_intrinsics|proxy-wasm-cpp-sdk|RegisterContextFactory", "proxy-wasm-cpp-sdk", "C++"),
)
"""(traces that an SDK leaves in a module, its name, its language). The first match counts."""

COMPILERS = {"rustc": "Rust", "TinyGo": "Go", "Go cmd/compile": "Go", "Zig": "Zig", "clang": "C or C++"}


def origin(bytecode: Bytecode) -> str:
    """ABI, SDK and language in a few words."""
    made = str(origin_of(bytecode))
    return f"ABI {bytecode.abi_version}{', ' + made if made else ''}"


def origin_of(bytecode: Bytecode) -> Origin:
    """SDK and language by the traces of SDKs and the producers section."""
    for pattern, sdk, language in SDKS:
        if found := re.search(pattern, bytecode.data):
            version = found.groupdict().get("version") or b""
            return Origin(f"{sdk} {version.decode()}".strip(), language)
    return Origin("", _language(bytecode.producers))


def _language(producers: dict[str, list[tuple[str, str]]]) -> str:
    tools = [name for name, _ in producers.get("processed-by", [])]
    for trace, language in COMPILERS.items():
        if any(trace in tool for tool in tools):
            return language
    return ", ".join(name for name, _ in producers.get("language", []))

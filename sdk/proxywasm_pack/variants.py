"""The module in which packed scripts run, with or without Redis callouts.

`runtime.wasm` imports Higress's hostcalls for Redis, which other hosts refuse. For a script that does not use Redis,
functions in the module replace them; for one that does, the module declares that it is for Higress (ABI 0.2.100).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from proxywasm_pack import wasm

__all__ = ["RUNTIME", "runtime"]

RUNTIME = Path(__file__).parent / "runtime.wasm"
TYPES, IMPORTS, FUNCTIONS, EXPORTS, CODE = 1, 2, 3, 7, 10
REDIS = [b"proxy_redis_init", b"proxy_redis_call"]
UNIMPLEMENTED = b"\0\x41\x0c\x0b"  # the body of a function: no locals, i32.const 12, end
STANDARD, HIGRESS, CALLBACK = b"proxy_abi_version_0_2_1", b"proxy_abi_version_0_2_100", b"proxy_on_redis_call_response"


@cache
def runtime(*, redis: bool) -> bytes:
    """The module, with the imports for Redis callouts if `redis`."""
    change = _for_higress if redis else _without_redis
    return wasm.module(change(list(wasm.sections(RUNTIME.read_bytes()))))


def _for_higress(sections: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [
        (number, wasm.exports(content, {STANDARD: HIGRESS}) if number == EXPORTS else content)
        for number, content in sections
    ]


def _without_redis(sections: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Replace the last imports by the first functions, so that all others keep their numbers."""
    imports = wasm.imports(dict(sections)[IMPORTS])
    kept, gone = imports[: -len(REDIS)], imports[-len(REDIS) :]
    assert [name for name, _, _ in gone] == REDIS, "the last imports of runtime.wasm are those for Redis"
    types = [kind for _, kind, _ in gone]
    changes: dict[int, Callable[[bytes], bytes]] = {
        IMPORTS: lambda _: wasm.vector([entry for _, _, entry in kept]),
        FUNCTIONS: lambda content: wasm.prepended(content, [wasm.unsigned(kind) for kind in types]),
        CODE: lambda content: wasm.prepended(content, [wasm.unsigned(len(UNIMPLEMENTED)) + UNIMPLEMENTED for _ in types]),
        EXPORTS: lambda content: wasm.exports(content, {CALLBACK: None}),
    }
    return [(number, changes[number](content) if number in changes else content) for number, content in sections]

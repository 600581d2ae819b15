"""Filters with exactly one task, in WebAssembly text; signatures come from the table of the ABI."""

from __future__ import annotations

import wasmtime

from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, Kind

PAGE = 65536
VALUE, SIZE, NUMBER = 0, 4, 8  # where hostcalls write results: the address and size of bytes, or a number
DATA = 64  # where the text of the filter begins
HEAP = 16384  # where its allocator begins, again and again when the memory is used up


class Wat:
    """A filter under construction. A refused hostcall traps, so that no failed call is timed."""

    def __init__(self, pages: int = 2) -> None:
        self.pages = pages
        self.free = DATA
        self.imports: dict[str, str] = {}
        self.parts: list[str] = []
        self.callbacks: set[str] = set()

    def call(self, name: str, *arguments: int | bytes | str) -> str:
        """The instructions to make a hostcall. `arguments` are its inputs: numbers, bytes, or instructions."""
        row = next(row for row in HOSTCALLS if row.name == name)
        self.imports[name] = f'(import "env" "{name}" (func ${name} (param {" ".join(row.types)}) (result i32)))'
        given, words = iter(arguments), []
        for param in row.params:
            if param.kind.is_result:
                words += [VALUE, SIZE] if len(param.kind.types) == 2 else [NUMBER]
            else:
                argument = next(given)
                words += self.text(argument) if isinstance(argument, bytes) else [argument]
                if param.kind in (Kind.BYTES, Kind.PAIRS) and isinstance(argument, str):
                    words.append(next(given))
        assert not list(given), f"too many arguments for {name}"
        pushed = [
            word if isinstance(word, str) else f"({kind}.const {word})"
            for kind, word in zip(row.types, words, strict=True)
        ]
        return f"(if (call ${name} {' '.join(pushed)}) (then unreachable))"

    def text(self, value: bytes) -> list[int]:
        """Put `value` into the guest's memory, and return its address and size."""
        address = self.free
        self.free += len(value) + 8
        assert self.free < HEAP
        content = "".join(f"\\{byte:02x}" for byte in value)
        self.parts.append(f'(data (i32.const {address}) "{content}")')
        return [address, len(value)]

    def callback(self, name: str, *instructions: str, times: int = 1, returns: int = 0) -> None:
        """Add a callback that repeats `instructions`, and returns `returns`."""
        row = next(row for row in reversed(CALLBACKS) if row.name == name)
        self.callbacks.add(name)
        body = "\n".join(instructions)
        if times > 1:
            body = f"""(local.set $left (i32.const {times}))
            (loop $again {body}
              (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
        result, value = ("(result i32)", f"(i32.const {returns})") if row.result else ("", "")
        parameters = "(param i32)" * len(row.params)
        self.parts.append(f'(func (export "{name}") {parameters} {result} (local $left i32) {body} {value})')

    def module(self) -> bytes:
        """The compiled filter."""
        for name, accepts in ("proxy_on_vm_start", 1), ("proxy_on_configure", 1), ("proxy_on_done", 1):
            if name not in self.callbacks:
                self.callback(name, returns=accepts)
        if "proxy_on_context_create" not in self.callbacks:
            self.callback("proxy_on_context_create")
        return bytes(
            wasmtime.wat2wasm(f"""(module {" ".join(self.imports.values())}
            (memory (export "memory") {self.pages})
            (global $free (mut i32) (i32.const {HEAP}))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
              (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const {self.pages * PAGE}))
                (then (global.set $free (i32.const {HEAP}))))
              (local.set $at (global.get $free))
              (global.set $free
                (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
              (local.get $at))
            {" ".join(self.parts)})""")
        )

#!/usr/bin/env python3
"""Assemble the guests of the compliance suite: all texts in its package that begin with ``(module``."""

from __future__ import annotations

import ast

import wasmtime

from proxywasm_host.testing.compliance.assembled import TABLE, digest


def assembled() -> str:
    """What ``assembled.txt`` has to hold."""
    texts = {
        node.value
        for source in TABLE.parent.glob("*.py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("(module")
    }
    return "".join(sorted(f"{digest(text)} {bytes(wasmtime.wat2wasm(text)).hex()}\n" for text in texts))


if __name__ == "__main__":
    TABLE.write_text(assembled(), encoding="ascii")

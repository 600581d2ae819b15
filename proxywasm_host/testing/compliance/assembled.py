"""The suite's guests in binary form, so that an assembler is needed only to change them.

``assembled.txt`` holds a line for each WebAssembly text in this package: its digest, and the module in hexadecimal.
``tests/testing/assemble.py`` writes it, and a test compares.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from pathlib import Path

__all__ = ["TABLE", "digest", "wasm"]

TABLE = Path(__file__).with_name("assembled.txt")


def wasm(text: str) -> bytes:
    """The module that is written as `text` in this package. Raises: LookupError for any other."""
    try:
        return _table()[digest(text)]
    except KeyError:
        raise LookupError(f"no module in {TABLE.name} is written {text!r}: run tests/testing/assemble.py") from None


def digest(text: str) -> str:
    """The key of a text."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def _table() -> dict[str, bytes]:
    lines = (line.split() for line in TABLE.read_text(encoding="ascii").splitlines())
    return {key: bytes.fromhex(code) for key, code in lines}

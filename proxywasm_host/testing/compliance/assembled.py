"""The guests of the suite in binary form, so that only changing them needs an assembler.

``assembled.txt`` has a line for each WebAssembly text in this package: its digest and the module in hexadecimal.
``tests/testing/assemble.py`` writes it, and a test compares it with the texts.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from pathlib import Path

__all__ = ["TABLE", "digest", "wasm"]

TABLE = Path(__file__).with_name("assembled.txt")


def wasm(text: str) -> bytes:
    """The module of a `text` in this package. Raises: LookupError, for any other text."""
    try:
        return _table()[digest(text)]
    except KeyError:
        raise LookupError(f"no module in {TABLE.name} is written {text!r}: run tests/testing/assemble.py") from None


def digest(text: str) -> str:
    """The key of a text in ``assembled.txt``."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def _table() -> dict[str, bytes]:
    lines = (line.split() for line in TABLE.read_text(encoding="ascii").splitlines())
    return {key: bytes.fromhex(code) for key, code in lines}

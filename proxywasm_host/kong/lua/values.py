"""Conversion of values between Python and Lua.

Strings of the runtime are `str` with one character for each byte; configurations are text, which is UTF-8 in Lua.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["LuaValue", "Values", "bytes_as_text", "text_as_bytes"]

LuaValue = Any

MAX_DEPTH = 100
"""Most levels of nested tables: a table may contain itself."""


def text_as_bytes(text: str) -> str:
    """Text as a Lua string of its UTF-8 bytes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def bytes_as_text(string: str) -> str:
    """A Lua string as text; bytes that are not UTF-8 become surrogates."""
    return string if string.isascii() else string.encode("latin-1").decode("utf-8", "surrogateescape")


class Values:
    """Converts values that JSON can represent to Lua and back. Lua's ``null`` is Python's ``None``."""

    def __init__(
        self, table: Callable[[Any], LuaValue], lua_type: Callable[[LuaValue], str | None], null: LuaValue
    ) -> None:
        self._table, self._lua_type, self._null = table, lua_type, null

    def to_lua(self, value: Any, *, nulls: bool = True) -> LuaValue:
        """A value for Lua; without `nulls`, keys whose value is ``None`` are left out."""
        if isinstance(value, str):
            return text_as_bytes(value)
        if value is None:
            return self._null if nulls else None
        if isinstance(value, Mapping):
            kept = value.items() if nulls else [(key, each) for key, each in value.items() if each is not None]
            return self._table({self.to_lua(key): self.to_lua(each, nulls=nulls) for key, each in kept})
        if isinstance(value, (bool, int, float, bytes)):
            return value
        if isinstance(value, Sequence):
            return self._table([self.to_lua(each, nulls=nulls) for each in value])
        raise TypeError(f"a {type(value).__name__} has no form in Lua")

    def to_python(self, value: LuaValue, depth: int = 0) -> Any:
        """A value for Python: text, numbers, lists and dicts. Raises: ValueError, if JSON cannot represent it."""
        if isinstance(value, str):
            return bytes_as_text(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        kind = self._lua_type(value)
        if kind == "userdata":
            return None
        if kind != "table":
            raise ValueError(f"a {kind} is not a value of JSON")
        if depth == MAX_DEPTH:
            raise ValueError("tables are nested too deeply, or contain themselves")
        pairs = list(value.items())
        if pairs and all(key == place for place, (key, _) in enumerate(pairs, 1)):
            return [self.to_python(each, depth + 1) for _, each in pairs]
        return {_key(key): self.to_python(each, depth + 1) for key, each in pairs}


def _key(key: Any) -> str:
    if isinstance(key, str):
        return bytes_as_text(key)
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)

"""Headers under CPython. In a packed filter, `Headers` of the module `_proxywasm`, written in C, replaces this class."""

from __future__ import annotations

from typing import Any

from proxywasm import _fake as host

__all__ = ["Headers"]


class Headers:
    """Headers or trailers of a stream: a mapping with case-insensitive names. Each change reaches the host at once."""

    def __init__(self, map: int, /) -> None:
        self._map = map

    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of a header, or `default`. The host joins several values."""
        value = host.get_header(self._map, name)
        return default if value is None else value

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        if not isinstance(value, (str, bytes, bytearray)):
            raise TypeError("the value of a header is text")
        host.set_header(self._map, name, value)

    def __delitem__(self, name: str) -> None:
        host.remove_header(self._map, name)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def add(self, name: str, value: str, /) -> None:
        """Add a header, and keep those of the same name."""
        host.add_header(self._map, name, value)

    def items(self) -> list[tuple[str, str]]:
        """All headers in order, as (name, value)."""
        pairs: list[tuple[str, str]] = host.get_pairs(self._map)
        return pairs

    def keys(self) -> list[str]:
        """All names, in order."""
        return [name for name, _ in self.items()]

    def values(self) -> list[str]:
        """All values, in order."""
        return [value for _, value in self.items()]

    def get_all(self, name: str, /) -> list[str]:
        """The values of all headers with a name."""
        return [value for key, value in self.items() if key.lower() == name.lower()]

    def pop(self, name: str, default: Any = None, /) -> Any:
        """Remove a header, and return its value, or `default`."""
        value = self.get(name, default)
        del self[name]
        return value

    def update(self, others: Any, /) -> None:
        """Set each header of a dict, or of pairs."""
        for name, value in others.items() if hasattr(others, "items") else others:
            self[name] = value

    def replace(self, pairs: list[tuple[str, str]], /) -> None:
        """Replace all headers by these."""
        host.set_pairs(self._map, pairs)

    def __iter__(self) -> Any:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.items())

    def __repr__(self) -> str:
        return "Headers(%r)" % (self.items(),)

"""The result of a conversion: a configuration in the form of ``proxywasm serve``, as plain values."""

from __future__ import annotations

from typing import Any

from proxywasm_host.configuration.node import Key, Node

__all__ = ["Own"]


class Own:
    """A configuration under construction, with the line that each of its parts comes from."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.lines: dict[Key, int] = {(): 1}

    def put(self, value: Any, source: Node, *path: str) -> None:
        """Set the value at a path, unless it is empty."""
        if value is None or value in ({}, [], ""):
            return
        place = self.data
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
        self.lines[path] = source.line

    def add(self, value: Any, source: Node, *path: str) -> None:
        """Append an item to the list at a path."""
        place: Any = self.data
        for name in path[:-1]:
            place = place.setdefault(name, {})
        items = place.setdefault(path[-1], [])
        at: Key = (*path, len(items))
        self.lines[at] = source.line
        items.append(value)

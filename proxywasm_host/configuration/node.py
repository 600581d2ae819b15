"""A place in a foreign configuration: its value, its line, and the parts of it that were understood.

No key is ignored silently: a key that no reader has taken is an error when `Node.done` is called, unless a reader has
ignored it with a reason, which makes a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Document", "Key", "Node", "dotted"]

Key = tuple["str | int", ...]
DURATION = re.compile(r"(\d+(?:\.\d*)?)(ms|s|m|h)?")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def dotted(path: Key) -> str:
    """The text of a path: ``filters[0].limits.memory``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass
class Document:
    """One document of a file, with its errors and warnings."""

    file: Path
    data: Any
    lines: Mapping[Key, int]
    errors: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def root(self) -> Node:
        """The whole document."""
        return Node(self.data, (), self)

    def line(self, path: Key) -> int:
        """The line of a path; 1 if it is unknown."""
        known = (self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines)
        return next(known, 1)


class Node:
    """A value in a document."""

    def __init__(self, value: Any, path: Key, document: Document) -> None:
        self.value = value
        self.path = path
        self.document = document
        self._taken: set[str] = set()
        self._told = False

    @property
    def line(self) -> int:
        """The value's line in the file."""
        return self.document.line(self.path)

    def _said(self, what: str) -> str:
        where = dotted(self.path)
        return f"{self.document.file}:{self.line}: {where + ': ' if where else ''}{what}"

    def wrong(self, what: str) -> None:
        """Report an error at this place."""
        self.document.errors.append(self._said(what))

    def warn(self, why: str) -> None:
        """Warn that this value has no effect, and say why that is safe."""
        self.note(f"ignored: {why}")

    def note(self, what: str) -> None:
        """Report a warning at this place."""
        self.document.ignored.append(self._said(what))

    # -- Mappings ------------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Whether a mapping has this key."""
        return isinstance(self.value, dict) and _spelled(self.value, key) is not None

    def take(self, key: str) -> Node:
        """Take the value of a mapping's key, in snake_case or camelCase; a node of ``None`` if it is missing."""
        if self.value is not None and not isinstance(self.value, dict):
            if not self._told:
                self.wrong("must be a mapping")
            self._told = True
            return Node(None, (*self.path, key), self.document)
        mapping: dict[Any, Any] = self.value or {}
        spelled = _spelled(mapping, key)
        if spelled is None:
            return Node(None, (*self.path, key), self.document)
        self._taken.add(spelled)
        return Node(mapping[spelled], (*self.path, spelled), self.document)

    def ignore(self, why: str, *keys: str) -> None:
        """Warn about these keys, if they are present."""
        for key in keys:
            if self.has(key):
                self.take(key).warn(why)

    def drop(self, *keys: str) -> None:
        """Take keys that need no conversion."""
        for key in keys:
            self.take(key)

    def entries(self) -> Iterator[tuple[str, Node]]:
        """Take all items of a mapping whose keys are names that its author chose."""
        for key in self.value if isinstance(self.value, dict) else ():
            yield str(key), self.take(key)

    def done(self) -> None:
        """Report each key that was not taken as an error."""
        for key in self.value if isinstance(self.value, dict) else ():
            if key not in self._taken:
                Node(self.value[key], (*self.path, key), self.document).wrong("is not understood here")

    # -- Values --------------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return self.value is not None

    def each(self) -> list[Node]:
        """The items of a list; a single value counts as a list of one."""
        if self.value is None:
            return []
        items = self.value if isinstance(self.value, list) else [self.value]
        return [Node(item, (*self.path, number), self.document) for number, item in enumerate(items)]

    def text(self, default: str = "") -> str:
        """The value as text."""
        if self.value is None:
            return default
        if isinstance(self.value, (dict, list)):
            self.wrong("must be text")
            return default
        return self.value if isinstance(self.value, str) else str(self.value).lower()

    def flag(self, default: bool = False) -> bool:
        """The value as a boolean, which is also the form of Envoy's ``BoolValue``."""
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            self.wrong(f"{self.value!r} is neither true nor false")
        return bool(self.value)

    def number(self, default: int = 0) -> int:
        """The value as a whole number, also if it is written as text."""
        if self.value is None:
            return default
        if isinstance(self.value, bool) or not re.fullmatch(r"-?\d+", str(self.value)):
            self.wrong(f"{self.value!r} is not a number")
            return default
        return int(self.value)

    def seconds(self) -> float | None:
        """The seconds of a duration such as ``0.5s``."""
        if self.value is None:
            return None
        found = DURATION.fullmatch(str(self.value))
        if not found:
            self.wrong(f"{self.value!r} is not a duration: write it as 0.5s")
            return None
        return float(found[1]) * UNITS[found[2] or "s"]

    def among(self, choices: Mapping[str, Any], default: Any = None) -> Any:
        """The meaning of the value, which must be one of these words."""
        if self.value is None:
            return default
        if self.value not in choices:
            self.wrong(f"{self.value!r} is not one of {', '.join(filter(None, choices))}")
            return default
        return choices[self.value]


def _spelled(mapping: dict[Any, Any], key: str) -> Any:
    if key in mapping:
        return key
    head, *rest = key.split("_")
    camel = head + "".join(word.capitalize() for word in rest)
    return camel if camel in mapping else None

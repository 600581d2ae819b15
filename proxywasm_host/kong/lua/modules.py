"""Finds modules of Lua, in our library and in the folders of plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Modules"]

LIBRARY = Path(__file__).parent / "library"


class Modules:
    """The modules that `require` finds."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)

    def has(self, name: str) -> bool:
        """Whether a module of that name exists."""
        return any(path.is_file() for path in self._places(name.split(".")))

    def find(self, name: str) -> tuple[Any, ...]:
        """A module's source, its name for messages, and whether it is ours; or ``None`` and the reason."""
        parts = name.split(".")
        if not all(parts) or any(character in name for character in "/\\\0"):
            return None, f"module '{name}' not found: this is not the name of a module"
        for path in self._places(parts):
            if path.is_file():
                ours = path.is_relative_to(LIBRARY)
                return path.read_bytes(), str(path.relative_to(LIBRARY) if ours else path), ours
        looked = "".join(f"\n\tno file '{path}'" for path in self._places(parts) if not path.is_relative_to(LIBRARY))
        return None, f"module '{name}' not found: proxywasm_host has none of this name{looked}"

    def _places(self, parts: Sequence[str]) -> Iterator[Path]:
        """Our file first; then ``kong/plugins/NAME``, as in Kong, or ``NAME`` in the folders of plugins."""
        for folder in (LIBRARY, *self._folders):
            inside = [parts]
            if folder is not LIBRARY and tuple(parts[:2]) == ("kong", "plugins") and len(parts) > 2:
                inside.append(parts[2:])
            for names in inside:
                yield folder.joinpath(*names[:-1], f"{names[-1]}.lua")
                yield folder.joinpath(*names, "init.lua")

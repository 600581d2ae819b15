"""Filters as source files; a distribution installed for their suffix packs them into modules.

Such a distribution has an entry point in the group ``proxywasm_host.sources``, like ``py = "package:function"``. The
function takes the path of a file that ends in ``.py`` and returns the bytes of a module. It raises ModuleError, with
file and line, or OSError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxywasm_host.errors import ModuleError

__all__ = ["GROUP", "is_source", "packer", "read_filter"]

GROUP = "proxywasm_host.sources"
KNOWN = {"py": "proxywasm-sdk"}


def is_source(path: str | os.PathLike[str]) -> bool:
    """Whether a file must be packed before it is loaded."""
    return Path(path).suffix[1:] in KNOWN


def packer(path: str | os.PathLike[str]) -> Callable[[Path], bytes]:
    """The function that packs files with this suffix. Raises: ModuleError, if none is installed."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes half of our time to import

    suffix = Path(path).suffix[1:]
    for entry in entry_points(group=GROUP, name=suffix):
        function: Any = entry.load()
        return function  # type: ignore[no-any-return]
    what = f"pip install {KNOWN[suffix]}" if suffix in KNOWN else f"no distribution is known that packs .{suffix} files"
    raise ModuleError(f"{path} must be packed into a module, and nothing is installed for that: {what}")


def read_filter(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read or pack the module of a filter's file; of a module, read at most `most` + 1 bytes. Raises: OSError,
    ModuleError."""
    if is_source(path):
        return packer(path)(Path(path))
    with open(path, "rb") as file:
        return file.read() if most is None else file.read(most + 1)  # a byte too many

"""Loads the optional C extensions of the library and of engines, and holds the version of their common header.

They are released separately. So the capsules that they pass to each other have the version of
``include/proxywasm_host.h`` in their names. A capsule of another version is not used, and calls go through Python.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["NATIVE_ABI", "TURNED_OFF", "build_command", "check_constants", "checksum", "get_include", "load"]

NATIVE_ABI = 1
"""The version in ``include/proxywasm_host.h``."""

TURNED_OFF = "off, because of PROXYWASM_NATIVE"
"""The note of `load` for an extension that the user has turned off."""


def checksum(files: Iterable[Path]) -> int | None:
    """A checksum of the names and contents of files, in any order; ``None`` without files."""
    number = None
    for path in sorted(files, key=lambda path: (path.name, path)):  # paths may be relative or absolute
        number = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), number or 0))
    return number


def fingerprint(sources: Path) -> int | None:
    """The checksum of the C files in a directory and of the headers that they share; ``None`` without C files.

    `build_command` stores it as ``FINGERPRINT`` in the extension built from those files.
    """
    found = [path for path in sources.iterdir() if path.suffix in (".c", ".h")] if sources.is_dir() else []
    return checksum([*found, *Path(get_include()).glob("*.h")]) if found else None


def load(name: str) -> tuple[Any, str]:
    """The extension `name`, or ``None``, and a note that says whether it is in use.

    It is not used with ``PROXYWASM_NATIVE=no``, if its native ABI differs from that of this core, or if it was built
    from sources other than those next to it in ``native/``, as after a change in a checkout.
    """
    if os.environ.get("PROXYWASM_NATIVE", "").lower() in ("no", "0", "off", "false"):
        return None, TURNED_OFF
    try:
        module = import_module(name)
    except ImportError as error:
        return None, "off: it was not built" if error.name == name else f"off: {error}"
    sources = fingerprint(Path(str(module.__file__)).with_name("native"))
    if sources is not None and sources != getattr(module, "FINGERPRINT", None):
        return None, "off: it was built from other sources; install the package again"
    built_for = getattr(module, "NATIVE_ABI", 0)
    if built_for != NATIVE_ABI:
        package = name.partition(".")[0].replace("_", "-")
        return None, (
            f"off: it was built for native ABI {built_for}, and this proxywasm-host has {NATIVE_ABI}: "
            f"install a matching version of {package}"
        )
    return module, "on"


def check_constants(native: Any, /, **constants: int) -> None:
    """Compare constants with those that the C of an extension has copied. Without the extension there are none.

    Raises: ImportError if one differs.
    """
    for name, value in constants.items() if native is not None else ():
        if native.CONSTANTS[name] != value:
            raise ImportError(f"{native.__name__} has {native.CONSTANTS[name]} for {name}, Python has {value}")


def build_command() -> type:
    """setuptools' ``build_ext`` for extensions that `load` loads, ours and those of engines.

    It adds the folder of the core's headers, and the fingerprint of the sources.
    """
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415 - only where something is built

    class Build(build_ext):  # type: ignore[misc]  # mypy does not look into setuptools
        def build_extension(self, ext: Any) -> None:
            ext.include_dirs.append(get_include())
            ext.depends.extend(map(str, Path(get_include()).glob("*.h")))
            ext.define_macros.append(("FINGERPRINT", f"{fingerprint(Path(ext.sources[0]).parent)}u"))
            super().build_extension(ext)

    return Build


def get_include() -> str:
    """The directory of ``proxywasm_host.h``, for engines that are built with a compiler."""
    return str(Path(__file__).parent / "include")


NATIVE, NOTE = load("proxywasm_host._native")
"""The core's own extension, or ``None``, and a note that says whether it is in use."""

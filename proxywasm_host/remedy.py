"""The command that installs a missing part of this project, in the form that works on this machine.

In a checkout, or an installation from one, the command installs from that checkout, because no package index has its
content. Otherwise it names the distribution.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["install_engine"]

NAME = "proxywasm-host"


def install_extra(name: str) -> str:
    """The command that installs an extra of `proxywasm-host`."""
    root, editable = _checkout()
    return _pip(f"{NAME}[{name}]" if root is None else f"{_shown(root, root)}[{name}]", editable=editable)


def install_engine(distribution: str, *more: str, upgrade: bool = False) -> str:
    """The command that installs or upgrades an engine, ours or that of another project.

    `more` are further requirements to install with the engine.
    """
    root, editable = _checkout()
    if root is None:
        return _pip(distribution, *more, upgrade=upgrade)
    folder = root / "engines" / distribution.removeprefix("proxywasm-engine-")
    if not (folder / "pyproject.toml").is_file():
        return _pip(distribution, *more, upgrade=upgrade)
    if (folder / "build").is_file():
        return shlex.join((_shown(folder / "build", root), sys.executable))
    return _pip(_shown(folder, root), *more, upgrade=upgrade, editable=editable)


def install_data_plane() -> str:
    """The command that installs the data plane of ``proxywasm serve``."""
    root, _ = _checkout()
    if root is None or not (root / "dataplane/build").is_file():
        return _pip("proxywasm-dataplane")
    return shlex.join((_shown(root / "dataplane/build", root), sys.executable))


def missing(extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """An error that says which extra to install, made from the error of an import."""
    if (error.name or "").startswith("proxywasm_"):
        return error
    return ModuleNotFoundError(f"{error.name} is not installed: {install_extra(extra)}", name=error.name)


def _pip(what: str, *more: str, upgrade: bool = False, editable: bool = False) -> str:
    """``pip install …``, with the pip of this interpreter."""
    found = shutil.which("pip")
    own = found is not None and Path(found).parent == Path(sys.executable).parent
    pip = ("pip",) if own else (sys.executable or "python", "-m", "pip")
    options = (*(["--upgrade"] if upgrade else []), *(["--editable"] if editable else []))
    return shlex.join((*pip, "install", *options, what, *more))


def _shown(path: Path, root: Path) -> str:
    """A path in a checkout; relative if the current directory is the root of the checkout."""
    if root != _here():
        return str(path)
    return "." if path == root else f"./{path.relative_to(root)}"


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # the directory was removed
        return None


def _checkout() -> tuple[Path | None, bool]:
    """The root of the checkout from which we run or were installed, if any, and whether the installation is
    editable."""
    origin = _origin()
    beside = Path(__file__).resolve().parent.parent
    parts = urlsplit(origin.get("url", ""))
    editable = bool(origin.get("dir_info", {}).get("editable"))
    for root in (beside, Path(unquote(parts.path)) if parts.scheme == "file" else beside):
        with_us = root / "pyproject.toml"
        if with_us.is_file() and f'name = "{NAME}"' in with_us.read_text("utf-8", "replace"):
            return root, editable
    return None, False


def _origin() -> dict[str, Any]:
    """pip's record of the source of this installation (PEP 610)."""
    from importlib.metadata import distributions  # noqa: PLC0415 - takes long to import

    noted = (found.read_text("direct_url.json") for found in distributions(name=NAME))
    origin = json.loads(next(filter(None, noted), "{}"))
    return origin if isinstance(origin, dict) else {}

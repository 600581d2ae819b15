"""The program ``proxywasm``: run, inspect and time filters at the command line. Needs the extra ``cli``.

Nothing is imported from click or rich until `main` has checked that they are installed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from proxywasm_host import remedy

__all__ = ["main"]

NEEDED = ("click", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (those of the process if ``None``). Returns its exit code."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"proxywasm needs {' and '.join(missing)}: {remedy.install_extra('cli')}\n")
        return 2
    from proxywasm_host.cli.app import start  # noqa: PLC0415 - it needs the packages that were just checked

    return start(argv)

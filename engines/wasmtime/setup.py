"""Builds the C extension with the core's header, from this checkout or, without one, from the installed core."""

import sys
from pathlib import Path

from setuptools import setup

CHECKOUT = Path(__file__).resolve().parent.parent.parent

if (CHECKOUT / "proxywasm_host").is_dir():
    sys.path.insert(0, str(CHECKOUT))
try:
    from proxywasm_host.extension import build_command
except ImportError:
    setup(setup_requires=["proxywasm-host>=0.1,<0.2"])  # pip installs the core, and runs this file again
else:
    setup(cmdclass={"build_ext": build_command()})

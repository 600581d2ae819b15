"""Builds the C extension with the command that engines use too (proxywasm_host/extension.py)."""

import importlib.util
from pathlib import Path

from setuptools import setup

spec = importlib.util.spec_from_file_location("extension", Path(__file__).parent / "proxywasm_host" / "extension.py")
extension = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extension)

setup(cmdclass={"build_ext": extension.build_command()})

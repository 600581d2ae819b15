"""Builds C extensions with a fingerprint of their sources (proxywasm_host/extension.py).

The engines' extensions are built by this file too, in their own directories.
"""

import importlib.util
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

spec = importlib.util.spec_from_file_location("extension", Path(__file__).parent / "proxywasm_host" / "extension.py")
extension = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extension)


class Build(build_ext):
    def build_extension(self, ext):
        ext.define_macros.append(("FINGERPRINT", f"{extension.fingerprint(Path(ext.sources[0]).parent)}u"))
        super().build_extension(ext)


setup(cmdclass={"build_ext": Build})

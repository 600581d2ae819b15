"""The routes of Wasmtime that there are here."""

from __future__ import annotations

import pytest

from proxywasm_host.extension import load

NATIVE, NOTE = load("proxywasm_engine_wasmtime._native")
ROUTES = [*(["native"] if NATIVE else []), "ctypes", "objects"]

needs_native = pytest.mark.skipif(NATIVE is None, reason=f"the C extension is {NOTE}")

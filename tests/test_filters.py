"""Our filters: between them they make every hostcall and have every callback, in each version of the ABI."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.table import callbacks_of, hostcalls_of
from proxywasm_host.abi.types import AbiVersion
from tests.support import FILTERS, code

OF_COMPILERS = {"emscripten_notify_memory_growth", "pthread_equal"}
NEVER_CALLED = {"proxy_validate_configuration"}
"""In Envoy's headers and in no specification; no host calls it."""


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_the_probe_has_all_of_a_version(version):
    probe = Bytecode(code(f"c/probe_{version.name[1:]}"))
    assert probe.abi_version == version
    imports = {name for module, name, _, _ in probe.imports if module == "env"}
    exports = {name for name, kind, _ in probe.exports if kind == "function"}
    assert imports == set(hostcalls_of(version)) - OF_COMPILERS
    assert set(callbacks_of(version)) - NEVER_CALLED <= exports


def test_real_sdks_of_each_version():
    versions = {path.parent.name: set() for path in FILTERS.glob("*/*.wasm")}
    for path in FILTERS.glob("*/*.wasm"):
        versions[path.parent.name].add(str(Bytecode(path.read_bytes()).abi_version))
    assert versions == {
        "assemblyscript": {"0.1.0", "0.2.0", "0.2.1"},
        "c": {"0.1.0", "0.2.0", "0.2.1", "0.2.100"},
        "go": {"0.2.0"},
        "rust": {"0.2.1"},
    }


def test_the_binaries_are_below_15_megabytes():
    assert sum(path.stat().st_size for path in FILTERS.glob("*/*.wasm")) < 15e6

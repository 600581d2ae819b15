"""A sub-interpreter, as mod_wsgi makes them, is refused in words, and leaves the main interpreter as it was."""

from __future__ import annotations

import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

import pytest

from tests.conftest import ENGINES

PROGRAM = r"""
import os, sys
from importlib import import_module
try:
    interpreters = import_module("_interpreters")  # since CPython 3.13
except ImportError:
    interpreters = import_module("_xxsubinterpreters")
from proxywasm_host import Host
from proxywasm_host.testing import Message, exchange
from proxywasm_host.abi.native import NOTE

def answer():
    with Host(sys.argv[1]) as host:
        auth = host.load_plugin("tests/filters/rust/auth.wasm", configuration="secret")
        return exchange(host, [auth], Message.request("GET", "http://a/")).client_response.status

print(answer())
read, write = os.pipe()
script = f'''
import os, sys
sys.path[:] = {sys.path!r}
from proxywasm_host import EngineUnavailable, Host
from proxywasm_host.abi.marshal import Calls
from proxywasm_host.abi.table import HOSTCALLS
from proxywasm_host.abi.native import NOTE
try:
    Host({sys.argv[1]!r})
    told = "no refusal"
except EngineUnavailable as error:
    told = str(error)
calls = Calls(2)
calls.append((HOSTCALLS[0], (), 0))
os.write({write}, f"{{NOTE}}\\n{{told}}\\n{{[call[1:] for call in calls]}}".encode())
'''
made = interpreters.create()
problem = interpreters.run_string(made, script)
os.close(write)
print(os.read(read, 10_000).decode() or problem)
interpreters.destroy(made)
print(answer())
print(NOTE)
"""


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_sub_interpreter(engine_name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", cleandoc(PROGRAM), engine_name],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    before, native, told, calls, after, note = done.stdout.splitlines() or [done.stderr]
    assert (before, after, done.returncode, done.stderr) == ("401", "401", 0, "")
    assert told == (
        f"engine '{engine_name}' is not usable in a sub-interpreter: "
        "run this in the main interpreter (WSGIApplicationGroup %{GLOBAL} in mod_wsgi)"
    )
    assert calls == "[((), 0)]"
    if note == "on":
        assert native.startswith("off: ")
        assert "interpreter" in native

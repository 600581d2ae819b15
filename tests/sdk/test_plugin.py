"""The fixture `proxywasm` of the plugin for pytest, with a filter in Python: packed, and under CPython."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

# Known before a run of pytest within this process, which forgets what it has imported.
import proxywasm_host.testing.coverage
import proxywasm_host.testing.harness
import proxywasm_host.testing.plugin  # noqa: F401

DOCS = Path(__file__).parent.parent.parent / "docs" / "python-filters.md"
pytest_plugins = "pytester"
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))

FILTER = """
import sys
from proxywasm import HttpFilter, Response, log, register

class Token(HttpFilter):
    def on_request_headers(self, request):
        if request.headers.get("authorization") != self.config["token"]:
            return Response(401, body="no token\\n")
        log.info("%s", SAYS)

register(Token)
"""
TESTS = """
def test_a_token_is_wanted(proxywasm):
    f = proxywasm("token.py", {"token": "t"})
    assert f.get("/").status == 401
    assert f.get("/", {"authorization": "t"}).upstream.path == "/"
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """A function: what pytest says of these files, on CPython and Wasmtime."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(pytester.path)

    def run(**files):
        for name, content in files.items():
            (pytester.path / f"{name}.py").write_text(content)
        options = ("-p", "no:cacheprovider", "-W", "error", "-p", "proxywasm_host.testing.plugin")
        return pytester.runpytest_inprocess(*options, "--proxywasm-engine", "cpython,wasmtime")

    return run


def test_one_test_drives_the_script_both_ways(run):
    done = run(token=FILTER.replace("SAYS", "'welcome'"), test_token=TESTS)
    done.assert_outcomes(passed=2)


def test_what_differs_is_told(run):
    done = run(token=FILTER.replace("SAYS", "sys.implementation.name"), test_token=TESTS)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*the filter acts differently on wasmtime than on cpython*", "*-*cpython*", "*+*micropython*"])


LIMITED = """
from proxywasm_host.testing import FAIL, fake_redis

def test_limited(proxywasm):
    f = proxywasm("limit.py", {"password": "p", "limit": 2})
    f.redis["cache"] = fake_redis(f.clock)
    assert [f.get("/").status for _ in range(3)] == [200, 200, 429]
    f.clock.advance(60)
    assert f.get("/").status == 200
    f.redis["cache"] = FAIL
    assert f.get("/").status == 200
"""


def test_the_programs_of_the_docs(run):
    programs = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    with_fixture, alone = (program for program in programs if "def test_" in program)
    [limit] = (program for program in programs if "proxywasm.redis" in program)
    done = run(filter=programs[0], test_fixture=with_fixture, test_alone=alone, limit=limit, test_limit=LIMITED)
    done.assert_outcomes(passed=5)

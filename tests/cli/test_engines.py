"""``proxywasm engines``."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Capabilities
from proxywasm_host.engine.registry import EngineStatus

ENGINES = [
    EngineStatus("fast", "fast-engine", True, True, 300, "1.2", note="in C", capabilities=Capabilities(deadline=True)),
    EngineStatus("plain", "plain-engine", True, True, 100, "3"),
    EngineStatus(
        "v8", "proxywasm-engine-v8", False, False, 200, reason="known but not installed", remedy="pip install x"
    ),
    EngineStatus("odd", "", True, False, 0, reason="installed but not usable (no library)"),
]


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr("proxywasm_host.cli.engines.list_engines", lambda: ENGINES)


@pytest.mark.usefixtures("three")
def test_as_people_read_it(command, monkeypatch):
    monkeypatch.setattr("proxywasm_host.cli.engines.NOTE", "off: it was not built")
    result = command("engines")
    assert (result.code, result.err) == (0, "")
    assert (
        result.out
        == """\
fast 1.2  usable
  can       deadline
  note      in C
plain 3  usable
  can       no optional capabilities
v8  not usable: known but not installed
  remedy    pip install x
odd  not usable: installed but not usable (no library)
native code  off: it was not built
"""
    )


@pytest.mark.usefixtures("three")
def test_as_json(command):
    fast, *_, odd = command("engines", "--json").json
    assert fast == {
        "name": "fast",
        "distribution": "fast-engine",
        "installed": True,
        "usable": True,
        "priority": 300,
        "version": "1.2",
        "reason": "",
        "remedy": "",
        "note": "in C",
        "capabilities": ["deadline"],
    }
    assert (odd["usable"], odd["reason"]) == (False, "installed but not usable (no library)")


def test_the_real_ones(command, engine):
    [found] = [item for item in command("engines", "--json").json if item["name"] == engine.name]
    assert (found["usable"], found["version"]) == (True, engine.version)


def test_what_is_limited_and_how(command, engine):
    [found] = [item for item in command("engines", "--json").json if item["name"] == engine.name]
    assert found["limits"] == engine.limits
    assert all(word in found["limits"] for word in ("compiled", "memory and tables", "deadline"))
    assert "  limits    " in command("engines").out

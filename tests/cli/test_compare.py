"""``run --engine all``: real filters do the same on every engine, and what differs is shown."""

from __future__ import annotations

import json

import pytest

from proxywasm_host.cli import compare
from tests.support import FILTERS

PATHS = sorted(f"{path.parent.name}/{path.stem}" for path in FILTERS.glob("*/*.wasm"))
CONFIGURATIONS = {
    "rust/auth": "secret", "rust/grpc": "c,demo.S,Get,hi", "rust/tcp": None, "go/rate_limiting": '{"hour": 3}'
}  # fmt: skip


@pytest.mark.several_engines
@pytest.mark.parametrize("name", [name for name in PATHS if CONFIGURATIONS.get(name, "") is not None])
def test_each_filter_does_the_same_on_every_engine(command, name):
    result = command(
        "run", str(FILTERS / f"{name}.wasm"), "POST", "/x", "-d", '{"a": 1}', "-H", "user-agent: me", "--trace",
        "--config", CONFIGURATIONS.get(name, ""), "--response-body", "foo and bar", "--engine", "all",
        "--unknown-imports", "stub",
    )  # fmt: skip
    assert (result.out.splitlines()[-1], result.code) == ("All agree.", 0)


@pytest.mark.several_engines
def test_a_trap_is_the_same_too(command):
    result = command("run", str(FILTERS / "rust/panics.wasm"), "/x", "--config", "request_headers", "--engine", "all")
    assert (result.out.splitlines()[-1], result.code) == ("All agree.", 5)


@pytest.mark.several_engines
def test_json(command):
    result = command("run", str(FILTERS / "c/minimal.wasm"), "/x", "--engine", "all", "--json")
    answer = json.loads(result.out)
    assert answer["agree"] is True
    assert len({json.dumps(one) for one in answer["results"].values()}) == 1


def test_what_differs_is_shown(command, monkeypatch):
    """The second engine is the first under another name, and its clock is another."""
    original = compare.on_all_engines

    def with_a_twin(perform, level):
        [first, *_] = original(perform, level)
        return [first, compare.replace(first, engine="twin", lines=[*first.lines[:-1], "something else"])]

    monkeypatch.setattr("proxywasm_host.cli.run.on_all_engines", with_a_twin)
    result = command("run", str(FILTERS / "c/minimal.wasm"), "/x", "--engine", "all")
    assert result.code == 1
    assert "+something else" in result.out.splitlines()


def test_one_engine_is_not_said_to_agree(command, monkeypatch):
    [first, *_] = [status for status in compare.list_engines() if status.usable]
    monkeypatch.setattr(compare, "list_engines", lambda: [first])
    arguments = "run", str(FILTERS / "c/minimal.wasm"), "/x", "--engine", "all"
    told = f"error: engine 'all' is usable only as {first.name}: there is nothing to compare: proxywasm engines says how"
    result = command(*arguments)
    assert (result.code, result.complaint.startswith(told)) == (4, True)
    [line] = result.lines
    assert line.startswith(f"{first.name}: ")
    result = command(*arguments, "--json")
    assert (result.code, result.json["agree"], list(result.json["results"])) == (4, None, [first.name])


def test_no_engine_at_all(command, monkeypatch):
    monkeypatch.setattr(compare, "list_engines", list)
    result = command("run", str(FILTERS / "c/minimal.wasm"), "/x", "--engine", "all")
    assert (result.code, "no engine is usable here" in result.complaint) == (4, True)

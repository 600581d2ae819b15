"""An option of a filter is one field of `FilterConfig`: the other forms of options are made from it, or name it with the
reason why they do not have it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from proxywasm_host import FailurePolicy, FilterConfig, Limits
from proxywasm_host.cli.run import command as run
from proxywasm_host.recording.conversion import NOT_IN_TESTS
from proxywasm_host.recording.file_format import NOT_RECORDED, RECORDED, _filter, _filter_of
from proxywasm_host.runtime import filter_config
from proxywasm_host.serve.config import Filter

FIELDS = {field.name for field in fields(FilterConfig)}
NOT_IN_FILES = {
    "code": "it is called file",
    "profile": "one for all filters",
    "module_limits": "one for all filters",
    "hostcalls": "a function of Python has no form in a file",
}
NOT_ON_THE_COMMAND_LINE = {
    "code": "an argument",
    "configuration": "--config, or --filter-config",
    "vm_configuration": "--vm-config",
    "environment": "--env, for all filters",
    "capabilities": "in a file",
    "match": "in a file",
    "limits": "--memory-limit and --deadline, for all filters",
    "module_limits": "in a program",
}
IN_RECORDINGS = {
    "configuration": b"\xff",
    "vm_configuration": b"vm",
    "environment": {"A": "b"},
    "capabilities": ["proxy_log"],
    "failure_policy": FailurePolicy.FAIL_OPEN,
    "limits": Limits(memory=1 << 20, deadline=2.0),
}


def another(name):
    """A value that is not the default."""
    option = filter_config.OPTIONS[name]
    return IN_RECORDINGS[name] if name in IN_RECORDINGS else option.values[-1] if option.values else {str: "x", bool: True}[option.kind]


def test_all_are_described():
    assert set(filter_config.OPTIONS) == FIELDS
    assert [name for name, option in filter_config.OPTIONS.items() if not option.about.endswith(".")] == []


def test_the_configuration_of_serve():
    assert set(Filter.model_fields) >= FIELDS - set(NOT_IN_FILES)
    assert set(NOT_IN_FILES) <= FIELDS - set(Filter.model_fields)


def test_the_command_line():
    shown = {parameter.name for parameter in run.params}
    assert shown >= FIELDS - set(NOT_ON_THE_COMMAND_LINE)
    assert set(NOT_ON_THE_COMMAND_LINE) <= FIELDS - shown


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording(name):
    plain = FilterConfig("a.wasm", failure_policy=FailurePolicy.FAIL_CLOSED)
    config = replace(plain, **{name: another(name)})
    assert getattr(config, name) != getattr(plain, name)
    read = _filter_of("a.wasm", json.loads(json.dumps(_filter(config))))
    assert getattr(read, name) == getattr(config, name)


def test_what_a_recording_does_not_have():
    assert set(RECORDED) | set(NOT_RECORDED) == FIELDS
    assert not set(RECORDED) & set(NOT_RECORDED)
    assert set(NOT_IN_TESTS) <= set(RECORDED)


PLACE = "    root_id: str = option("
NEW = """
    owner: str = option("The team that `maintains` it. It is told.", "")
    colour: Literal["red", "blue"] = option("Its colour.", "red")
    audited: bool = option("Whether it is audited.", False)
"""
USE = """
import importlib.util, json, sys
import proxywasm_host.runtime
spec = importlib.util.spec_from_file_location("proxywasm_host.runtime.filter_config", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = proxywasm_host.runtime.filter_config = module
spec.loader.exec_module(module)

from proxywasm_host.cli import run, serve
from proxywasm_host.cli.options import CommandLine
from proxywasm_host.recording.conversion import _filters
from proxywasm_host.recording.file_format import _filter, _filter_of
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.filters import filters_of

def told(filter):
    return filter.owner, filter.colour, filter.audited

for wrong in ({"owner": 3}, {"colour": "green"}):
    try:
        module.FilterConfig("a.wasm", **wrong)
    except (TypeError, ValueError) as error:
        print(error)

file = sys.argv[2]
written = {"file": file, "owner": "us", "colour": "blue", "audited": True}
[filter] = filters_of(Settings.model_validate({"upstream": "http://127.0.0.1:1", "filters": [written]}))
print(told(filter))
schema = Settings.model_json_schema()["$defs"]["Filter"]["anyOf"][0]["properties"]
print(schema["owner"]["description"], schema["colour"]["enum"], schema["audited"]["type"])

line = ["--owner", "us", "--colour", "blue", "--audited"]
[filter] = CommandLine.of([file, "/x"], run.command.make_context("run", [file, "/x", *line]).params).chain
print(told(filter))
context = serve.command.make_context("serve", [file, "--upstream", "http://127.0.0.1:1", *line])
[filter] = filters_of(Settings.model_validate(serve.overrides((file,), context.params)))
print(told(filter))
[helped] = [each.help for each in run.command.params if each.name == "owner"]
print(helped)

print(told(_filter_of(file, json.loads(json.dumps(_filter(filter))))))
print(_filters([module.FilterConfig("a.wasm", owner="us")]))
"""


def test_a_new_option_is_one_field(tmp_path):
    """In a copy of the module, the only thing that is changed."""
    source = Path(filter_config.__file__).read_text()
    assert source.count(PLACE) == 1
    changed = tmp_path / "filter_config.py"
    changed.write_text(source.replace(PLACE, NEW + PLACE))
    filter = Path(__file__).parent / "filters/rust/headers.wasm"
    command = [sys.executable, "-c", USE, changed, filter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "an owner is text, not 3",
            "colour is 'red' or 'blue', not 'green'",
            "('us', 'blue', True)",
            "The team that `maintains` it. It is told. ['red', 'blue'] boolean",
            "('us', 'blue', True)",
            "('us', 'blue', True)",
            "The team that maintains it.",
            "('us', 'blue', True)",
            "'a.wasm', owner='us'",
        ],
        "",
    )

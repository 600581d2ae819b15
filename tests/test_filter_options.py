"""An option of a filter is one field of `FilterConfig`. Wherever options are written, each field is there, or is named
here with the reason."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from proxywasm_host import FailurePolicy, FilterConfig, Limits
from proxywasm_host.cli.run import command as run
from proxywasm_host.recording.file_format import NOT_RECORDED, RECORDED, _filter, _filter_of
from proxywasm_host.serve.config import Filter

FIELDS = {field.name for field in fields(FilterConfig)}
OTHER_NAMES = {
    "code": "file",
    "configuration": "config",
    "vm_configuration": "vm_config",
    "environment": "env",
    "limits": "memory_limit",
}
"""What the command line calls them; files call the module `file`, too."""
NOT_IN_SERVE = {
    "profile": "one for all filters",
    "module_limits": "one for all filters",
    "hostcalls": "a function of Python has no form in a file",
}
NOT_ON_THE_COMMAND_LINE = {
    "capabilities": "in a file",
    "isolation": "in a file",
    "match": "a command runs one request through all of its filters",
    "module_limits": "in a program",
    "reload_interval": "a command runs one request",
}
OPTIONS = {
    "name": "n",
    "configuration": b"\xff",
    "root_id": "r",
    "vm_id": "v",
    "vm_configuration": b"vm",
    "environment": {"A": "b"},
    "capabilities": ["proxy_log"],
    "failure_policy": FailurePolicy.FAIL_OPEN,
    "allow_on_headers_stop_iteration": True,
    "isolation": "stream",
    "unknown_imports": "stub",
    "limits": Limits(memory=1 << 20, deadline=2.0),
}


def test_the_configuration_of_serve():
    named = {"file" if name == "code" else name for name in FIELDS - set(NOT_IN_SERVE)}
    assert named <= set(Filter.model_fields)
    assert not set(NOT_IN_SERVE) & set(Filter.model_fields)


def test_the_command_line():
    shown = {parameter.name for parameter in run.params}
    wanted = {OTHER_NAMES.get(name, name) for name in FIELDS - set(NOT_ON_THE_COMMAND_LINE)}
    assert wanted - {"file"} <= shown
    assert not set(NOT_ON_THE_COMMAND_LINE) & shown


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording(name):
    plain = FilterConfig("a.wasm", failure_policy=FailurePolicy.FAIL_CLOSED)
    config = replace(plain, **{name: OPTIONS[name]})
    assert getattr(config, name) != getattr(plain, name)
    read = _filter_of("a.wasm", json.loads(json.dumps(_filter(config))))
    assert getattr(read, name) == getattr(config, name)


def test_what_a_recording_does_not_have():
    assert set(RECORDED) | set(NOT_RECORDED) == FIELDS
    assert not set(RECORDED) & set(NOT_RECORDED)

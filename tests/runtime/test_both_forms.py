"""What is in C and in Python is the same to whoever looks; and of whole lives of streams the same comes out."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections import deque

import pytest

from proxywasm_host.abi import context, marshal
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.integrations import exchange_base
from proxywasm_host.runtime import fast_path, outbox, vm_base
from tests.runtime import transcript

LIVES = 120
FORMS = {
    name.removeprefix("Python"): form
    for module in (context, marshal, fast_path, outbox, vm_base, exchange_base)
    for name, form in vars(module).items()
    if name.startswith("Python")
}
"""The classes that there are twice, in Python."""
INSIDE = {"grown", "put", "put_at", "put_bytes", "put_strings", "restrict", "gather"}
"""Methods of a `Guest` that the functions call which `abi/marshal.py` compiles; with the extension, nothing does."""

pytestmark = pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")


def methods(kind: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("__") and name not in INSIDE and inspect.isroutine(value)
    }


def parameters(method: object) -> list[tuple[str, object, bool]]:
    """Name, kind, and whether it may be left out; but for `self`."""
    return [(p.name, p.kind, p.default is not p.empty) for p in list(inspect.signature(method).parameters.values())[1:]]


@pytest.mark.parametrize("name", FORMS)
def test_methods_are_called_and_described_the_same(name):
    native, python = methods(getattr(NATIVE, name)), methods(FORMS[name])
    python = {method: function for method, function in python.items() if method[0] != "_" or method in native}
    assert sorted(native) == sorted(python)
    for method, function in python.items():
        assert parameters(native[method]) == parameters(function), method
        assert native[method].__doc__ == inspect.cleandoc(function.__doc__), method


@pytest.mark.parametrize("name", FORMS)
def test_properties_are_described_the_same(name):
    """Those that are public. The texts of Python's plain attributes are in its source alone."""
    native = getattr(NATIVE, name)
    public = {key: value for key, value in vars(native).items() if key[0] != "_" and inspect.isdatadescriptor(value)}
    for key, value in vars(FORMS[name]).items():
        if isinstance(value, property) and key in public:
            assert public[key].__doc__ == inspect.cleandoc(value.__doc__), key
            del public[key]
    if name in {"ContextState", "ExchangeBase", "HostBase", "HttpStreamBase", "PluginBase"}:  # bases of public classes
        assert public
        assert [key for key, value in public.items() if not value.__doc__] == []


@pytest.mark.parametrize("name", FORMS)
def test_a_class_is_described_the_same(name):
    assert getattr(NATIVE, name).__doc__ == inspect.cleandoc(FORMS[name].__doc__)


@pytest.mark.parametrize("native", ["yes", "no"])
def test_what_embedders_see_is_the_same(native):
    """What can be read, what can be written, and how an effect is noted."""
    program = """
    from proxywasm_host import Host
    with Host("wasmtime") as host, host.http_stream([]) as stream:
        for owner, name in ((host, "services"), (host, "_outbox"), (stream, "host"), (stream, "header_limits"),
                            (stream, "properties"), (stream, "buffer_limit"), (stream, "details")):
            try:
                setattr(owner, name, getattr(owner, name))
            except AttributeError:
                print(f"{name} can be read")
            else:
                print(f"{name} can be written")
        host._emit(effect="an effect")
        for arguments in ((), ("one", "two"), ("one",)):
            try:
                host._emit(*arguments, **({"effect": "again"} if arguments == ("one",) else {}))
            except TypeError:
                print("TypeError")
        print(host.drain())
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(program)],
        env={**os.environ, "PROXYWASM_NATIVE": native},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "services can be written",
            "_outbox can be read",
            "host can be read",
            "header_limits can be read",
            "properties can be written",
            "buffer_limit can be written",
            "details can be written",
            "TypeError",
            "TypeError",
            "TypeError",
            "['an effect']",
        ],
        "",
    )


def test_the_same_comes_of_the_same_events():
    """To see more of them: ``python -m tests.runtime.transcript FIRST LAST``, and ``PROXYWASM_NATIVE=no`` before that."""
    command = [sys.executable, transcript.__file__, "0", str(LIVES)]
    # The same packages as here, also if those with sanitizers go before the checkout.
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(command, env={**here, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for env in ({}, {"PROXYWASM_NATIVE": "no"})
    ]
    (native, errors), (python, others) = (run.communicate() for run in runs)
    assert (errors, others) == ("", "")
    told, expected = native.splitlines(), python.splitlines()
    for at, (line, wanted) in enumerate(zip(told, expected, strict=False)):
        assert line == wanted, "\n".join(["after", *expected[max(at - 20, 0) : at]])
    assert len(told) == len(expected) > 50 * LIVES


@pytest.mark.parametrize("form", ["VmBase", "PythonVmBase"])
def test_numbers_of_contexts_begin_anew_at_1_and_leave_out_those_that_live(form):
    vm = getattr(vm_base, form)(object(), deque())
    vm.next_context = 0xFFFF_FFFF
    vm.contexts[2] = object()
    assert [vm.new_context_id() for _ in range(3)] == [0xFFFF_FFFF, 1, 3]

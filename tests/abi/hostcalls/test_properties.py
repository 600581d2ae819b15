"""Properties: what a path finds, and in which form. ``[1]`` is a refusal with status 1."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.properties import proxy_get_property, proxy_set_property
from tests.abi.fakes import FakeVm, answer

PROPERTIES = {
    ("plugin_name",): "mine",
    ("request", "headers", "x-foo"): b"\xff",
    ("response", "code"): 200,
    ("connection", "mtls"): False,
    ("metadata",): None,
    ("filter_state",): object(),
    ("\udcff",): "odd",
}

GET = [
    (b"plugin_name", b"mine"),
    (b"plugin_name\0", b"mine"),
    (b"request\0headers\0x-foo", b"\xff"),
    (b"response\0code", b"\xc8" + bytes(7)),
    (b"connection\0mtls", b"\0"),
    (b"metadata", b""),
    (b"\xff", b"odd"),
    (b"filter_state", [3]),
    (b"no\0such", [1]),
    (b"", [1]),
    (b"\0plugin_name", [1]),
    (b"plugin_name\0\0", [1]),
]


@pytest.mark.parametrize(("path", "value"), GET, ids=[repr(path) for path, _ in GET])
def test_get(path, value):
    vm = FakeVm()
    vm.stream.properties = PROPERTIES
    assert answer(proxy_get_property(vm, path)) == value


def test_properties_are_the_effective_contexts():
    vm = FakeVm()
    vm.root.properties = {("a",): b"root"}
    assert answer(proxy_get_property(vm, b"a")) == [1]
    vm.context = vm.root
    assert proxy_get_property(vm, b"a") == b"root"


def test_reasons():
    vm = FakeVm()
    vm.stream.properties = {("a", "b"): 1 << 64}
    assert proxy_get_property(vm, b"no\0such").reason == "no property no.such"
    assert proxy_get_property(vm, b"a\0b").reason == "property a.b: 18446744073709551616 needs more than 64 bits"
    assert proxy_get_property(vm, b"{0}").reason == "no property {0}"


@pytest.mark.parametrize(("path", "name"), [(b"a", "a"), (b"a\0b\0", "a\0b\0"), (b"\xff", "\udcff"), (b"", "")])
def test_set(path, name):
    vm = FakeVm()
    assert proxy_set_property(vm, path, b"\xff") is None
    assert vm.stream.stored == {name: b"\xff"}

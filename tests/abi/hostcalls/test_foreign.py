"""Foreign functions, and Higress's hostcalls. ``[1]`` is a refusal with status 1."""

from __future__ import annotations

import zlib

import pytest

from proxywasm_host.abi.hostcalls.foreign import (
    proxy_call_foreign_function,
    proxy_get_upstream_hosts,
    proxy_inject_encoded_data_to_filter_chain,
    proxy_set_upstream_override_host,
)
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.protobuf import field
from proxywasm_host.services import ForeignCallFailed, QuotaExceeded
from tests.abi.fakes import FakeVm, answer


def fails(arguments):
    raise ForeignCallFailed(4, "cannot read {that}")


def raises(arguments):
    raise ZeroDivisionError("division by zero")


def calls(**functions) -> FakeVm:
    return FakeVm(
        foreign_functions={"reverse": lambda arguments: arguments[::-1], "fails": fails, "raises": raises, **functions}
    )


CALLS = {
    # name, arguments → result or status, reason
    "of the embedder": (b"reverse", b"abc", b"cba", None),
    "with nothing": (b"reverse", b"", b"", None),
    "unknown": (b"no_such", b"", [1], "this host has no foreign function 'no_such'"),
    "nameless": (b"", b"", [1], "this host has no foreign function ''"),
    "no UTF-8": (b"\xff", b"", [1], "this host has no foreign function '\ufffd'"),
    "that fails": (b"fails", b"", [4], "cannot read {that}"),
    "that raises": (b"raises", b"", [10], "foreign function 'raises' raised ZeroDivisionError('division by zero')"),
    "that returns nothing": (b"nothing", b"", [10], "foreign function 'nothing' returned NoneType, not bytes"),
    "that returns text": (b"text", b"", [10], "foreign function 'text' returned str, not bytes"),
}


@pytest.mark.parametrize(("name", "arguments", "result", "reason"), CALLS.values(), ids=CALLS)
def test_call(name, arguments, result, reason):
    vm = calls(nothing=lambda _: None, text=lambda _: "text")
    found = proxy_call_foreign_function(vm, name, arguments)
    assert answer(found) == result
    assert getattr(found, "reason", None) == reason


def test_the_built_in_ones():
    vm = FakeVm()
    compressed = proxy_call_foreign_function(vm, b"compress", b"abc")
    assert zlib.decompress(compressed) == b"abc"
    assert proxy_call_foreign_function(vm, b"uncompress", compressed) == b"abc"
    assert answer(proxy_call_foreign_function(vm, b"uncompress", b"abc")) == [3]


# -- Those that act on the context -------------------------------------------------------------------------------

INJECT = b"inject_encoded_data_to_filter_chain_on_header"

OF_HOST = {
    # name, arguments → result, what the stream was told
    "route": (b"clear_route_cache", b"", b"", [("clear route cache",)]),
    "log level": (b"get_log_level", b"", b"\3\0\0\0", []),
    "number of requests": (b"set_global_max_requests_per_io_cycle", b"\x08\x05", b"", []),
    "inject": (INJECT, b"\x0a\3abc\x10\1", b"", [("inject", b"abc", True)]),
    "inject, and the stream goes on": (INJECT, b"\x0a\3abc", b"", [("inject", b"abc", False)]),
    "inject nothing": (INJECT, b"", b"", [("inject", b"", False)]),
    "inject what is not a message": (INJECT, b"\x0a\4abc", [4], []),
    "inject half a message": (INJECT, b"\x08", [4], []),
    "inject a number": (INJECT, b"\x08\1", [4], []),
}


@pytest.mark.parametrize(("name", "arguments", "result", "told"), OF_HOST.values(), ids=OF_HOST)
def test_of_the_host(name, arguments, result, told):
    vm = calls()
    vm.services.log.level = 3
    assert answer(proxy_call_foreign_function(vm, name, arguments)) == result
    assert vm.stream.started == told


def test_they_cannot_be_replaced():
    vm = calls(get_log_level=raises)
    assert proxy_call_foreign_function(vm, b"get_log_level", b"") == bytes(4)


def test_what_the_context_refuses_is_refused():
    vm = calls()
    vm.stream.answer = Refusal(2, "no response")
    assert proxy_call_foreign_function(vm, INJECT, b"") is vm.stream.answer


# -- Higress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end_stream", "ends"), [(0, False), (1, True), (7, True)])
def test_inject(end_stream, ends):
    vm = FakeVm()
    assert proxy_inject_encoded_data_to_filter_chain(vm, b"abc", end_stream) is None
    assert vm.stream.started == [("inject", b"abc", ends)]


def test_override_host():
    vm = FakeVm()
    assert proxy_set_upstream_override_host(vm, b"10.0.0.1:80") is None
    assert vm.stream.started == [("upstream", b"10.0.0.1:80")]


def test_upstream_hosts():
    assert proxy_get_upstream_hosts(FakeVm()) == []
    vm = FakeVm(upstream_hosts=lambda: {"10.0.0.1:80": '{"health_status":"Healthy"}', "é": ""})
    assert proxy_get_upstream_hosts(vm) == [
        (b"10.0.0.1:80", b'{"health_status":"Healthy"}'),
        ("é".encode(), b""),
    ]


def test_what_is_declared_is_bounded():
    vm = FakeVm()
    names = [bytes([letter]) * 100_000 for letter in b"abcdefghijklm"]
    for name in names[:10]:
        assert proxy_call_foreign_function(vm, b"declare_property", field(1, name)) == b""
    for name in names[10:]:
        with pytest.raises(QuotaExceeded):
            proxy_call_foreign_function(vm, b"declare_property", field(1, name))


@pytest.mark.parametrize(
    ("function", "arguments", "status"),
    [
        (b"declare_property", field(1, 5), 2),
        (b"set_envoy_filter_state", field(1, "envoy.network.ip") + field(2, "192.0.2"), 2),
        (b"set_envoy_filter_state", field(1, "envoy.upstream.dynamic_port") + field(2, "65536"), 2),
        (b"set_envoy_filter_state", field(1, "envoy.ratelimit.hits_addend") + field(2, "9" * 20), 2),
        (b"set_envoy_filter_state", field(1, "envoy.string") + field(2, "x"), 1),
    ],
)
def test_what_cannot_be_declared_or_set(function, arguments, status):
    """The last one: a context that is no stream has no filter state."""
    assert answer(proxy_call_foreign_function(FakeVm(), function, arguments)) == [status]

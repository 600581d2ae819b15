"""What a filter does to its stream, and which context it acts for. ``[2]`` is a refusal with status 2."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.streams import (
    proxy_clear_route_cache,
    proxy_close_stream,
    proxy_continue_request,
    proxy_continue_response,
    proxy_continue_stream,
    proxy_done,
    proxy_send_local_response,
    proxy_set_effective_context,
)
from proxywasm_host.abi.marshal import Refusal
from tests.abi.fakes import FakeVm, answer

STARTED = [
    # call → what the stream was told, answer
    ((proxy_continue_stream, 0), [("continue", 0)], None),
    ((proxy_continue_stream, 1), [("continue", 1)], None),
    ((proxy_continue_stream, 2), [("continue", 2)], None),
    ((proxy_continue_stream, 3), [], [12]),
    ((proxy_close_stream, 0), [("close", 0)], None),
    ((proxy_close_stream, 3), [("close", 3)], None),
    ((proxy_continue_request,), [("continue", 0)], None),
    ((proxy_continue_response,), [("continue", 1)], None),
    ((proxy_clear_route_cache,), [("clear route cache",)], None),
    ((proxy_done,), [("done",)], None),
]


@pytest.mark.parametrize(("call", "started", "expected"), STARTED, ids=[f"{function.__name__} {values}" for (function, *values), _, _ in STARTED])
def test_started(call, started, expected):
    vm = FakeVm()
    hostcall, *args = call
    assert answer(hostcall(vm, *args)) == expected
    assert (vm.stream.started, vm.root.started) == (started, [])


@pytest.mark.parametrize("hostcall", [proxy_continue_request, proxy_continue_response, proxy_done])
def test_what_the_context_refuses_is_refused(hostcall):
    vm = FakeVm()
    vm.stream.answer = Refusal(1, "not now")
    assert hostcall(vm) is vm.stream.answer


@pytest.mark.parametrize(
    ("given", "meant"), [(0, 0), (7, 7), (16, 16), (17, None), (-1, None), (99, None), (-0x80000000, None)]
)
def test_local_response(given, meant):
    vm = FakeVm()
    headers = [(b"a", b"1")]
    assert proxy_send_local_response(vm, 403, b"my details", b"nope", headers, given) is None
    assert vm.stream.started == [("local response", 403, b"my details", b"nope", headers, meant)]


def test_a_local_response_is_always_ok():
    vm = FakeVm()
    assert [proxy_send_local_response(vm, 200, b"", b"", [], -1) for _ in range(2)] == [None, None]
    assert len(vm.stream.started) == 2


def test_effective_context():
    vm = FakeVm()
    assert proxy_set_effective_context(vm, 1) is None
    assert vm.context is vm.root
    assert proxy_set_effective_context(vm, 2) is None
    assert vm.context is vm.stream


@pytest.mark.parametrize("id", [0, 3, 0xFFFFFFFF])
def test_no_such_context(id):
    vm = FakeVm()
    refusal = proxy_set_effective_context(vm, id)
    assert answer(refusal) == [2]
    assert refusal.reason == f"no context has the id {id}: it has ended, or never existed"
    assert vm.context is vm.stream


def test_what_is_called_afterwards_acts_for_the_other_context():
    vm = FakeVm()
    proxy_set_effective_context(vm, 1)
    proxy_done(vm)
    assert (vm.root.started, vm.stream.started) == ([("done",)], [])

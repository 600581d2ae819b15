"""Bodies, TCP data, replies, configurations. ``[2]`` is a refusal with status 2."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls.buffers import (
    proxy_get_buffer_bytes,
    proxy_get_buffer_status,
    proxy_get_configuration,
    proxy_set_buffer_bytes,
)
from proxywasm_host.abi.profile import ENVOY, SPEC
from proxywasm_host.abi.types import AbiVersion, BufferType
from tests.abi.fakes import FakeVm, answer

BODY, RESPONSE_BODY, DOWNSTREAM, UPSTREAM, HTTP_REPLY, GRPC, VM, PLUGIN, CALL_DATA, REDIS = range(10)
OF_STREAM = [BODY, RESPONSE_BODY, DOWNSTREAM, UPSTREAM, CALL_DATA]
OF_ROOT = [HTTP_REPLY, GRPC, PLUGIN, REDIS]
MAX = 0xFFFFFFFF


def vm_with(content: bytes | None, buffer: int = BODY, profile=ENVOY) -> FakeVm:
    vm = FakeVm(profile=profile)
    (vm.root if buffer in OF_ROOT else vm.stream).buffers[buffer] = content
    vm.stream.writable = {buffer}
    return vm


# -- Get ---------------------------------------------------------------------------------------------------------

PARTS = [
    # start, length, bytes of "abcdef"
    (0, 6, b"abcdef"),
    (0, MAX, b"abcdef"),
    (0, 2, b"ab"),
    (2, 2, b"cd"),
    (4, 9, b"ef"),
    (5, 1, b"f"),
    (0, 0, b""),
    (6, 1, b""),
    (7, 1, b""),
    (MAX, MAX, b""),
]


@pytest.mark.parametrize(("start", "length", "part"), PARTS)
def test_get(start, length, part):
    assert proxy_get_buffer_bytes(vm_with(b"abcdef"), BODY, start, length) == part


@pytest.mark.parametrize("buffer", [*OF_STREAM, *OF_ROOT])
def test_where_buffers_are(buffer):
    vm = vm_with(b"abc", buffer)
    assert proxy_get_buffer_bytes(vm, buffer, 0, MAX) == b"abc"
    assert proxy_get_buffer_status(vm, buffer) == (3, 0)


def test_the_vms_configuration():
    vm = FakeVm()
    vm.stream.buffers[VM] = vm.root.buffers[VM] = b"not this one"
    assert proxy_get_buffer_bytes(vm, VM, 0, MAX) == b"vm configuration"
    assert proxy_get_buffer_status(vm, VM) == (16, 0)


ABSENT = [
    # profile, buffer, answer to get, to status, to set
    *((ENVOY, buffer, b"", (0, 0), [2]) for buffer in (*OF_STREAM, GRPC)),
    *((ENVOY, buffer, [1], [1], [1]) for buffer in (HTTP_REPLY, PLUGIN, REDIS)),
    *((SPEC, buffer, [1], [1], [1]) for buffer in (*OF_STREAM, *OF_ROOT)),
]


@pytest.mark.parametrize(("profile", "buffer", "get", "status", "set"), ABSENT)
def test_what_is_absent(profile, buffer, get, status, set):
    vm = vm_with(None, buffer, profile)
    assert answer(proxy_get_buffer_bytes(vm, buffer, 0, MAX)) == get
    assert answer(proxy_get_buffer_status(vm, buffer)) == status
    assert answer(proxy_set_buffer_bytes(vm, buffer, 0, 0, b"x")) == set
    assert vm.stream.buffers == vm.root.buffers == [None] * 10


def test_reasons():
    vm = vm_with(b"abc", HTTP_REPLY)
    assert proxy_set_buffer_bytes(vm, HTTP_REPLY, 0, 0, b"x").reason == "the http call response body cannot be changed"
    assert proxy_get_buffer_bytes(vm, PLUGIN, 0, 1).reason == "there is no plugin configuration in this callback"
    assert proxy_set_buffer_bytes(vm_with(b"abc"), BODY, 1, 0, b"x").reason == (
        "start 1 is inside the 3 bytes: only the front (0), the end or the whole can be set"
    )


# -- Set ---------------------------------------------------------------------------------------------------------

SET = {
    # start, length, data → answer in ENVOY, answer in SPEC; the buffer was "abcdef"
    "the whole": (0, MAX, b"XY", b"XY", b"XY"),
    "just the whole": (0, 6, b"XY", b"XY", b"XY"),
    "the front": (0, 2, b"XY", b"XYcdef", b"XYcdef"),
    "before the front": (0, 0, b"XY", b"XYabcdef", b"XYabcdef"),
    "nothing for the front": (0, 2, b"", b"cdef", b"cdef"),
    "nothing for the whole": (0, 6, b"", b"", b""),
    "the end": (6, 0, b"XY", b"abcdefXY", b"abcdefXY"),
    "behind the end": (9, 3, b"XY", b"abcdefXY", b"abcdefXY"),
    "far behind the end": (MAX, MAX, b"XY", b"abcdefXY", b"abcdefXY"),
    "the middle": (2, 2, b"XYZ", [2], b"abXYZef"),
    "into the middle": (2, 0, b"XY", [2], b"abXYcdef"),
    "from the middle on": (2, MAX, b"XY", [2], b"abXY"),
    "the last": (5, 1, b"", [2], b"abcde"),
}


@pytest.mark.parametrize("profile", [ENVOY, SPEC], ids=lambda profile: profile.name)
@pytest.mark.parametrize(("start", "length", "data", "envoy", "spec"), SET.values(), ids=SET)
def test_set(profile, start, length, data, envoy, spec):
    vm = vm_with(b"abcdef", profile=profile)
    expected = envoy if profile is ENVOY else spec
    refusal = proxy_set_buffer_bytes(vm, BODY, start, length, data)
    if expected == [2]:
        assert answer(refusal) == [2]
        assert vm.stream.buffers[BODY] == b"abcdef"
    else:
        assert refusal is None
        assert vm.stream.buffers[BODY] == expected


GROWTH = {
    # start, length, bytes of data → whether it is done, to 10 bytes at most, where there were 6
    "to what there may be": (6, 0, 4, True),
    "by one too many": (6, 0, 5, False),
    "in front": (0, 0, 5, False),
    "as much as goes away": (0, 6, 10, True),
    "more than goes away": (0, 6, 11, False),
    "the last ones": (4, 9, 6, True),
    "more than the last ones": (4, 9, 7, False),
    "far behind": (MAX, MAX, 5, False),
}


@pytest.mark.parametrize(("start", "length", "size", "done"), GROWTH.values(), ids=GROWTH)
def test_a_buffer_grows_to_what_there_may_be(start, length, size, done):
    vm = vm_with(b"abcdef", profile=SPEC)
    vm.stream.most = 10
    refusal = proxy_set_buffer_bytes(vm, BODY, start, length, b"x" * size)
    assert answer(refusal) == (None if done else [10])
    assert (vm.stream.buffers[BODY] == b"abcdef") is not done


def test_a_buffer_that_has_more_may_be_changed():
    vm = vm_with(b"abcdef")
    vm.stream.most = 3
    assert proxy_set_buffer_bytes(vm, BODY, 0, 2, b"XY") is None
    refusal = proxy_set_buffer_bytes(vm, BODY, 0, 2, b"XYZ")
    assert refusal.reason == "the http request body would have 7 bytes, and 3 is the limit"
    assert vm.stream.buffers[BODY] == b"XYcdef"


def test_set_where_there_is_an_empty_one():
    vm = vm_with(b"")
    assert proxy_set_buffer_bytes(vm, BODY, 0, MAX, b"XY") is None
    assert vm.stream.buffers[BODY] == b"XY"


@pytest.mark.parametrize("buffer", OF_ROOT)
@pytest.mark.parametrize("effective", ["root", "stream"])
def test_replies_and_configurations_cannot_be_set(buffer, effective):
    vm = vm_with(b"abc", buffer)
    vm.context = getattr(vm, effective)
    assert answer(proxy_set_buffer_bytes(vm, buffer, 0, MAX, b"x")) == [2]
    assert vm.root.buffers[buffer] == b"abc"


def test_the_vms_configuration_cannot_be_set():
    vm = FakeVm()
    vm.stream.writable = {VM}
    assert answer(proxy_set_buffer_bytes(vm, VM, 0, MAX, b"x")) == [2]


def test_what_the_context_keeps_cannot_be_set():
    vm = vm_with(b"abc")
    vm.stream.writable = set()
    assert answer(proxy_set_buffer_bytes(vm, BODY, 0, MAX, b"x")) == [2]
    assert vm.stream.buffers[BODY] == b"abc"


# -- 0.1.0 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plugin", "configuration"), [(b"mine", b"mine"), (b"", b""), (None, b"vm configuration")])
def test_configuration(plugin, configuration):
    vm = FakeVm(AbiVersion.V0_1_0)
    vm.root.buffers[BufferType.PLUGIN_CONFIGURATION] = plugin
    assert proxy_get_configuration(vm) == configuration

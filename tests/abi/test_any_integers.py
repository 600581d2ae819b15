"""Any integers, any memory: no hostcall does harm, and all marshallers do the same."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from proxywasm_host.abi import pairs
from proxywasm_host.abi.hostcalls import HANDLERS, WASI_HANDLERS
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.profile import ENVOY, SPEC
from proxywasm_host.abi.table import WASI, Hostcall, Kind, hostcalls_of
from proxywasm_host.abi.types import AbiVersion
from tests.abi.fakes import MARSHALLERS, FakeGuest, FakeVm

END = 1024
ROWS = {version: (*hostcalls_of(version).values(), *WASI) for version in AbiVersion}

addresses = st.one_of(
    st.integers(0, END + 8),
    st.sampled_from([0, 64, 68, 128, END - 8, END - 4, END - 1, END, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF]),
    st.integers(0, 0xFFFFFFFF),
)
sizes = st.one_of(st.integers(0, 40), addresses)
small = st.one_of(st.integers(0, 12), st.sampled_from([0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), addresses)
wide = st.one_of(small, st.integers(0, (1 << 64) - 1))


def arguments(row: Hostcall, draw) -> list[int]:
    ints = []
    for param in row.params:
        if len(param.kind.types) == 2:
            ints += [draw(addresses), draw(addresses if param.kind.is_result else sizes)]
        elif param.kind.is_result:
            ints.append(draw(addresses))
        else:
            ints.append(draw(wide if param.kind.types == ("i64",) else small))
    return ints


def may_change(row: Hostcall, ints: list[int], vm: FakeVm) -> list[tuple[int, int]]:
    """(address, size) of where a call may write its results."""
    width = {Kind.U32_OUT: 4, Kind.U64_OUT: 8, Kind.BYTES_AT: 24}
    ranges = []
    at = 0
    for param in row.params:
        first = ints[at]
        at += len(param.kind.types)
        if param.kind in width:
            ranges.append((first, ints[1] if row.name == "random_get" else width[param.kind]))
        elif param.kind in (Kind.BYTES_OUT, Kind.PAIRS_OUT):
            ranges += [(first, 4), (ints[at - 1], 4)]
        elif param.kind is Kind.STRINGS_AT:
            ranges += [(first, 4 * len(vm.environment)), (ints[at - 1], ENVIRONMENT_SIZE)]
    return ranges


ENVIRONMENT_SIZE = len(b"PATH=/bin\0\xc3\xa9=\xff\0")


def a_vm(version: AbiVersion, profile) -> FakeVm:
    vm = FakeVm(version, profile)
    vm.environment = {"PATH": "/bin", "é": "\udcff"}
    vm.root.answer = vm.stream.answer = Refusal(1, "no")
    vm.stream.maps[0] = [(b":path", b"/"), (b"a", b"bc")]
    vm.stream.buffers[0] = b"a body of some length"
    vm.stream.writable = {0}
    vm.stream.properties = {("a",): 1, ("b",): object(), ("",): "text"}
    vm.root.maps[6] = [(b":status", b"200")]
    vm.root.buffers[4] = b"reply"
    for kind in range(3):
        HANDLERS["proxy_define_metric"](vm, kind, b"m")
    vm.services.shared_data.set("vm", b"", b"value")
    vm.services.shared_queues.register("vm", b"", lambda _: None)
    vm.services.shared_queues.enqueue(1, b"message")
    return vm


class World:
    """A guest, its VM, and what can be seen of what it did."""

    def __init__(self, marshaller: str, version: AbiVersion, profile, memory: bytes) -> None:
        self.vm = a_vm(version, profile)
        self.guest = type(marshaller, (FakeGuest,), {"marshaller": marshaller})()
        self.guest.write(0, memory * 4)
        self.guest.write(64, struct.pack("<8I", 0, 5, 1000, 24, 3, 0, 128, 27))  # ranges
        self.guest.write(128, pairs.encode([(b":method", b"GET"), (b"b", b"c")]))

    def call(self, hostcall: Hostcall, ints: list[int], version: AbiVersion) -> int:
        handler = (WASI_HANDLERS if hostcall in WASI else HANDLERS)[hostcall.name]
        return self.guest.bind(hostcall, handler, self.vm, version)(*ints)

    def seen(self) -> tuple[object, ...]:
        row, args, result = self.guest.calls[-1]
        told = (result.status, result.reason) if isinstance(result, Refusal) else result
        return row, args, told, bytes(self.guest.memory.bytes), self.guest.heap


@settings(max_examples=300)
@given(st.data(), st.sampled_from([ENVOY, SPEC]), st.binary(min_size=256, max_size=256))
def test_no_integers_do_harm(draw, profile, memory):
    version = draw.draw(st.sampled_from(AbiVersion))
    worlds = [World(name, version, profile, memory) for name in MARSHALLERS]
    for hostcall in draw.draw(st.lists(st.sampled_from(ROWS[version]), min_size=1, max_size=8)):
        ints = arguments(hostcall, draw.draw)
        for world in worlds:
            guest = world.guest
            before, heap, calls = bytes(guest.memory.bytes), guest.heap, len(guest.calls)
            status = world.call(hostcall, ints, version)
            assert isinstance(status, int)
            assert 0 <= status <= 76
            assert len(guest.calls) == calls + 1
            assert guest.last.status == status
            if guest.last.args is None:
                assert guest.memory.bytes == before
            restored = bytearray(guest.memory.bytes)
            for at, size in [(heap, guest.heap - heap), *may_change(hostcall, ints, world.vm)]:
                restored[at : at + size] = before[at : at + size]
            assert restored == before
        if hostcall.name == "random_get":
            return
        first, *others = (world.seen() for world in worlds)
        for other in others:
            assert other == first

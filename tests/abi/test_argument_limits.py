"""What a hostcall takes of a guest is bounded, in every row of the table, on both marshallers."""

from __future__ import annotations

import pytest

from proxywasm_host.abi import pairs
from proxywasm_host.abi.hostcalls import HANDLERS
from proxywasm_host.abi.hostcalls.basics import CUT, proxy_log
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.table import BODY, DATA, HOSTCALLS, LINE, NAME, TEXT, WASI, Hostcall, Kind, Param
from proxywasm_host.abi.types import AbiVersion, Status
from tests.abi.fakes import FakeGuest, FakeVm

pytestmark = pytest.mark.usefixtures("marshaller")

ROWS = (*HOSTCALLS, *WASI)
BOUNDED = [(row, param) for row in ROWS for param in row.params if param.most]
IDS = [f"{row.name}: {param.name}" for row, param in BOUNDED]
SLOT, AT = 64, 1024
"""Where results go, and where what is given begins."""


def slots(row: Hostcall, given: Param, size: int) -> list[int]:
    """The guest's integers: `given` has `size` bytes at `AT`, all else that it gives is empty."""
    values: list[int] = []
    for param in row.params:
        if param.kind is Kind.IOVECS:
            values += [SLOT + 32, 1]
        elif param.is_range:
            values += [AT, size if param is given else 0]
        else:
            values += [SLOT if param.kind.is_result else 0] * len(param.kind.types)
    return values


def call(row: Hostcall, given: Param, size: int) -> tuple[FakeGuest, int, list[tuple]]:
    """Have a guest with `given` of `size` bytes, all ``x``, call a handler. Returns: it, the answer, what came."""
    guest = FakeGuest(size=AT + size)
    guest.write(AT, b"x" * size)
    guest.write(SLOT + 32, AT.to_bytes(4, "little") + size.to_bytes(4, "little"))
    came: list[tuple] = []

    def handler(_: object, *inputs: object) -> Refusal:
        came.append(inputs)
        return Refusal(77, "seen")

    return guest, guest.bind(row, handler)(*slots(row, given, size)), came


def came_of(came: list[tuple], row: Hostcall, param: Param) -> object:
    return came[0][row.inputs.index(param)]


def test_every_range_of_bytes_has_a_bound() -> None:
    assert [
        f"{row.name}: {param.name}" for row in ROWS for param in row.params if param.is_range and not param.most
    ] == []
    assert {param.most for _, param in BOUNDED} == {NAME, LINE, TEXT, DATA, BODY, pairs.MAX_SIZE}


@pytest.mark.parametrize(("row", "param"), BOUNDED, ids=IDS)
def test_as_many_bytes_as_are_allowed(row: Hostcall, param: Param) -> None:
    _, status, came = call(row, param, param.most)
    assert status == 77
    value = came_of(came, row, param)
    if param.kind is Kind.PAIRS:
        assert getattr(value, "reason", "").startswith("malformed header pairs")  # they are, but not too long
        assert "more than" not in getattr(value, "reason", "")
    else:
        assert value == b"x" * param.most


@pytest.mark.parametrize(("row", "param"), BOUNDED, ids=IDS)
def test_a_byte_more(row: Hostcall, param: Param) -> None:
    guest, status, came = call(row, param, param.most + 1)
    if param.cut:
        assert status == 77
        assert came_of(came, row, param) == b"x" * param.most
    elif param.kind is Kind.PAIRS:
        assert status == 77
        value = came_of(came, row, param)
        assert (value, value.reason) == (
            [],
            "malformed header pairs count as none: more than 1048576 bytes of header pairs",
        )
    else:
        assert (status, came) == (Status.BAD_ARGUMENT, [])
        assert guest.last.args is None
        assert guest.last.result.reason == (
            f"the {param.name} has {param.most + 1} bytes, at most {param.most} are taken"
        )


@pytest.mark.parametrize(("row", "param"), BOUNDED, ids=IDS)
def test_what_is_not_in_memory_is_a_bad_address(row: Hostcall, param: Param) -> None:
    guest = FakeGuest(size=2048)
    guest.write(SLOT + 32, AT.to_bytes(4, "little") + (param.most + 1).to_bytes(4, "little"))
    status = guest.bind(row, lambda *_: Refusal(77, "seen"))(*slots(row, param, param.most + 1))
    assert status == row.memory_error
    assert "are outside of the memory of 2048 bytes" in guest.last.result.reason


def test_the_first_bytes_of_several_ranges() -> None:
    (row,) = (row for row in WASI if row.name == "fd_write")
    guest = FakeGuest(size=3 << 20)
    half = LINE // 2
    for n, (at, size) in enumerate([(AT, half), (AT + half, 7), (AT, half), (AT, 9)]):
        guest.write(SLOT + 8 * n, at.to_bytes(4, "little") + size.to_bytes(4, "little"))
    guest.write(AT, b"a" * half + b"b" * 7)
    vm = FakeVm()
    assert guest.bind(row, lambda vm, fd, data: (vm.write(fd, data), len(data))[1], vm)(1, SLOT, 4, 0) == 0
    assert vm.logged == [(1, b"a" * half + b"b" * 7 + b"a" * (half - 7))]
    assert guest.u32(0) == LINE


def test_a_line_that_was_cut_says_so() -> None:
    vm = FakeVm()
    proxy_log(vm, 2, b"x" * (LINE - 1))
    proxy_log(vm, 2, b"x" * LINE)
    assert [(level, len(message), message[-9:]) for level, message in vm.logged] == [
        (2, LINE - 1, b"x" * 9),
        (2, LINE + len(CUT), b"\xe2\x80\xa6 (cut)"),
    ]


def test_a_message_with_millions_of_fields() -> None:
    """Higress's function looks at some fields of its argument only, however many there are."""
    vm = FakeVm(AbiVersion.V0_2_100)
    call = HANDLERS["proxy_call_foreign_function"]
    answered = call(vm, b"inject_encoded_data_to_filter_chain_on_header", b"\x10\x01" * (DATA // 2))
    assert answered == b""
    assert vm.stream.started == [("inject", b"", True)]

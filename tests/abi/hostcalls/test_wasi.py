"""WASI: each function with its errno, called as guests do, through the marshaller. Addresses are offsets into 1024 bytes."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls import WASI_HANDLERS
from proxywasm_host.abi.hostcalls.wasi import FDSTAT_WRITABLE, RANDOM_LIMIT
from proxywasm_host.abi.table import WASI
from proxywasm_host.services import ManualClock
from tests.abi.fakes import FakeGuest, FakeVm

ROWS = {row.name: row for row in WASI}
BADF, NOTDIR, FAULT, INVAL, NOENT, ENOSYS, NOTSUP = 8, 20, 21, 28, 44, 52, 58


class Process:
    """A guest that makes WASI calls."""

    def __init__(self, **options) -> None:
        self.vm = FakeVm(**options)
        self.guest = FakeGuest(size=4096)

    def __call__(self, name: str, *args: int) -> int:
        return self.guest.bind(ROWS[name], WASI_HANDLERS[name], self.vm)(*args)


@pytest.fixture
def process():
    return Process()


# -- One answer --------------------------------------------------------------------------------------------------

STREAMS = {
    # function, arguments behind the descriptor → errno for 1 and 2; others have BADF
    "fd_allocate": ((0, 0), 0),
    "fd_datasync": ((), 0),
    "fd_sync": ((), 0),
    "fd_fdstat_set_rights": ((0, 0), 0),
    "fd_filestat_set_size": ((0,), 0),
    "fd_filestat_set_times": ((0, 0, 0), 0),
    "fd_fdstat_get": ((16,), 0),
    "fd_tell": ((16,), 0),
    "fd_renumber": ((5,), NOTSUP),
    "fd_write": ((0, 0, 16), 0),
    "fd_pwrite": ((0, 0, 0, 16), 0),
}


@pytest.mark.parametrize(("name", "args", "errno"), [(name, *row) for name, row in STREAMS.items()])
def test_for_standard_streams_only(process, name, args, errno):
    assert [process(name, fd, *args) for fd in (1, 2)] == [errno, errno]
    assert [process(name, fd, *args) for fd in (0, 3, 0xFFFFFFFF)] == [BADF] * 3
    assert process.vm.logged == []


ALWAYS = {
    "fd_read": (ENOSYS, (1, 0, 0, 16)),
    "fd_pread": (ENOSYS, (1, 0, 0, 0, 16)),
    "fd_fdstat_set_flags": (ENOSYS, (1, 0)),
    "fd_prestat_dir_name": (ENOSYS, (3, 0, 0)),
    "fd_prestat_get": (BADF, (3, 0)),
    "fd_filestat_get": (BADF, (1, 0)),
    "fd_advise": (0, (3, 0, 0, 0)),
    "sched_yield": (0, ()),
    "path_open": (NOENT, (3, 0, 0, 0, 0, 0, 0, 0, 0)),
    "path_create_directory": (NOTSUP, (3, 0, 0)),
    "path_filestat_get": (NOTSUP, (3, 0, 0, 0, 0)),
    "path_filestat_set_times": (NOTSUP, (3, 0, 0, 0, 0, 0, 0)),
    "path_link": (NOTSUP, (3, 0, 0, 0, 3, 0, 0)),
    "path_readlink": (NOTSUP, (3, 0, 0, 0, 0, 0)),
    "path_remove_directory": (NOTSUP, (3, 0, 0)),
    "path_rename": (NOTSUP, (3, 0, 0, 3, 0, 0)),
    "path_symlink": (NOTSUP, (0, 0, 3, 0, 0)),
    "path_unlink_file": (NOTSUP, (3, 0, 0)),
    "sock_accept": (NOTSUP, (3, 0, 0)),
    "sock_recv": (NOTSUP, (3, 0, 0, 0, 0, 0)),
    "sock_send": (NOTSUP, (3, 0, 0, 0, 0)),
    "sock_shutdown": (NOTSUP, (3, 0)),
}


@pytest.mark.parametrize(("name", "errno", "args"), [(name, *row) for name, row in ALWAYS.items()])
def test_always(process, name, errno, args):
    assert process(name, *args) == errno
    assert process.guest.memory.bytes.count(0) == len(process.guest.memory.bytes)


def test_every_function_is_tested():
    others = {
        "fd_seek", "fd_close", "fd_readdir", "poll_oneoff", "proc_exit", "environ_get", "environ_sizes_get", "args_get",
        "args_sizes_get", "clock_time_get", "clock_res_get", "random_get",
    }  # fmt: skip
    assert STREAMS.keys() | ALWAYS.keys() | others == ROWS.keys()


def test_reasons(process):
    process("path_open", *ALWAYS["path_open"][1])
    assert process.guest.last.result.reason == "path_open is not available: filters have no files and no sockets"
    process("fd_sync", 7)
    assert process.guest.last.result.reason == "file descriptor 7: a filter has only 1 and 2"


@pytest.mark.parametrize(
    ("name", "args"), [("fd_seek", (1, 0, 0, 0)), ("fd_close", (1,)), ("proc_exit", (0,)), ("proc_exit", (0xFFFFFFFF,))]
)
def test_what_succeeds_and_does_nothing(process, name, args):
    assert process(name, *args) == 0
    assert process.vm.logged == []


# -- Standard output ---------------------------------------------------------------------------------------------

WRITTEN = {
    # parts → what the VM is given to log in whole lines
    "one": ([b"hello"], b"hello"),
    "several": ([b"hel", b"", b"lo\n"], b"hello\n"),
    "a new line": ([b"\n"], b"\n"),
    "one inside": ([b"a\nb"], b"a\nb"),
    "no UTF-8": ([b"\xff\0"], b"\xff\0"),
    "nothing": ([], None),
    "parts of nothing": ([b"", b""], None),
}


@pytest.mark.parametrize(("parts", "line"), WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize(("fd", "level"), [(1, 2), (2, 4)])
@pytest.mark.parametrize("name", ["fd_write", "fd_pwrite"])
def test_write(process, parts, line, fd, level, name):
    at = 1024
    for i, part in enumerate(parts):
        process.guest.write(at, part)
        process.guest.write(64 + 8 * i, at.to_bytes(4, "little") + len(part).to_bytes(4, "little"))
        at += len(part)
    offset = (0,) if name == "fd_pwrite" else ()
    assert process(name, fd, 64, len(parts), *offset, 16) == 0
    assert process.vm.logged == ([] if line is None else [(level, line)])
    assert process.guest.u32(16) == sum(map(len, parts))


@pytest.mark.parametrize(
    ("fd", "parts", "count", "written", "errno"),
    [
        (1, 64, 1, 4096, FAULT),
        (1, 4092, 1, 16, FAULT),
        (1, 64, 0x20000000, 16, FAULT),
        (0, 64, 1, 16, BADF),
        (0, 4096, 1, 16, FAULT),
    ],
)
def test_write_to_nowhere(process, fd, parts, count, written, errno):
    process.guest.write(64, b"\0\4\0\0\5\0\0\0")
    assert process("fd_write", fd, parts, count, written) == errno


# -- Results in memory -------------------------------------------------------------------------------------------


def test_fdstat(process):
    process.guest.write(0, b"\xff" * 64)
    assert process("fd_fdstat_get", 1, 16) == 0
    assert process.guest.read(12, 32) == b"\xff" * 4 + bytes(8) + b"\x40" + bytes(15) + b"\xff" * 4
    assert len(FDSTAT_WRITABLE) == 24
    assert process("fd_fdstat_get", 1, 4096 - 23) == FAULT
    assert process("fd_fdstat_get", 3, 4096) == BADF


def test_tell(process):
    process.guest.write(16, b"\xff" * 9)
    assert process("fd_tell", 1, 16) == 0
    assert process.guest.read(16, 9) == bytes(8) + b"\xff"


def test_readdir(process):
    process.guest.write(16, b"\xff" * 4)
    assert process("fd_readdir", 1, 0, 0, 0, 16) == NOTDIR
    assert process.guest.u32(16) == 0
    assert process("fd_readdir", 1, 0, 0, 0, 4096) == FAULT


def test_poll_does_not_wait(process):
    process.guest.write(16, b"\xff" * 4)
    assert process("poll_oneoff", 0, 0, 1, 16) == 0
    assert process.guest.u32(16) == 0


# -- Environment and arguments -----------------------------------------------------------------------------------


def test_environment(process):
    process.vm.environment = {"PATH": "/bin", "EMPTY": "", "é": "\udcff"}
    assert process("environ_sizes_get", 16, 20) == 0
    count, size = process.guest.u32(16), process.guest.u32(20)
    assert (count, size) == (3, len(b"PATH=/bin\0EMPTY=\0\xc3\xa9=\xff\0"))
    assert process("environ_get", 32, 64) == 0
    assert [process.guest.u32(32 + 4 * i) for i in range(count + 1)] == [64, 74, 81, 0]
    assert process.guest.read(64, size + 1) == b"PATH=/bin\0EMPTY=\0\xc3\xa9=\xff\0\0"


def test_an_environment_that_does_not_fit(process):
    process.vm.environment = {"PATH": "/bin"}
    assert process("environ_get", 4093, 64) == FAULT
    assert process("environ_get", 32, 4096 - 9) == FAULT
    assert process("environ_get", 32, 4096 - 10) == 0


@pytest.mark.parametrize("what", ["environ", "args"])
def test_there_is_none(process, what):
    process.guest.write(16, b"\xff" * 8)
    assert process(f"{what}_sizes_get", 16, 20) == 0
    assert process.guest.read(16, 8) == bytes(8)
    assert process(f"{what}_get", 32, 64) == 0
    assert process.guest.read(32, 64) == bytes(64)


# -- Clocks and random numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock", "time"), [(0, 7_000_000_000), (1, 6_000_000_000)])
def test_clocks(clock, time):
    manual = ManualClock(time_ns=2_000_000_000)
    process = Process(clock=manual)
    manual.advance(5)
    assert process("clock_time_get", clock, 0, 16) == 0
    assert int.from_bytes(process.guest.read(16, 8), "little") == time
    assert process("clock_res_get", clock, 24) == 0
    assert int.from_bytes(process.guest.read(24, 8), "little") == 1


@pytest.mark.parametrize("clock", [2, 3, 0xFFFFFFFF])
def test_other_clocks(process, clock):
    assert process("clock_time_get", clock, 0, 16) == NOTSUP
    assert process("clock_res_get", clock, 16) == NOTSUP
    assert process.guest.last.result.reason == (f"clock {clock}: there is only the real-time and the monotonic clock")


@pytest.mark.parametrize(
    ("address", "size", "errno"),
    [
        (16, 0, 0),
        (0xFFFFFFFF, 0, 0),
        (16, 1, 0),
        (4096 - 32, 32, 0),
        (4096 - 31, 32, FAULT),
        (16, 4096, FAULT),
        (0, RANDOM_LIMIT, FAULT),
        (0, RANDOM_LIMIT + 1, INVAL),
        (0, 0xFFFFFFFF, INVAL),
    ],
)
def test_random(address, size, errno):
    process = Process(random=lambda size: b"\xaa" * size)
    assert process("random_get", address, size) == errno
    assert process.guest.memory.bytes.count(0xAA) == (0 if errno else size)


def test_very_much_that_is_random():
    process = Process()
    process.guest = FakeGuest(size=RANDOM_LIMIT)
    assert process("random_get", 0, RANDOM_LIMIT) == 0
    assert len(set(process.guest.memory.bytes)) > 200
    assert RANDOM_LIMIT == 65536

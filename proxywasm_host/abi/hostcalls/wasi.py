"""The part of WASI preview 1 that a filter needs: no files, no sockets and no waiting.

Standard output is logged at info, standard error at error, in whole lines.

Source: ``exports.cc`` of Envoy's host.
"""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import LogLevel, WasiErrno

STANDARD_STREAMS = {1: LogLevel.INFO, 2: LogLevel.ERROR}
RANDOM_LIMIT = 64 * 1024
"""Most bytes of one ``random_get`` (``limits.h`` of Envoy's host)."""
FDSTAT_WRITABLE = bytes(8) + (64).to_bytes(8, "little") + bytes(8)
"""A file that can only be written."""
REALTIME, MONOTONIC = 0, 1


def bad_fd(fd: int) -> Refusal:
    """BADF, for anything but standard output and standard error."""
    return Refusal(WasiErrno.BADF, "file descriptor {0}: a filter has only 1 and 2", fd)


def fd_write(vm: VmState, fd: int, data: bytes) -> int | Refusal:
    """Log the guest's standard output or standard error. Returns the number of bytes."""
    level = STANDARD_STREAMS.get(fd)
    if level is None:
        return bad_fd(fd)
    if data:
        vm.write(level, data)
    return len(data)


def fd_pwrite(vm: VmState, fd: int, data: bytes, offset: int) -> int | Refusal:
    """As `fd_write`, because a standard stream has no positions."""
    return fd_write(vm, fd, data)


def fd_seek(vm: VmState, fd: int, offset: int, whence: int, new_offset: int) -> Refusal | None:
    """OK without effect, as in Envoy's host."""
    return None


def fd_close(vm: VmState, fd: int) -> Refusal | None:
    """OK without effect, as in Envoy's host: runtimes close files that they never opened."""
    return None


def fd_fdstat_get(vm: VmState, fd: int) -> bytes | Refusal:
    """The rights on a standard stream: only to write."""
    return FDSTAT_WRITABLE if fd in STANDARD_STREAMS else bad_fd(fd)


def fd_tell(vm: VmState, fd: int) -> int | Refusal:
    """Always 0: a standard stream has no positions."""
    return 0 if fd in STANDARD_STREAMS else bad_fd(fd)


def _accepted_for_streams(vm: VmState, fd: int, *_: int) -> Refusal | None:
    """OK without effect on a standard stream."""
    return None if fd in STANDARD_STREAMS else bad_fd(fd)


def fd_renumber(vm: VmState, fd: int, to: int) -> Refusal | None:
    """Refused: standard streams keep their numbers."""
    return Refusal(WasiErrno.NOTSUP, "standard streams keep their numbers") if fd in STANDARD_STREAMS else bad_fd(fd)


def fd_readdir(vm: VmState, fd: int, buffer: int, buffer_length: int, cookie: int) -> int | Refusal:
    """Refused: there are no directories."""
    return Refusal(WasiErrno.NOTDIR, "a filter has no directories")


def fd_advise(vm: VmState, fd: int, offset: int, length: int, advice: int) -> Refusal | None:
    """OK without effect: a host may ignore advice."""
    return None


def poll_oneoff(vm: VmState, subscriptions: int, events: int, count: int) -> int:
    """Answer at once, without an event, as in Envoy's host: a guest that sleeps continues immediately."""
    return 0


def sched_yield(vm: VmState) -> Refusal | None:
    """OK without effect: a guest has only one thread."""
    return None


def proc_exit(vm: VmState, code: int) -> Refusal | None:
    """Return, as in Envoy's host; the guest's next instruction is usually ``unreachable``, which traps."""
    return None


def environ_get(vm: VmState) -> list[bytes]:
    """The VM's environment, as ``KEY=value``."""
    return [f"{key}={value}\0".encode("utf-8", "surrogateescape") for key, value in vm.environment.items()]


def environ_sizes_get(vm: VmState) -> tuple[int, int]:
    """The number of variables that `environ_get` returns, and the sum of their bytes."""
    variables = environ_get(vm)
    return len(variables), sum(map(len, variables))


def args_get(vm: VmState) -> list[bytes]:
    """An empty list: a filter has no arguments."""
    return []


def args_sizes_get(vm: VmState) -> tuple[int, int]:
    """No arguments, no bytes."""
    return 0, 0


def clock_time_get(vm: VmState, clock: int, precision: int) -> int | Refusal:
    """Nanoseconds, of the real-time clock since 1970, or of the monotonic clock."""
    if clock == REALTIME:
        return vm.services.clock.time_ns()
    if clock == MONOTONIC:
        return vm.services.clock.monotonic_ns()
    return Refusal(WasiErrno.NOTSUP, "clock {0}: there is only the real-time and the monotonic clock", clock)


def clock_res_get(vm: VmState, clock: int) -> int | Refusal:
    """Always 1: both clocks count nanoseconds."""
    if clock in (REALTIME, MONOTONIC):
        return 1
    return Refusal(WasiErrno.NOTSUP, "clock {0}: there is only the real-time and the monotonic clock", clock)


def random_get(vm: VmState, length: int) -> bytes | Refusal:
    """Random bytes, at most `RANDOM_LIMIT` at once."""
    if length > RANDOM_LIMIT:
        return Refusal(WasiErrno.INVAL, "{0} random bytes, and {1} is the limit of one call", length, RANDOM_LIMIT)
    return vm.services.random(length)


ALWAYS_REFUSED = {
    WasiErrno.ENOSYS: ("fd_read", "fd_pread", "fd_fdstat_set_flags", "fd_prestat_dir_name"),
    WasiErrno.BADF: ("fd_prestat_get", "fd_filestat_get"),
    WasiErrno.NOENT: ("path_open",),
    WasiErrno.NOTSUP: (
        "path_create_directory",
        "path_filestat_get",
        "path_filestat_set_times",
        "path_link",
        "path_readlink",
        "path_remove_directory",
        "path_rename",
        "path_symlink",
        "path_unlink_file",
        "sock_accept",
        "sock_recv",
        "sock_send",
        "sock_shutdown",
    ),
}
ACCEPTED_FOR_STREAMS = (
    "fd_allocate",
    "fd_datasync",
    "fd_sync",
    "fd_fdstat_set_rights",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
)

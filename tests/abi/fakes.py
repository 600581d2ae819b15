"""A guest without an engine, and a VM without a guest.

`FakeGuest` is memory and an allocator, `FakeVm` what handlers are given. Both do what the protocols say and remember
what they were told; neither knows what a hostcall means.
"""

from __future__ import annotations

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.marshal import Call, PythonGuest, bind_in_python, bind_natively
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.profile import ENVOY
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.services import ManualClock, Services
from tests.support import Lines

PAGE = 1024
"""Our memories are small, so that their ends are near."""
CAPACITY = 64 * PAGE
"""What they can grow to."""


class Memory:
    """Linear memory that grows in place, as in engines; `view` shows the growth only after `refresh`."""

    def __init__(self, size: int = PAGE) -> None:
        self.bytes = bytearray(max(size, CAPACITY))
        self.size = size
        self.refresh()

    def refresh(self) -> bool:
        old = getattr(self, "view", b"")
        self.view = memoryview(self.bytes)[: self.size]
        return len(old) != self.size

    def grow(self, size: int) -> None:
        self.size += size


MARSHALLERS = {"python": (PythonGuest, bind_in_python)}
"""The marshallers that there are: each test of one runs on both."""
if NATIVE is not None:
    MARSHALLERS["native"] = (NATIVE.Guest, bind_natively)


class FakeGuest:
    """Memory with an allocator that gives one block after another, from `heap` on."""

    marshaller = list(MARSHALLERS)[-1]

    def __init__(self, size: int = PAGE, heap: int = 512, allocator_may_call: frozenset[str] | None = None) -> None:
        self._guest, self._bind = MARSHALLERS[self.marshaller]
        self.memory = Memory(size)
        self.heap = heap
        self.asked: list[int] = []
        self.calls: list[tuple] = []
        self.guest = self._guest(self.calls.append, allocator_may_call)
        self.guest.memory = self.memory
        self.guest.use_allocator(self.allocate)

    def allocate(self, size: int) -> int:
        self.asked.append(size)
        at = self.heap
        self.heap += size
        return at

    def bind(self, row, handler, vm=None, version=AbiVersion.V0_2_1):
        return self._bind(row, version, handler, vm, self.guest)

    def write(self, at: int, data: bytes) -> None:
        self.memory.bytes[at : at + len(data)] = data

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.memory.bytes[at : at + size])

    def u32(self, at: int) -> int:
        return int.from_bytes(self.read(at, 4), "little")

    def returned(self, address_slot: int, size_slot: int) -> bytes:
        """What a result of bytes holds."""
        return self.read(self.u32(address_slot), self.u32(size_slot))

    @property
    def last(self) -> Call:
        return Call(*self.calls[-1])


class FakeContext(Context):
    """A context in which everything is possible; `started` is what hostcalls started in it."""

    def __init__(self, id: int, root: Context | None = None) -> None:
        super().__init__(id, root)
        self.started: list[tuple] = []
        self.writable: set[int] = set()
        self.most = 1 << 20
        self.new_trailers: dict[int, list] = {}
        self.properties: dict[tuple[str, ...], object] = {}
        self.stored: dict[str, bytes] = {}
        self.answer: object = None
        """What the methods that start something return."""

    def _start(self, *what: object):
        self.started.append(what)
        return self.answer

    def add_trailers(self, map):
        return self.new_trailers.get(map)

    def writable_size(self, buffer):
        return self.most if buffer in self.writable else 0

    def send_local_response(self, *args):
        self._start("local response", *args)

    def continue_stream(self, stream):
        return super().continue_stream(stream) or self._start("continue", stream)

    def close_stream(self, stream):
        return self._start("close", stream)

    def clear_route_cache(self):
        self._start("clear route cache")

    def inject_response_body(self, data, end_stream):
        return self._start("inject", data, end_stream)

    def override_upstream_host(self, address):
        return self._start("upstream", address)

    def get_property(self, path):
        return self.properties[tuple(path)]

    def set_property(self, name, value):
        self.stored[name] = value

    def done(self):
        return self._start("done")

    def set_tick_period(self, milliseconds):
        self._start("tick", milliseconds)

    def register_queue(self, name):
        return self._start("queue", name)

    def http_call(self, *args):
        return self._start("http", *args)

    def grpc_call(self, *args):
        return self._start("grpc call", *args)

    def grpc_stream(self, *args):
        return self._start("grpc stream", *args)

    def grpc_send(self, *args):
        return self._start("grpc send", *args)

    def grpc_close(self, token):
        return self._start("grpc close", token)

    def grpc_cancel(self, token):
        return self._start("grpc cancel", token)

    def redis_init(self, *args):
        return self._start("redis init", *args)

    def redis_call(self, *args):
        return self._start("redis", *args)


class FakeVm:
    """A VM with a root context (1) and a stream (2), which is the effective one."""

    def __init__(self, version=AbiVersion.V0_2_1, profile=ENVOY, **services) -> None:
        self.version = version
        self.profile = profile
        self.services = Services(**{"clock": ManualClock(), "log": Lines(), "clusters": {"upstream"}, **services})
        self.vm_id = "vm"
        self.vm_configuration = b"vm configuration"
        self.environment: dict[str, str] = {}
        self.root = FakeContext(1)
        self.stream = FakeContext(2, self.root)
        self.context: Context = self.stream
        self.contexts: dict[int, Context] = {1: self.root, 2: self.stream}
        self.metrics: tuple[tuple[list[str], dict[str, int]], ...] = (([], {}), ([], {}), ([], {}))
        self.logged: list[tuple[int, bytes]] = []

    def log(self, level: int, message: bytes) -> None:
        self.logged.append((level, message))

    def write(self, level: int, data: bytes) -> None:
        self.logged.append((level, data))


def answer(result: object) -> object:
    """What a handler answers, for tables: ``None``, the result, or a refusal as its status in a list."""
    return [int(result.status)] if hasattr(result, "status") else result

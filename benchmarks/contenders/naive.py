"""wasmtime-py used as in its documentation: a linker, functions with access to their caller, calls of exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wasmtime import Caller, Engine, FuncType, Linker, Module, Store, ValType

from benchmarks.headers import REQUEST, RESPONSE, HeaderList, header_filter
from benchmarks.timing import InProcess

OK, NOT_FOUND = 0, 1


class NaiveHost:
    """One filter, one stream at a time."""

    def __init__(self) -> None:
        self.maps: dict[int, HeaderList] = {}
        engine = Engine()
        self.store = Store(engine)
        linker = Linker(engine)
        i32 = ValType.i32()
        handlers: dict[str, tuple[int, Callable[..., int]]] = {
            "proxy_get_header_map_value": (5, self.get),
            "proxy_add_header_map_value": (5, self.add),
            "proxy_replace_header_map_value": (5, self.replace),
            "proxy_remove_header_map_value": (3, self.remove),
        }
        for name, (parameters, handler) in handlers.items():
            type = FuncType([i32] * parameters, [i32])
            linker.define_func("env", name, type, handler, access_caller=True)
        instance = linker.instantiate(self.store, Module(engine, header_filter()))
        self.exports = instance.exports(self.store)

    def get(self, caller: Caller, kind: int, key: int, key_size: int, value_slot: int, size_slot: int) -> int:
        memory, allocate = caller["memory"], caller["proxy_on_memory_allocate"]
        wanted = bytes(memory.read(caller, key, key + key_size))
        for name, value in self.maps[kind]:
            if name == wanted:
                at = allocate(caller, len(value))
                memory.write(caller, value, at)
                memory.write(caller, at.to_bytes(4, "little"), value_slot)
                memory.write(caller, len(value).to_bytes(4, "little"), size_slot)
                return OK
        return NOT_FOUND

    def add(self, caller: Caller, kind: int, key: int, key_size: int, value: int, value_size: int) -> int:
        memory = caller["memory"]
        pair = (
            bytes(memory.read(caller, key, key + key_size)),
            bytes(memory.read(caller, value, value + value_size)),
        )
        self.maps[kind].append(pair)
        return OK

    def remove(self, caller: Caller, kind: int, key: int, key_size: int) -> int:
        unwanted = bytes(caller["memory"].read(caller, key, key + key_size))
        self.maps[kind] = [pair for pair in self.maps[kind] if pair[0] != unwanted]
        return OK

    def replace(self, caller: Caller, kind: int, key: int, key_size: int, value: int, value_size: int) -> int:
        self.remove(caller, kind, key, key_size)
        return self.add(caller, kind, key, key_size, value, value_size)

    def one_request(self) -> tuple[HeaderList, HeaderList]:
        exports, store = self.exports, self.store
        self.maps = {0: list(REQUEST), 2: list(RESPONSE)}
        exports["proxy_on_context_create"](store, 2, 1)
        exports["proxy_on_request_headers"](store, 2, len(REQUEST), 1)
        exports["proxy_on_response_headers"](store, 2, len(RESPONSE), 1)
        exports["proxy_on_done"](store, 2)
        exports["proxy_on_log"](store, 2)
        exports["proxy_on_delete"](store, 2)
        return self.maps[0], self.maps[2]


@contextmanager
def naive() -> Iterator[InProcess]:
    yield InProcess(NaiveHost().one_request)

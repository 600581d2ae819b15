"""The yardstick: the least cost of one request through one header filter, called from CPython through ctypes.

Runs header_filter.wat (4 hostcalls on the request headers, 3 on the response headers, 6 callbacks,
3 guest allocations) on the C API of the wasmtime wheel, with the barest handlers that produce the right headers:
no status checks, no contexts, no limits. Importing it opens an engine.
"""

from __future__ import annotations

import ctypes
import struct

import wasmtime
import wasmtime._bindings as bindings

from benchmarks.headers import REQUEST, RESPONSE, HeaderList, header_filter

lib = ctypes.CDLL(bindings.dll._name)
host_callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
new_unchecked = lib.wasmtime_func_new_unchecked
new_unchecked.argtypes, new_unchecked.restype = [ctypes.c_void_p] * 2 + [host_callback] + [ctypes.c_void_p] * 3, None
call_unchecked = lib.wasmtime_func_call_unchecked
call_unchecked.argtypes, call_unchecked.restype = (
    [ctypes.c_void_p] * 3 + [ctypes.c_size_t, ctypes.c_void_p],
    ctypes.c_void_p,
)

engine = wasmtime.Engine()
store = wasmtime.Store(engine)
module = wasmtime.Module(engine, header_filter())
store_context = ctypes.cast(store._context(), ctypes.c_void_p).value
trap_slot = ctypes.c_void_p()
keep_alive = []
maps = []


def get_value(kind, key, key_size, value_slot, size_slot):
    wanted = memory[key : key + key_size]
    for name, value in maps[kind]:
        if name == wanted:
            size = len(value)
            at = allocate(size)
            memory[at : at + size] = value
            memory[value_slot : value_slot + 4] = at.to_bytes(4, "little")
            memory[size_slot : size_slot + 4] = size.to_bytes(4, "little")
            return 0
    return 1


def add_value(kind, key, key_size, value, value_size):
    maps[kind].append((memory[key : key + key_size].tobytes(), memory[value : value + value_size].tobytes()))
    return 0


def remove_value(kind, key, key_size):
    name = memory[key : key + key_size].tobytes()
    maps[kind][:] = [pair for pair in maps[kind] if pair[0] != name]
    return 0


def replace_value(kind, key, key_size, value, value_size):
    remove_value(kind, key, key_size)
    return add_value(kind, key, key_size, value, value_size)


HOSTCALLS = {
    "proxy_get_header_map_value": (5, get_value),
    "proxy_add_header_map_value": (5, add_value),
    "proxy_replace_header_map_value": (5, replace_value),
    "proxy_remove_header_map_value": (3, remove_value),
}


def host_function(arity, handler):
    unpack, slots = struct.Struct("<" + "12x".join("I" * arity)).unpack_from, ctypes.c_char * (16 * arity)

    def trampoline(env, caller, arguments, count):
        ctypes.c_int32.from_address(arguments).value = handler(*unpack(slots.from_address(arguments)))

    callback = host_callback(trampoline)
    function, i32 = bindings.wasmtime_func_t(), wasmtime.ValType.i32()
    kind = wasmtime.FuncType([i32] * arity, [i32])
    new_unchecked(
        store_context, ctypes.cast(kind.ptr(), ctypes.c_void_p), callback, None, None, ctypes.addressof(function)
    )
    keep_alive.extend((callback, function))
    return wasmtime.Func._from_raw(function)


instance = wasmtime.Instance(store, module, [host_function(*HOSTCALLS[item.name]) for item in module.imports])
exports = instance.exports(store)
base, size = exports["memory"].data_ptr(store), exports["memory"].data_len(store)
memory = memoryview((ctypes.c_ubyte * size).from_address(ctypes.addressof(base.contents))).cast("B")


def guest_function(name):
    function, slots = exports[name], (ctypes.c_uint32 * 16)()
    keep_alive.extend((function, slots))
    at, slots_at, trap_at = ctypes.addressof(function._func), ctypes.addressof(slots), ctypes.addressof(trap_slot)

    def call(a=0, b=0, c=0):
        slots[0], slots[4], slots[8] = a, b, c
        if call_unchecked(store_context, at, slots_at, 12, trap_at):
            raise RuntimeError("call failed")
        return slots[0]

    return call


allocate, create, request_headers, response_headers, done, log, delete = map(
    guest_function,
    (
        "proxy_on_memory_allocate",
        "proxy_on_context_create",
        "proxy_on_request_headers",
        "proxy_on_response_headers",
        "proxy_on_done",
        "proxy_on_log",
        "proxy_on_delete",
    ),
)


def one_request() -> tuple[HeaderList, HeaderList]:
    maps[:] = [list(REQUEST), None, list(RESPONSE)]
    create(2, 1)
    request_headers(2, len(REQUEST), 1)
    response_headers(2, len(RESPONSE), 0)
    done(2)
    log(2)
    delete(2)
    return maps[0], maps[2]

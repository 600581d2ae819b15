"""Which function each import gets, what is refused when a module is loaded, and in which words."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.linking import ALLOCATOR_MAY_CALL, START_MAY_CALL, check_exports, link
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.table import WASI, hostcalls_of
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.errors import ModuleError
from tests.abi.fakes import FakeGuest, FakeVm
from tests.abi.test_bytecode import NAMES
from tests.abi.test_table import IMPORTS, WASI_IMPORTS, signatures
from tests.support import code

V0_1_0, V0_2_0, V0_2_1, V0_2_100 = AbiVersion

TYPES = {"i": "i32", "I": "i64", "f": "f64"}


def function(name: str, signature: str, module: str = "env"):
    """An import: ``ii:i`` is (i32, i32) -> (i32)."""
    params, results = signature.split(":")
    return module, name, "function", (tuple(map(TYPES.get, params)), tuple(map(TYPES.get, results)))


def linked(*imports, version=V0_2_1, **options):
    guest, vm = FakeGuest(), FakeVm(version)
    return guest, vm, list(link(imports, version, vm, guest.guest, **options))


# -- What is linked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_all_hostcalls_of_a_version(version):
    imports = [function(*item) for item in signatures(IMPORTS[version]).items()]
    _, _, functions = linked(*imports, version=version)
    assert [(module, name, "function", type) for module, name, type, _ in functions] == imports


@pytest.mark.parametrize("module", ["wasi_snapshot_preview1", "wasi_unstable"])
def test_all_of_wasi(module):
    imports = [function(*item, module=module) for item in signatures(WASI_IMPORTS).items()]
    _, _, functions = linked(*imports)
    assert [(module, name, "function", type) for module, name, type, _ in functions] == imports


@pytest.mark.parametrize("filter", [name for name in NAMES if name != "c/secrets"])  # which imports what is not ours
def test_filters_are_linked(filter):
    module = Bytecode(code(filter))
    _, _, functions = linked(*module.imports, version=module.abi_version)
    assert len(functions) == len(module.imports)


def test_a_function_does_what_its_hostcall_does():
    guest, vm, [(_, _, _, log)] = linked(function("proxy_log", "iii:i"))
    guest.write(16, b"hello")
    assert log(2, 16, 5) == 0
    assert vm.logged == [(2, b"hello")]


def test_a_name_that_is_imported_twice():
    guest, _, functions = linked(function("proxy_log", "iii:i"), function("proxy_log", "iii:i"))
    assert [call(2, 0, 0) for _, _, _, call in functions] == [0, 0]
    assert [call[1] for call in guest.calls] == [(2, b""), (2, b"")]


@pytest.mark.parametrize("name", ["proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"])
@pytest.mark.parametrize(("signature", "result"), [(":", None), (":i", 0)])
def test_calls_of_0_1_0_may_have_no_result(name, signature, result):
    _, vm, [(_, _, type, call)] = linked(function(name, signature), version=V0_1_0)
    assert call() is result
    assert len(type[1]) == len(signature) - 1
    assert len(vm.stream.started) == 1


def test_a_function_without_a_result():
    _, vm, [(_, _, _, proc_exit)] = linked(function("proc_exit", "i:", "wasi_unstable"))
    assert proc_exit(1) is None
    assert vm.logged == []


# -- What is refused ---------------------------------------------------------------------------------------------

BUILD = (
    "build the filter for wasm32-wasip1 or wasm32-unknown-unknown, without functions that only a browser or another host has"
)
STUB = "load it with unknown_imports='stub' to have it answer UNIMPLEMENTED, or add it with Host(hostcalls=[…])"
OTHER_VERSION = "build it with one SDK, or load it with unknown_imports='stub'"

REFUSED = {
    "unknown": (
        function("proxy_no_such", ":i"),
        f"import env.proxy_no_such is offered by no Proxy-Wasm host: {STUB}",
    ),
    "unknown, and no hostcall": (
        function("abort", "iiii:"),
        f"import env.abort is offered by no Proxy-Wasm host: {BUILD}",
    ),
    "of another module": (
        function("now", ":i", "browser"),
        f"import browser.now is offered by no Proxy-Wasm host: {BUILD}",
    ),
    "a hostcall of another module": (
        function("proxy_log", "iii:i", "envoy"),
        f"import envoy.proxy_log is offered by no Proxy-Wasm host: {BUILD}",
    ),
    "WASI that does not exist": (
        function("fd_dup", "i:i", "wasi_snapshot_preview1"),
        "import wasi_snapshot_preview1.fd_dup is not a function of WASI preview 1 that a filter can use",
    ),
    "WASI under env": (
        function("fd_write", "iiii:i"),
        f"import env.fd_write is offered by no Proxy-Wasm host: {BUILD}",
    ),
    "of 0.1.0 only": (
        function("proxy_continue_request", ":i"),
        "import env.proxy_continue_request belongs to ABI 0.1.0, but the module says that it is built for 0.2.1: "
        + OTHER_VERSION,
    ),
    "of 0.2.100 only": (
        function("proxy_redis_call", "iiiii:i"),
        "import env.proxy_redis_call belongs to ABI 0.2.100, but the module says that it is built for 0.2.1: "
        + OTHER_VERSION,
    ),
    "another type": (
        function("proxy_log", "ii:i"),
        "import env.proxy_log has the type (i32, i32) -> (i32), but in ABI 0.2.1 it is (i32, i32, i32) -> (i32)",
    ),
    "another type of number": (
        function("proxy_increment_metric", "ii:i"),
        "import env.proxy_increment_metric has the type (i32, i32) -> (i32), but in ABI 0.2.1 it is (i32, i64) -> (i32)",
    ),
    "no result": (
        function("proxy_done", ":"),
        "import env.proxy_done has the type () -> (), but in ABI 0.2.1 it is () -> (i32)",
    ),
    "a result too many": (
        function("proc_exit", "i:i", "wasi_unstable"),
        "import wasi_unstable.proc_exit has the type (i32) -> (i32), but in ABI 0.2.1 it is (i32) -> ()",
    ),
    "a memory": (
        ("env", "memory", "memory", None),
        "import env.memory is a memory: a filter may import functions only",
    ),
    "no type": (
        ("env", "proxy_log", "function", None),
        "import env.proxy_log has no type: the module is damaged",
    ),
}


@pytest.mark.parametrize(("wanted", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(wanted, message):
    with pytest.raises(ModuleError) as caught:
        linked(wanted)
    assert str(caught.value) == message


def test_a_span_of_versions():
    with pytest.raises(ModuleError) as caught:
        linked(function("proxy_get_log_level", "i:i"), version=V0_2_0)
    assert str(caught.value) == (
        "import env.proxy_get_log_level belongs to ABI 0.2.1 to 0.2.100, "
        "but the module says that it is built for 0.2.0: build it with one SDK, or load it with unknown_imports='stub'"
    )


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_hostcalls_of_other_versions_are_refused(version):
    others = {name: signature for text in IMPORTS.values() for name, signature in signatures(text).items()}
    for name in others.keys() - signatures(IMPORTS[version]).keys():
        with pytest.raises(ModuleError, match=rf"^import env\.{name} belongs to ABI "):
            linked(function(name, others[name]), version=version)


# -- Stubs -------------------------------------------------------------------------------------------------------

STUBS = {
    # import → result, status that is recorded
    "unknown": (function("proxy_no_such", "ii:i"), 12, 12),
    "of another version": (function("proxy_continue_request", ":i"), 12, 12),
    "without a result": (function("proxy_no_such", "II:"), None, 12),
    "WASI": (function("fd_dup", "i:i", "wasi_unstable"), 52, 52),
}


@pytest.mark.parametrize(("wanted", "result", "status"), STUBS.values(), ids=STUBS)
def test_stub(wanted, result, status):
    guest, _, [(_, _, type, call)] = linked(wanted, unknown_imports="stub")
    assert type == wanted[3]
    assert call(1, 2) == result
    assert guest.last == Call(guest.last.row, None, guest.last.result)
    assert (guest.last.row.name, guest.last.status) == (wanted[1], status)
    assert guest.last.result.reason == f"{wanted[1]} is unknown to this host"


NO_STUBS = {
    "what is not a hostcall": (function("abort", "iiii:"), f"import env.abort is offered by no Proxy-Wasm host: {BUILD}"),
    "another module's": (
        function("proxy_log", "iii:i", "envoy"),
        f"import envoy.proxy_log is offered by no Proxy-Wasm host: {BUILD}",
    ),
    "a known name of another type": (
        function("proxy_log", "ii:i"),
        "import env.proxy_log has the type (i32, i32) -> (i32), but in ABI 0.2.1 it is (i32, i32, i32) -> (i32)",
    ),
    "two results": (
        function("proxy_no_such", "i:ii"),
        "import env.proxy_no_such has the type (i32) -> (i32, i32), whose result cannot be a status",
    ),
    "another result": (
        function("proxy_no_such", ":f"),
        "import env.proxy_no_such has the type () -> (f64), whose result cannot be a status",
    ),
}


@pytest.mark.parametrize(("wanted", "message"), NO_STUBS.values(), ids=NO_STUBS)
def test_no_stub(wanted, message):
    with pytest.raises(ModuleError) as caught:
        linked(wanted, unknown_imports="stub")
    assert str(caught.value) == message


# -- Capabilities ------------------------------------------------------------------------------------------------

RESTRICTED = {
    # import, → status
    "a hostcall": (function("proxy_log", "iii:i"), (2, 0, 0), 10),
    "WASI": (function("fd_write", "iiii:i", "wasi_unstable"), (1, 0, 0, 16), 76),
    "a bad address is not looked at": (function("proxy_log", "iii:i"), (9, 1 << 31, 1 << 31), 10),
}


@pytest.mark.parametrize(("wanted", "args", "status"), RESTRICTED.values(), ids=RESTRICTED)
def test_what_is_not_allowed(wanted, args, status):
    guest, vm, [(_, _, _, call)] = linked(wanted, allowed={"proxy_done"})
    assert call(*args) == status
    assert guest.last.args is None
    assert guest.last.result.reason == f"this plugin is not allowed to use the capability {wanted[1]}"
    assert vm.logged == []


def test_what_is_allowed():
    _, vm, functions = linked(function("proxy_log", "iii:i"), function("proxy_done", ":i"), allowed=["proxy_log"])
    assert [call(*args) for (_, _, _, call), args in zip(functions, [(2, 0, 0), ()], strict=True)] == [0, 10]
    assert vm.logged == [(2, b"")]


def test_what_has_no_result_cannot_be_refused():
    guest, _, [(_, _, _, call)] = linked(function("emscripten_notify_memory_growth", "i:"), allowed=())
    assert call(0) is None
    assert guest.last.status == 0


def test_a_stub_that_is_not_allowed():
    options = {"allowed": (), "unknown_imports": "stub"}
    _, _, functions = linked(function("proxy_no_such", ":i"), function("fd_dup", ":i", "wasi_unstable"), **options)
    assert [call() for _, _, _, call in functions] == [10, 76]


# -- Restricted phases -------------------------------------------------------------------------------------------


def test_what_may_be_called_in_the_allocator():
    assert sorted(ALLOCATOR_MAY_CALL) == [
        "clock_time_get",
        "emscripten_notify_memory_growth",
        "fd_write",
        "poll_oneoff",
        "proxy_log",
    ]


def test_what_may_be_called_while_a_module_starts():
    assert ALLOCATOR_MAY_CALL <= START_MAY_CALL
    assert {row.name for row in WASI} - START_MAY_CALL == {
        "fd_read", "fd_close", "fd_seek", "path_open", "sched_yield", "proc_exit",
    }  # fmt: skip
    env = {name for version in AbiVersion for name in hostcalls_of(version)}
    assert env & START_MAY_CALL == {"proxy_log", "emscripten_notify_memory_growth"}


# -- Exports -----------------------------------------------------------------------------------------------------

MEMORY = ("memory", "memory", None)


def exported(name: str, signature: str):
    _, name, kind, type = function(name, signature)
    return name, kind, type


MALLOC = exported("malloc", "i:i")
ALLOCATE = exported("proxy_on_memory_allocate", "i:i")

EXPORTS = {
    "malloc": ([MEMORY, MALLOC], "malloc"),
    "the ABI's own": ([ALLOCATE, MEMORY], "proxy_on_memory_allocate"),
    "both": ([MEMORY, MALLOC, ALLOCATE], "proxy_on_memory_allocate"),
    "what the host does not call may be of any type": (
        [MEMORY, MALLOC, exported("proxy_on_no_such", "ff:f"), exported("proxy_abi_version_0_2_1", "i:i")],
        "malloc",
    ),
    "a callback of another version may be of any type": (
        [MEMORY, MALLOC, exported("proxy_on_redis_call_response", "i:i")],
        "malloc",
    ),
    "what is not a function is not a callback": ([MEMORY, MALLOC, ("proxy_on_log", "global", None)], "malloc"),
}


@pytest.mark.parametrize(("exports", "allocator"), EXPORTS.values(), ids=EXPORTS)
def test_exports(exports, allocator):
    assert check_exports(exports, V0_2_1) == allocator


@pytest.mark.parametrize("filter", NAMES)
def test_exports_of_filters(filter):
    module = Bytecode(code(filter))
    assert check_exports(module.exports, module.abi_version) in ("proxy_on_memory_allocate", "malloc")


NO_MEMORY = "the module exports no memory under the name 'memory', so a host cannot use it"
NO_ALLOCATOR = (
    "the module has no allocator: it exports neither proxy_on_memory_allocate nor malloc. "
    "Link the SDK's allocator in, or export malloc"
)
BAD_EXPORTS = {
    "no memory": (V0_2_1, [MALLOC], NO_MEMORY),
    "a memory of another name": (V0_2_1, [("mem", "memory", None), MALLOC], NO_MEMORY),
    "no memory, but its name": (V0_2_1, [("memory", "global", None), MALLOC], NO_MEMORY),
    "no allocator": (V0_2_1, [MEMORY], NO_ALLOCATOR),
    "no allocator, but its name": (V0_2_1, [MEMORY, ("malloc", "memory", None)], NO_ALLOCATOR),
    "an allocator of another type": (
        V0_2_1,
        [MEMORY, exported("malloc", "I:i")],
        "export malloc is not an allocator: it is not of the type (i32) -> (i32)",
    ),
    "the first allocator of another type": (
        V0_2_1,
        [MEMORY, exported("proxy_on_memory_allocate", "i:"), MALLOC],
        "export proxy_on_memory_allocate is not an allocator: it is not of the type (i32) -> (i32)",
    ),
    "headers as in 0.1.0": (
        V0_2_1,
        [MEMORY, MALLOC, exported("proxy_on_request_headers", "ii:i")],
        (
            "export proxy_on_request_headers has the type (i32, i32) -> (i32), "
            "but in ABI 0.2.1 it is (i32, i32, i32) -> (i32): is the marker proxy_abi_version_0_2_1 right?"
        ),
    ),
    "headers as in 0.2": (
        V0_1_0,
        [MEMORY, MALLOC, exported("proxy_on_response_headers", "iii:i")],
        (
            "export proxy_on_response_headers has the type (i32, i32, i32) -> (i32), "
            "but in ABI 0.1.0 it is (i32, i32) -> (i32): is the marker proxy_abi_version_0_1_0 right?"
        ),
    ),
    "no result": (
        V0_2_1,
        [MEMORY, MALLOC, exported("proxy_on_vm_start", "ii:")],
        (
            "export proxy_on_vm_start has the type (i32, i32) -> (), "
            "but in ABI 0.2.1 it is (i32, i32) -> (i32): is the marker proxy_abi_version_0_2_1 right?"
        ),
    ),
}


@pytest.mark.parametrize(("version", "exports", "message"), BAD_EXPORTS.values(), ids=BAD_EXPORTS)
def test_bad_exports(version, exports, message):
    with pytest.raises(ModuleError) as caught:
        check_exports(exports, version)
    assert str(caught.value) == message

"""Hostcalls that an embedder adds: linked, marshalled, traced, restricted and told in failures, as those of the ABI are."""

from __future__ import annotations

import re
from enum import IntEnum

import pytest

from proxywasm_host import AbiVersion, Host, ModuleError, PluginError
from proxywasm_host.abi.marshal import Calls, Guest, PythonCalls, PythonGuest, bind, bind_in_python
from proxywasm_host.hostcalls import (
    CustomHostcall,
    Hostcall,
    Kind,
    Param,
    Refusal,
    Status,
    data,
    data_out,
    hostcall,
    i32,
    i64,
    pairs,
    pairs_out,
    u32,
    u32_out,
    u64,
    u64_out,
)
from proxywasm_host.services import QuotaExceeded
from tests.abi.fakes import FakeVm
from tests.support import FILTERS, REQUEST, Trace, code, wat

SECRETS = {b"token": b"s3cret"}


@hostcall("proxy_get_secret", data("name"), data_out("secret"))
def get_secret(vm, name):
    """Secrets by name."""
    return SECRETS.get(name) or Refusal(Status.NOT_FOUND, "no secret is called {0}", name)


@hostcall("proxy_kv_store_open", data("name"), u32_out("handle"))
def kv_store_open(vm, name):
    return 7 if name == b"store" else Refusal(Status.NOT_FOUND, "no store is called {0}", name)


BOTH = [get_secret, kv_store_open]


def sent(host, plugin) -> dict[bytes, bytes]:
    """What the filter has added to a request."""
    with host.http_stream([plugin]) as stream:
        effects = stream.request_headers(REQUEST, True)
    return dict(effects[0].headers[len(REQUEST) :])


def test_a_filter_is_answered(engine, services):
    with Host(engine, services=services, hostcalls=BOTH) as host:
        assert sent(host, host.load_plugin(code("c/secrets"), configuration="token")) == {b"x-secret": b"s3cret", b"x-store": b"7"}
        assert sent(host, host.load_plugin(code("c/secrets"), configuration="other")) == {b"x-status": b"1", b"x-store": b"7"}


def test_they_are_traced(engine, services):
    trace = Trace()
    with Host(engine, services=services, hostcalls=BOTH, listener=trace) as host:
        sent(host, host.load_plugin(code("c/secrets"), configuration="token"))
        sent(host, host.load_plugin(code("c/secrets"), configuration="other"))
    assert [call for call in trace.hostcalls if "secret(" in call or "kv_" in call] == [
        "proxy_get_secret(name='token') = OK 's3cret'",
        "proxy_kv_store_open(name='store') = OK 7",
        "proxy_get_secret(name='other') = NOT_FOUND: no secret is called other",
        "proxy_kv_store_open(name='store') = OK 7",
    ]


def test_they_are_capabilities(engine, services):
    allowed = ["proxy_on_request_headers", "proxy_add_header_map_value", "proxy_kv_store_open", "proxy_on_configure"]
    trace = Trace()
    with Host(engine, services=services, hostcalls=BOTH, listener=trace) as host:
        plugin = host.load_plugin(code("c/secrets"), configuration="token", capabilities=allowed)
        assert sent(host, plugin) == {b"x-status": b"10", b"x-store": b"7"}
    assert "proxy_get_secret(…) = INTERNAL_FAILURE: this plugin is not allowed to use the capability proxy_get_secret" in trace.hostcalls


def test_without_them_the_filter_is_refused_with_what_could_be_done(engine, services):
    with Host(engine, services=services) as host, pytest.raises(ModuleError) as refused:
        host.load_plugin(code("c/secrets"))
    assert str(refused.value) == (
        "import env.proxy_get_secret is offered by no Proxy-Wasm host: "
        "load it with unknown_imports='stub' to have it answer UNIMPLEMENTED, or add it with Host(hostcalls=[…])"
    )


def test_one_plugin_may_have_its_own(engine, services):
    @hostcall("proxy_get_secret", data("name"), data_out("secret"))
    def other(vm, name):
        return b"of " + vm.context.name.encode()

    with Host(engine, services=services, hostcalls=BOTH) as host:
        one = host.load_plugin(code("c/secrets"), configuration="token", name="one")
        two = host.load_plugin(code("c/secrets"), configuration="token", name="two", hostcalls=[other, kv_store_open])
        again = host.load_plugin(code("c/secrets"), configuration="token", name="again")
        assert (one._vm is again._vm, one._vm is two._vm) == (True, False)
        assert [sent(host, plugin)[b"x-secret"] for plugin in (one, two)] == [b"s3cret", b"of two"]
        with pytest.raises(ModuleError, match="proxy_kv_store_open is offered by no Proxy-Wasm host"):
            host.load_plugin(code("c/secrets"), hostcalls=[other])


def test_of_another_version_of_the_abi(engine, services):
    since = hostcall("proxy_get_secret", data("name"), data_out("secret"), since=AbiVersion.V0_2_100)(lambda *_: b"")
    with Host(engine, services=services, hostcalls=[since, kv_store_open]) as host, pytest.raises(ModuleError) as refused:
        host.load_plugin(code("c/secrets"))
    assert str(refused.value).startswith("import env.proxy_get_secret belongs to ABI 0.2.100, but the module says")


def test_of_another_type(engine, services):
    wrong = hostcall("proxy_get_secret", u32("name"), data_out("secret"))(lambda *_: b"")
    with Host(engine, services=services, hostcalls=[wrong, kv_store_open]) as host, pytest.raises(ModuleError) as refused:
        host.load_plugin(code("c/secrets"))
    assert "proxy_get_secret has the type (i32, i32, i32, i32) -> (i32), but in ABI 0.2.1 it is (i32, i32, i32) -> (i32)" in str(refused.value)


def raises(error: Exception):
    def handler(vm, name):
        raise error

    return handler


FAILS = {
    "an error": (raises(KeyError("x")), "KeyError in the host: 'x'"),
    "nothing": (
        lambda *_: None,
        "TypeError in the host: the handler of proxy_get_secret returned None for secret, and not bytes or a Refusal",
    ),
    "text": (
        lambda *_: "text",
        "TypeError in the host: the handler of proxy_get_secret returned 'text' for secret, and not bytes or a Refusal",
    ),
}


@pytest.mark.parametrize(("handler", "says"), FAILS.values(), ids=FAILS)
def test_a_handler_that_fails_is_told_in_the_failure(engine, services, handler, says):
    wrong = hostcall("proxy_get_secret", data("name"), data_out("secret"))(handler)
    with Host(engine, services=services, hostcalls=[wrong, kv_store_open]) as host:
        plugin = host.load_plugin(code("c/secrets"), configuration="token")
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
        assert (plugin.failure.kind, plugin.failure.message) == ("host", says)


def test_what_was_asked_is_in_the_report_of_a_failure(engine, services):
    text = """(module
    (import "env" "proxy_get_secret" (func $get (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (data (i32.const 0) "key")
    (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) i32.const 64)
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (drop (call $get (i32.const 0) (i32.const 3) (i32.const 8) (i32.const 12))) unreachable))"""
    with Host(engine, services=services, hostcalls=BOTH) as host:
        plugin = host.load_plugin(wat(text))
        with host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST, True)
        assert plugin.failure.report().splitlines()[-1].strip() == (
            "proxy_get_secret(name='key') = NOT_FOUND: no secret is called key"
        )


def test_no_room_is_an_internal_failure(engine, services):
    full = hostcall("proxy_get_secret", data("name"), data_out("secret"))(raises(QuotaExceeded("the safe is full")))
    trace = Trace()
    with Host(engine, services=services, hostcalls=[full, kv_store_open], listener=trace) as host:
        assert sent(host, host.load_plugin(code("c/secrets"), configuration="token"))[b"x-status"] == b"10"
    assert "proxy_get_secret(name='token') = INTERNAL_FAILURE: the safe is full" in trace.hostcalls


# -- Every kind of parameter -----------------------------------------------------------------------------------------


class Side(IntEnum):
    LEFT = 0
    RIGHT = 1


class Memory:
    """Of a guest that is not there."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(4096))

    def refresh(self) -> bool:
        return False


ODD = ("row", "guest", "result", "args", "view", "error", "class", "a b", "a", "a_at", "handler")
"""Names that a parameter may have, whatever the marshaller has of such names."""


@pytest.mark.parametrize(
    ("bind", "Guest", "Calls"), [(bind_in_python, PythonGuest, PythonCalls), (bind, Guest, Calls)], ids=["in Python", "as used"]
)
def test_every_kind_of_parameter(bind, Guest, Calls):
    seen = []

    @hostcall(
        "proxy odd/name",
        u32(ODD[0], Side), i32(ODD[1]), u64(ODD[2]), i64(ODD[3]), data(ODD[4]), pairs(ODD[5]),
        u32_out(ODD[6]), u64_out(ODD[7]), data_out(ODD[8]), pairs_out(ODD[9]),
    )  # fmt: skip
    def odd(vm, *inputs):
        seen.append(inputs)
        return 5, 1 << 40, b"bytes", [(b"n", b"v")]

    calls = Calls(4)
    guest = Guest(calls.append, None)
    guest.memory = memory = Memory()
    free = iter((2048, 3072))
    guest.use_allocator(lambda _: next(free))
    memory.view[0:4] = b"data"
    memory.view[16:33] = bytes.fromhex("01000000 01000000 01000000") + b"k\0v\0\0"
    call = bind(odd.row, AbiVersion.V0_2_1, odd.bound(), FakeVm(), guest)
    assert call.__name__ == "proxy odd/name"
    assert call(1, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1, 0, 4, 16, 16, 100, 104, 112, 116, 120, 124) == 0
    assert seen == [(1, -1, 1 << 63, -1, b"data", [(b"k", b"v")])]
    assert bytes(memory.view[100:104]) == (5).to_bytes(4, "little")
    assert bytes(memory.view[104:112]) == (1 << 40).to_bytes(8, "little")
    assert bytes(memory.view[2048:2053]) == b"bytes"
    assert bytes(memory.view[3072:3074]) == b"\1\0"
    assert call(2, *[0] * 13) == Status.BAD_ARGUMENT
    assert list(calls)[-1][2].reason == "row is 2, at most 1 is known"


# -- What cannot be a hostcall ---------------------------------------------------------------------------------------


def nothing(vm):
    return None


async def waits(vm):
    return None


def made(*args, **more):
    return lambda: hostcall(*args, **more)(nothing)


BAD = {
    "a name of ours": (made("proxy_log"), ValueError, "proxy_log is a function of the ABI, which an embedder cannot replace"),
    "one of another version": (made("proxy_redis_call"), ValueError, "proxy_redis_call is a function of the ABI, which an embedder cannot replace"),
    "one of WASI": (made("fd_write"), ValueError, "fd_write is a function of the ABI, which an embedder cannot replace"),
    "no name": (made(""), TypeError, "a hostcall has a name of text, such as 'proxy_get_secret', not ''"),
    "a name of bytes": (made(b"x"), TypeError, "a hostcall has a name of text, such as 'proxy_get_secret', not b'x'"),
    "a parameter of text": (made("x", "name"), TypeError, "x: a parameter is made with data(…), u32(…), data_out(…) or the like; 'name' is not"),
    "a list of parameters": (
        lambda: CustomHostcall(Hostcall("x", [u32("a")]), nothing),
        TypeError,
        "x: parameters are a tuple of data(…), u32(…), data_out(…) and the like",
    ),
    "no row": (lambda: CustomHostcall("x", nothing), TypeError, "a row is a Hostcall(name, params), not 'x'"),
    "no kind": (made("x", Param("a", "u32")), TypeError, "x: a parameter has a name of text and a Kind, not 'a' and 'u32'"),
    "a name with braces": (made("x", u32("{a}")), ValueError, "x: a parameter cannot be called '{a}', because its name is part of messages"),
    "one name twice": (made("x", u32_out("a"), u32_out("a")), ValueError, "x: two parameters have one name"),
    "too many": (made("x", *(u32_out(str(n)) for n in range(17))), ValueError, "x has 17 parameters, and 16 is the limit"),
    "another result": (made("x", returns="i64"), ValueError, "x returns 'i64': a hostcall returns 'i32', its status, or None"),
    "no version": (made("x", since="0.2.1"), ValueError, "x: since and until are versions of the ABI, the older one first"),
    "versions in a wrong order": (
        made("x", since=AbiVersion.V0_2_1, until=AbiVersion.V0_2_0),
        ValueError,
        "x: since and until are versions of the ABI, the older one first",
    ),
    "bounds of bytes": (made("x", Param("a", Kind.BYTES, Side)), ValueError, "x: a can be bounded by an IntEnum only if it is a u32"),
    "bounds of no enumeration": (made("x", u32("a", 5)), ValueError, "x: a can be bounded by an IntEnum only if it is a u32"),
    "early bytes": (made("x", Param("a", Kind.BYTES_OUT, early=True)), ValueError, "x: a is not a number of 32 bits, so it cannot be written early"),
    "an optional number": (made("x", Param("a", Kind.U32_OUT, optional=True)), ValueError, "x: a cannot be optional: only a result of bytes can"),
    "a handler that is none": (lambda: hostcall("x")(5), TypeError, "the handler of x is a function, not 5"),
    "one that waits": (lambda: hostcall("x")(waits), TypeError, "the handler of x is asynchronous, but the guest waits for it: use a plain function"),
    "one that takes too little": (made("x", u32("a"), data("b")), TypeError, "the handler of x takes (vm): it is called with (vm, a, b)"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), BAD.values(), ids=BAD)
def test_what_cannot_be_a_hostcall(make, kind, says):
    with pytest.raises(kind) as refused:
        make()
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ([nothing], TypeError, "a hostcall is a function decorated with @hostcall(name, …), not <function nothing at"),
        (get_secret, TypeError, "hostcalls are a list of functions decorated with @hostcall(…), not <hostcall proxy_get_secret>"),
        (5, TypeError, "hostcalls are a list of functions decorated with @hostcall(…), not 5"),
        ([get_secret, CustomHostcall(get_secret.row, get_secret.handler)], ValueError, "two hostcalls are called proxy_get_secret"),
    ],
)
def test_what_a_host_does_not_take(given, kind, says):
    with pytest.raises(kind) as refused:
        Host("wasmtime", hostcalls=given)
    assert str(refused.value).startswith(says)


def test_the_example_prints_what_is_under_it(capsys, monkeypatch):
    root = FILTERS.parent.parent
    monkeypatch.chdir(root)
    text = (root / "docs/hostcalls.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    exec(blocks["python"], {})
    assert capsys.readouterr().out == blocks["text"]


def test_while_a_module_starts_they_are_refused(engine, services):
    text = """(module
    (import "env" "proxy_get_secret" (func $get (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) i32.const 64)
    (func (export "_initialize") (drop (call $get (i32.const 0) (i32.const 3) (i32.const 8) (i32.const 12)))))"""
    with Host(engine, services=services, hostcalls=BOTH) as host, pytest.raises(PluginError) as refused:
        host.load_plugin(wat(text))
    assert refused.value.failure.message == (
        "restricted: proxy_get_secret was called where it may not be (in the allocator, or while the module starts)"
    )

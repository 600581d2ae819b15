"""Expressions in CEL that Envoy evaluates otherwise or not at all. What both do alike is asked in tests/envoy."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

import pytest

from proxywasm_host.abi.hostcalls.foreign import proxy_call_foreign_function
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.services import ForeignCallFailed, expressions
from proxywasm_host.services.expressions import Expression
from tests.abi.fakes import FakeVm

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the package needs Python 3.11")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1].all(x, x > 0)", "a loop (all, exists, map, filter) is not evaluated here"),
        ("{'a': [request.path].map(x, x)}", "a loop "),
        ("f.x(size([1].filter(x, true)))", "a loop "),
        ("request.path.map(1, 2, 3, 4)", "no function of CEL is called 'map'"),
        ("a.b(1)", "no function of CEL is called 'b'"),
        ("&&".join(["a.matches('b')"] * 17), "the expression calls matches more than 16 times"),
        ("a.matches(b)", "the regular expression of matches must be a constant"),
        ("matches(a, b + 'c')", "the regular expression of matches must be a constant"),
        ("a.matches('((a{1,100}){1,100}b)')", "the regular expressions have 10102 states, at most 10000"),
        (r"a.matches(r'\pL{9}')", "the regular expressions have 13527 states, at most 10000"),
        ("1" * 4097, "the expression has 4097 characters, at most 4096"),
        ("(" * 1000 + ")" * 1000, "no expression in CEL: "),
        ("1+" * 1000 + "1", "no expression in CEL: "),
        ("\0", "no expression in CEL: "),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(ForeignCallFailed) as caught:
        Expression(text)
    assert str(caught.value).startswith(said)
    assert caught.value.status == 2


LONG = {"a": "a" * 500_000, "b": "a" * 250_000 + "b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.contains(b)", "562504500009 characters to compare, at most 1000000000"),
        ("[a, a, a, a, a, a]", "4500018 characters to read, at most 4194304"),
        ("(a + b).contains(a)", "characters to compare"),
        ("(a + a + a).startsWith(b) || {a: b}[a] == a", "characters to read"),
        ("a.matches('(a|b)*a(a|b){100}c')", "characters by states of regular expressions"),
    ],
)
def test_properties_that_are_too_long_for_it(text, said):
    """Each would take tenths of a second and more, and no deadline ends it."""
    expression = Expression(text)
    with pytest.raises(ForeignCallFailed, match=said) as caught:
        expression.evaluate(LONG)
    assert caught.value.status == 10


def test_long_properties_that_are_quick_to_look_at():
    assert Expression("a.contains('ab') || b.endsWith('ab') && size(a) > 9 && a != b").evaluate(LONG)
    uuid = "r'^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$'"
    path = {"a": "01234567-89ab-cdef-0123-456789abcdef"}
    assert Expression(" || ".join([f"a.matches({uuid})"] * 16)).evaluate(path)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a", "a"),
        ("a.b.c + d", "d a.b.c"),
        ("request.headers['x'].size() > size(request['path'])", "request.path request.headers.x"),
        ("{a.b: c}[d] ? [e] : -f", "c d e f a.b"),
        ("has(a.b) && x.y.startsWith('z')", "a.b x.y"),
        ("a[0].b[c.d]", "a c.d"),
        ("google.protobuf.Int32Value{value: a.b}", "a.b"),
        ("'request.path'", ""),
    ],
)
def test_the_properties_that_an_expression_asks_for(text, paths):
    assert sorted(".".join(path) for path in Expression(text).paths) == sorted(paths.split())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("t + d", datetime(2020, 1, 1, 0, 0, 3, tzinfo=timezone.utc)),
        ("m['k'] + m.l[1]", 3),
        ("b", b"\xff"),
        ("n == null", True),
        ("s", "a\ufffd"),
        ("[t, d]", [datetime(2020, 1, 1, tzinfo=timezone.utc), timedelta(seconds=3)]),
    ],
)
def test_values_of_all_types(text, value):
    given = {
        "t": datetime(2020, 1, 1, tzinfo=timezone.utc), "d": timedelta(seconds=3), "b": b"\xff", "n": None,
        "m": {"k": 1, "l": (1, 2)}, "s": "a\udcff",
    }  # fmt: skip
    assert Expression(text).evaluate(given) == value


def test_tokens(monkeypatch):
    vm = FakeVm()
    assert [proxy_call_foreign_function(vm, b"expr_create", b"1") for _ in "ab"] == [bytes(4), b"\1\0\0\0"]
    monkeypatch.setattr(vm.context.root.expressions, "_next", 0xFFFFFFFF)
    assert proxy_call_foreign_function(vm, b"expr_create", b"1") == b"\xff" * 4
    assert proxy_call_foreign_function(vm, b"expr_create", b"1") == b"\2\0\0\0"  # 0 and 1 are taken
    assert proxy_call_foreign_function(vm, b"expr_delete", bytes(4)) == b""
    assert proxy_call_foreign_function(vm, b"expr_evaluate", bytes(4)).status == 1


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    expressions._environment.cache_clear()
    found = proxy_call_foreign_function(FakeVm(), b"expr_create", b"1")
    assert isinstance(found, Refusal)
    assert (found.status, found.reason.partition(":")[0]) == (1, "cel_expr_python is not installed")

"""``proxywasm fuzz``: each check finds what breaks it, and what is printed shows it again."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

import pytest

from proxywasm_host import FilterConfig, open_engine
from proxywasm_host.fuzz import CHECKS, Subject
from proxywasm_host.fuzz.check import Finding, check, check_memory
from proxywasm_host.fuzz.example import Example, Reply
from proxywasm_host.testing.scenario import literal
from tests.cli.conftest import AUTH, BODY, HEADERS, PANICS, PROBE
from tests.support import FILTERS

LOCAL = 'send_local_response 200 "" "" "" -1'


def fails(text: str) -> bool:
    """Whether the test that is printed fails by its assertion."""
    names: dict = {}
    exec(text, names)
    test = next(value for name, value in names.items() if name.startswith("test_"))
    try:
        test()
    except AssertionError:
        return True
    return False


def printed(result) -> tuple[str, str, str]:
    """What was found, the command line (or nothing), and the test."""
    head, _, test = result.out.partition("from proxywasm_host.testing import ")
    found, _, shown = head.strip().partition("\n\n")
    return found, shown, f"from proxywasm_host.testing import {test}"


def test_nothing_is_found(proxywasm, engine):
    result = proxywasm("fuzz", PROBE, "--engine", engine.name, "--examples", 20)
    assert (result.code, result.out) == (0, f"20 requests on {engine.name}: no check failed.\n")


def test_a_trap(proxywasm, engine):
    words = ("fuzz", PANICS, "--config", "response_headers", "--engine", engine.name, "--examples", 20)
    result = proxywasm(*words)
    assert result.code == 1
    found, shown, test = printed(result)
    assert found.startswith("trap: the guest does not trap: ")
    assert found.endswith("in proxy_on_response_headers")
    assert fails(test)
    assert proxywasm(*shlex.split(shown)[1:]).code == 5
    assert proxywasm(*words).out == result.out  # the same seed finds the same
    assert proxywasm(*words, "--without", "trap", "--without", "memory").code == 0


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("local", f"@on_request_headers\n{LOCAL}\n{LOCAL}\nreturn 1", "2 were sent"),
        ("pause", "@on_response_headers\nreturn 1", "probe_0_2_1 holds the response"),
        ("memory", "@on_request_headers\ngrow 1", "by 65536 bytes on "),
    ],
)
def test_what_else_has_to_hold(proxywasm, engine, monkeypatch, name, script, said):
    monkeypatch.setattr("proxywasm_host.fuzz.check.ROUND", 10)
    words = ("--examples", 20, "--engine", engine.name, "--root-id", "r", "--vm-config", "#v")
    result = proxywasm("fuzz", PROBE, "--config", f"\n{script}", *words)
    found, shown, test = printed(result)
    assert (result.code, found.startswith(f"{name}: {CHECKS[name]}: "), said in found) == (1, True, True), result.out
    assert (shown == "") == (name == "memory")
    assert ("--vm-config '#v' --root-id r" in shown) == (name != "memory")
    assert "vm_configuration=b'#v', root_id='r')" in test
    assert fails(test)


def test_a_value_that_is_no_text(command):
    """What the Rust SDK's get_http_request_header makes of it."""
    found, shown, test = printed(command("fuzz", HEADERS, "--engine", "wasmtime"))
    assert found == "trap: the guest does not trap: unreachable in proxy_on_request_headers"
    assert shown == ""
    assert "\\udcff" in test
    assert fails(test)


def test_chunks_that_make_a_difference(command):
    found, shown, test = printed(command("fuzz", BODY, "--engine", "wasmtime"))
    assert found == (
        "chunks: the result does not depend on how a body is cut: "
        "the client gets <Response status 200; x-body: rewritten; body b'foo'> in these chunks, "
        "<Response status 200; x-body: rewritten; body b'bar'> in one"
    )
    assert shown == ""
    assert fails(test)
    assert command("fuzz", BODY, "--engine", "wasmtime", "--without", "chunks").code == 0


def test_callouts_that_are_never_answered(command):
    script = '@on_request_headers\nhttp_call idp :method=GET&:path=/&:authority=x "" "" 100000\nif_status 0\nreturn 1\n'
    script += "@on_http_call_response\nset_effective_context $stream\ncontinue_stream 0"
    words = ("--config", f"\n{script}", "--engine", "wasmtime", "--cluster", "idp")
    found, shown, test = printed(command("fuzz", PROBE, *words))
    assert found.startswith("pause: ")
    assert shown == ""
    assert "NEVER" in test
    assert fails(test)
    words = ("--config", "callout:idp", "--engine", "wasmtime", "--cluster", "idp")
    result = command("fuzz", AUTH, *words, "--without", "trap")  # the Rust SDK panics on headers that are not UTF-8
    assert (result.code, result.err) == (0, "")


@pytest.mark.several_engines
def test_engines_that_do_not_agree(monkeypatch):
    engines = ("wasmtime", "v8")
    subject = Subject(FilterConfig(FILTERS / "rust/headers.wasm", configuration=b"one"), engines)
    check(subject, Example(), frozenset(CHECKS))
    send = Subject.send

    def otherwise(self, example, engine):
        other = Subject(replace(self.filter, configuration=b"two"), self.engines) if engine == "v8" else self
        return send(other, example, engine)

    monkeypatch.setattr(Subject, "send", otherwise)
    with pytest.raises(Finding, match="wasmtime 'x-wasm: one', v8 'x-wasm: two'") as caught:
        check(subject, Example(), frozenset(CHECKS))
    assert caught.value.command(subject) == (
        f"proxywasm run {FILTERS / 'rust/headers.wasm'} GET / --config one --engine all --ticks 10 --framing http2"
    )
    assert not fails(caught.value.test(subject))


def test_memory_that_grows_and_then_does_not(engine):
    """A guest whose memory grows in one request is none that leaks."""
    subject = Subject(FilterConfig(FILTERS / "c/probe_0_2_1.wasm", configuration="@on_request_headers/2\n@on_configure\ngrow 3"), (engine.name,))
    check_memory(subject, Example())


def test_a_client_that_leaves_and_replies_as_they_are_written():
    example = Example(
        "POST", "/", (("x-long", "a" * 50),), (b"a", b"b", b"c"), status=404, leaves_after=2,
        replies={"a": Reply("late", 200, b"x"), "b": Reply("fail"), "c": Reply("answer", 500)},
    )  # fmt: skip
    assert example.command("f.wasm", []) == ""
    scenario = example.scenario
    assert [*scenario.source()] == [
        "f.upstream = Response(404)",
        "with f.stream('POST', '/', {'x-long': 'a' * 50}, chunks=[b'a', b'b', b'c']) as stream:",
        "    stream.request_headers()",
        "    stream.request_body(b'a')",
        "outcome = stream.result",
    ]
    assert [*scenario.answers_source("f")] == [
        "f.http['a'] = later(0.05, Response(200, chunks=[b'x']))",
        "f.grpc['a'] = later(0.05, b'x')",
        "f.redis['a'] = later(0.05, b'x')",
        *(f"f.{kind}['b'] = FAIL" for kind in ("http", "grpc", "redis")),
        "f.http['c'] = Response(500)",
        "f.grpc['c'] = GrpcStatus(14, 'no')",
        "f.redis['c'] = b''",
    ]
    with Subject(FilterConfig(FILTERS / "rust/headers.wasm")).harness("wasmtime") as harness:
        outcome = scenario.send(harness(FILTERS / "rust/headers.wasm"))
    assert (outcome.upstream.body, outcome.response) == (b"a", None)
    assert literal(["a", b"b" * 41]) == "['a', b'b' * 41]"


def test_wrong_use(command, tmp_path, monkeypatch):
    odd = tmp_path / "odd.wasm"
    odd.write_bytes(b"no module")
    for words, code, said in (
        (["nowhere.wasm"], 2, "cannot read the filter nowhere.wasm: No such file or directory"),
        ([odd], 3, "odd.wasm: "),
        ([HEADERS, "--engine", "nope"], 4, "no engine is called 'nope'"),
        ([AUTH], 5, "refused its configuration"),
    ):
        result = command("fuzz", *words)
        assert (result.code, said in result.complaint) == (code, True), result.complaint
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    for name in ("", ".search"):
        monkeypatch.delitem(sys.modules, f"proxywasm_host.fuzz{name}", raising=False)
    result = command("fuzz", HEADERS)
    assert (result.code, "proxywasm fuzz needs more: hypothesis is not installed: " in result.complaint) == (2, True)


def test_names_of_the_command_are_those_of_the_checks():
    from proxywasm_host.cli.fuzz import NAMES

    assert set(NAMES) == set(CHECKS)
    assert open_engine("wasmtime")

"""What guests write to standard output and standard error: whole lines in the log, one entry in a failure's report."""

from __future__ import annotations

import pytest

from proxywasm_host import Limits, PluginError
from proxywasm_host.abi.marshal import Calls, PythonCalls, Refusal
from proxywasm_host.abi.table import HOSTCALLS, WASI
from tests.support import REQUEST, code, wat

INFO, ERROR = 2, 4


def lines(log) -> list[tuple[str, int, str]]:
    """Without what the probe says of each call."""
    return [(line.plugin, line.level, line.message) for line in log.lines if "fd_write(" not in line.message]


def runs(host, plugin) -> None:
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)


WRITES = {
    "one piece": (["1 a%0a"], [(INFO, "a")]),
    "several pieces": (["1 a", "1 b", '1 ""', "1 c%0a"], [(INFO, "abc")]),
    "two lines in one": (["1 a%0ab%0a"], [(INFO, "a\nb")]),
    "the end and the beginning of another": (["1 a", "1 b%0ac", "1 d%0a"], [(INFO, "ab"), (INFO, "cd")]),
    "an empty line": (["1 a%0a", "1 %0a", "1 b%0a"], [(INFO, "a"), (INFO, ""), (INFO, "b")]),
    "no end": (["1 a", "1 b"], [(INFO, "ab")]),
    "both streams": (["1 o", "2 e", "1 ut%0a", "2 rr%0a"], [(INFO, "out"), (ERROR, "err")]),
    "a character in two pieces": (["1 %c3", "1 %a9%0a"], [(INFO, "é")]),
    "a line without an end": (
        ["1 fill:x:10000", "1 fill:y:10000", "1 z%0a"],
        [(INFO, "x" * 10000 + "y" * 10000), (INFO, "z")],
    ),
    "a large piece": (["1 fill:x:100000"], [(INFO, "x" * 100000)]),
}


@pytest.mark.parametrize(("writes", "told"), WRITES.values(), ids=WRITES)
def test_lines(host, probe, log, writes, told):
    runs(host, probe("\n".join(["@on_request_headers", *(f"fd_write {write}" for write in writes)])))
    assert [(level, message) for _, level, message in lines(log)] == told


def test_a_line_ends_with_the_callback_at_the_latest(host, probe, log):
    plugin = probe("@on_request_headers\nfd_write 1 request\n@on_log\nfd_write 1 log")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        assert [message for _, _, message in lines(log)] == ["request"]
    assert [message for _, _, message in lines(log)] == ["request", "log"]


def test_a_line_is_its_writers_own(host, probe, log):
    """The context that began it is the one that is named, and another VM's lines are not mixed with it."""
    script = "@on_request_headers\nfd_write 2 {0}-\nfd_write 2 {0}%0a"
    plugins = [probe(script.format(name), name=name, vm_id=name) for name in ("one", "two")]
    with host.http_stream(plugins) as stream:
        stream.request_headers(REQUEST, True)
    assert lines(log) == [("one", ERROR, "one-one"), ("two", ERROR, "two-two")]


@pytest.mark.parametrize("end", ["trap", "loop", "return 0"])
def test_what_was_written_before_a_failure_is_told_before_it(host, probe, log, end):
    order = []
    log.log = lambda line: order.append(line.message) if "fd_write(" not in line.message else None
    script = f"@on_request_headers\nfd_write 2 panic:%20\nfd_write 2 boom\n{end}"
    plugin = probe(script, limits=Limits(deadline=0.5))
    plugin.on_failure.append(lambda failure: order.append(failure.kind))
    runs(host, plugin)
    assert order == ["panic: boom", *{"trap": ["trap"], "loop": ["deadline"], "return 0": []}[end]]


def test_so_it_is_of_a_guest_that_does_not_start(host, probe, log):
    with pytest.raises(PluginError):
        probe("@on_configure\nfd_write 2 bad%20\nfd_write 2 configuration\nreturn 0")
    assert lines(log) == [("probe", ERROR, "bad configuration")]


def test_and_of_one_that_starts(host, log):
    host.load_plugin(code("c/hello"), environment={"GREETING": "hello from the host"})
    assert any("hello from the host" in message for message in log.messages)
    assert not any(message == "\n" for message in log.messages)


# -- The last hostcalls ----------------------------------------------------------------------------------------------


PANICS = wat("""(module
  (import "env" "proxy_done" (func $done (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\08\\00\\00\\00\\06\\00\\00\\00panic \\10\\00\\00\\00")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 0)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $left i32)
    (drop (call $done))
    (local.set $left (i32.const 40))
    (loop $again
      (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 20)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    unreachable))""")


@pytest.mark.parametrize("listens", [False, True])
def test_a_panic_in_pieces_pushes_nothing_out_of_the_report(host, log, listens):
    if not listens:
        host.listen(None)
    plugin = host.load_plugin(PANICS)
    runs(host, plugin)
    assert [call.row.name for call in plugin.failure.hostcalls] == ["proxy_done", "fd_write"]
    assert [line.strip() for line in plugin.failure.report().splitlines()[-2:]] == [
        "proxy_done() = NOT_FOUND: on_done of context 2 is not pending",
        f"fd_write(fd=2, data='{'panic ' * 16}'… (240 bytes)) = OK 240",
    ]
    assert log.messages == ["panic " * 40]


WRITE = next(row for row in WASI if row.name == "fd_write")
OTHER = next(row for row in HOSTCALLS if row.name == "proxy_done")


def out(text: bytes, fd: int = 1):
    return WRITE, (fd, text), len(text)


BAD = Refusal(8, "no such")
RECORDS = {
    "pieces": ([out(b"a"), out(b"b"), out(b"c")], [out(b"abc")]),
    "two streams in turn": (
        [out(b"a"), out(b"x", 2), out(b"b"), out(b"y", 2)],
        [out(b"ab"), out(b"xy", 2)],
    ),
    "another between them": ([out(b"a"), (OTHER, (), None), out(b"b")], [out(b"a"), (OTHER, (), None), out(b"b")]),
    "what is refused stays": (
        [out(b"a"), (WRITE, (5, b"x"), BAD), (WRITE, (5, b"x"), BAD), out(b"b")],
        [out(b"a"), (WRITE, (5, b"x"), BAD), (WRITE, (5, b"x"), BAD), out(b"b")],
    ),
    "what could not be read": ([(WRITE, None, BAD), out(b"a"), out(b"b")], [(WRITE, None, BAD), out(b"ab")]),
    "a kilobyte of text": (
        [out(b"x" * 1000), out(b"y" * 1000), out(b"z")],
        [(WRITE, (1, b"x" * 1000 + b"y" * 24), 2001)],
    ),
    "one large piece is as it was": ([out(b"x" * 5000), out(b"y")], [(WRITE, (1, b"x" * 5000), 5001)]),
    "the oldest goes": ([(OTHER, (), None)] * 6 + [out(b"a"), out(b"b")], [(OTHER, (), None)] * 3 + [out(b"ab")]),
}


@pytest.mark.parametrize("kind", [Calls, PythonCalls], ids=["used", "in Python"])
@pytest.mark.parametrize("name", RECORDS)
def test_what_is_remembered(kind, name):
    given, kept = RECORDS[name]
    calls = kind(4)
    for call in given:
        calls.append(call)
    assert list(calls) == kept
    assert len(calls) == len(kept)

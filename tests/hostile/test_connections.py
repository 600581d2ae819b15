"""Guests between the two sides of a connection: they are ended, what they hold is bounded, and others go on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from proxywasm_host import Limits, Plugin
from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.types import Status
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.filter_chain import BACKPRESSURE_LIMITS
from tests.hostile.conftest import MEMORY, SHORT, Neighbourhood
from tests.support import wat

MODULE = """(module
  (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (memory (export "memory") 20) (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  {})"""
DATA = '(func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) {})'
CLOSED = '(func (export "proxy_on_{}_connection_close") (param i32 i32) {})'
ENDLESS = {
    "when it begins": '(func (export "proxy_on_new_connection") (param i32) (result i32) (loop $l (br $l)) (i32.const 0))',
    "with hostcalls that end it": DATA.format(
        """(loop $l (drop (call $close (i32.const 2))) (drop (call $close (i32.const 3)))
        (drop (call $continue (i32.const 2))) (br $l)) (i32.const 0)"""
    ),
    "with properties, each of another name": DATA.format(
        """(loop $l (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1)))
        (drop (call $property (i32.const 64) (i32.const 4) (i32.const 4096) (i32.const 60000))) (br $l)) (i32.const 0)"""
    ),
    "when downstream is gone": CLOSED.format("downstream", "(loop $l (br $l))"),
    "when upstream is gone": CLOSED.format("upstream", "(loop $l (br $l))"),
}


def loaded(neighbourhood: Neighbourhood, code: str, deadline: float) -> Plugin:
    return neighbourhood.host.load_plugin(wat(MODULE.format(code)), name="bad", limits=Limits(MEMORY, deadline))


def lived(neighbourhood: Neighbourhood, plugins: Sequence[Plugin]) -> list[Effect]:
    """What comes of a connection."""
    stream = neighbourhood.host.tcp_stream(plugins)
    effects = [*stream.new_connection(), *stream.downstream_data(b"down"), *stream.upstream_data(b"up", True)]
    return [*effects, *stream.downstream_data(b"", True), *stream.close()]


@pytest.mark.parametrize("where", ENDLESS)
def test_endless(where: str, neighbourhood: Neighbourhood) -> None:
    bad = loaded(neighbourhood, ENDLESS[where], SHORT)
    lived(neighbourhood, [bad])
    assert bad.failure is not None
    assert "deadline of 0.25 s exceeded" in bad.failure.message
    bad.close()
    neighbourhood.check()


def test_data_that_grows_while_it_is_held(neighbourhood: Neighbourhood) -> None:
    """By a megabyte with each part: more than the host would keep for a connection is refused."""
    grow = "(drop (call $set (i32.const 2) (i32.const 0x7fffffff) (i32.const 0) (i32.const 4096) (i32.const 1048576)))"
    bad = loaded(neighbourhood, DATA.format(f"{grow} (i32.const 1)"), 10)
    stream = neighbourhood.host.tcp_stream([bad])
    stream.new_connection()
    for _ in range(20):
        assert stream.downstream_data(b"part") == []
    assert bad._vm is not None
    assert Call(*list(bad._vm.calls)[-1]).status == Status.INTERNAL_FAILURE
    assert 15 * BUFFER_LIMIT < len(stream.filters[0].downstream or b"") <= BACKPRESSURE_LIMITS * BUFFER_LIMIT
    stream.close()
    bad.close()
    neighbourhood.check()


def test_traps_at_the_end_of_a_connection(neighbourhood: Neighbourhood) -> None:
    code = "".join(CLOSED.format(side, "unreachable") for side in ("downstream", "upstream"))
    bad = loaded(neighbourhood, code + '(func (export "proxy_on_log") (param i32) unreachable)', 10)
    lived(neighbourhood, [bad])
    assert bad.failure is not None
    assert "unreachable" in bad.failure.message
    bad.close()
    neighbourhood.check()

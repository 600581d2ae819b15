"""The lifetime of objects: closing, dropping, and freeing resources."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import weakref
from pathlib import Path
from typing import ClassVar

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, Limits
from proxywasm_host.testing.guest import type_of

from .assembled import wasm
from .base import Base, instantiate, is_remade

_CALL = """(module (import "h" "f" (func $f)) (memory (export "memory") 1)
  (func (export "call") (call $f)) (func (export "one") (result i32) (i32.const 1)))"""
_MIB = 1 << 20


class Life(Base):
    """Tests of closing and dropping."""

    instances: ClassVar[int] = 10_000
    """Number of instances over which memory must not grow …"""
    seconds: ClassVar[float] = 5.0
    """… or the time in seconds, whichever ends first. The limit of memory is proportional to the instances made."""

    def test_calls_are_refused_after_close(self, engine: Engine) -> None:
        instance = instantiate(engine, _CALL, lambda: None)
        one, memory = instance.function("one"), instance.memory
        assert one is not None
        assert memory is not None
        view = memory.view
        instance.close()
        instance.close()
        with pytest.raises(RuntimeError, match="closed"):
            one()
        assert len(memory.view) == 0
        assert not memory.refresh()
        if not is_remade(memory):
            with pytest.raises(ValueError, match="released"):
                view[0]

    def test_closing_within_a_host_call_takes_effect_after_it(self, engine: Engine) -> None:
        def close_and_call() -> None:
            instance.close()
            with pytest.raises(RuntimeError, match="closed"):
                one()

        instance = instantiate(engine, _CALL, close_and_call)
        one, call = (instance.function(name) or pytest.fail(name) for name in ("one", "call"))
        call()
        with pytest.raises(RuntimeError, match="closed"):
            call()

    def test_a_function_keeps_what_it_needs(self, engine: Engine) -> None:
        one = instantiate(engine, _CALL, lambda: None).function("one")
        assert one is not None
        gc.collect()
        assert one() == 1

    def test_an_instance_that_is_dropped_is_collected(self, engine: Engine) -> None:
        class Witness:
            def __call__(self) -> None:
                pass

        witness = Witness()
        reference = weakref.ref(witness)
        instance = instantiate(engine, _CALL, witness)
        call = instance.function("call")
        assert call is not None
        call()
        del instance, call, witness
        gc.collect()
        assert reference() is None

    def test_memory_stays_flat_over_thousands_of_instances(self, engine: Engine) -> None:
        module = engine.compile(wasm(_CALL))
        function = HostFunction("h", "f", type_of(""), lambda: None)

        def make(count: int) -> None:
            for _ in range(count):
                instance = module.instantiate([function], Limits())
                memory, call = instance.memory, instance.function("call")
                assert memory is not None
                assert call is not None
                memory.view[:] = b"x" * len(memory.view)
                call()
                instance.close()

        make(200)
        gc.collect()
        before, until, made = _resident(), time.monotonic() + self.seconds, 0
        while made < self.instances and (time.monotonic() < until or made < 500):
            make(100)
            made += 100
        gc.collect()
        grown = _resident() - before
        assert grown / made < 16 * _MIB / 10_000, f"{grown} bytes more after {made} instances"

    def test_instances_do_not_share_anything(self, engine: Engine) -> None:
        module = engine.compile(wasm('(module (memory (export "memory") 1))'))
        first, second = (module.instantiate([], Limits()) for _ in range(2))
        assert first.memory is not None
        assert second.memory is not None
        first.memory.view[0] = 1
        assert second.memory.view[0] == 0
        first.close()
        second.memory.view[0] = 2
        assert second.memory.view[0] == 2
        second.close()


def _resident() -> int:
    """Present memory of this process in bytes; on some systems, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

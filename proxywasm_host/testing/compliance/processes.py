"""Child processes made by `os.fork`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from proxywasm_host.engine.protocol import Engine, Limits, Trap, TrapKind

from .assembled import wasm
from .base import Base, Start, instantiate, requires
from .limits import SPIN

__all__ = ["Forks", "ended", "in_a_child"]

_ALL_IS_WELL, _WRONG = 0, 1
_PATIENCE = 30.0  # seconds


def in_a_child(run: Callable[[], None]) -> int:
    """Run a function in a child process. Returns the exit code: 1 after an exception, -9 if it did not end."""
    child = os.fork()
    if not child:
        code = _WRONG
        try:
            run()
            code = _ALL_IS_WELL
        except BaseException:  # noqa: BLE001 - the child must not return into the test run
            import traceback  # noqa: PLC0415

            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return ended(child)


def ended(child: int) -> int:
    """Wait for a child process. Returns its exit code, or -9 if it did not end."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def _may_refuse(engine: Engine) -> Iterator[None]:
    """Accept an error that names the fork, if the engine does not support forks."""
    try:
        yield
    except RuntimeError as error:
        if engine.capabilities.fork or "fork" not in str(error):
            raise


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class Forks(Base):
    """Tests of objects from before a fork. In the child they continue to work or say what to do; see ``fork``.

    Without that capability, modules and the engine may still work, or refuse like instances.
    """

    def test_an_instance_in_a_child_process(self, engine: Engine, start: Start) -> None:
        guest = start(SPIN, pause=lambda: None)
        assert guest("one") == 1

        def child() -> None:
            if engine.capabilities.fork:
                assert guest("one") == 1
            else:
                with pytest.raises(RuntimeError, match="fork"):
                    guest("one")

        assert in_a_child(child) == _ALL_IS_WELL
        assert guest("one") == 1

    def test_a_module_in_a_child_process(self, engine: Engine) -> None:
        module = engine.compile(wasm("(module)"))

        def child() -> None:
            with _may_refuse(engine):
                module.instantiate([], Limits()).close()

        assert in_a_child(child) == _ALL_IS_WELL

    def test_the_engine_in_a_child_process(self, engine: Engine) -> None:
        many = wasm(
            """(module (func (drop (i32.const 1))) (func (drop (i32.const 1))) (func (drop (i32.const 1)))
              (func (drop (i32.const 1))) (func (drop (i32.const 1))) (func (drop (i32.const 1))))"""
        )
        engine.compile(many)

        def child() -> None:
            with _may_refuse(engine):
                engine.compile(many).instantiate([], Limits()).close()

        assert in_a_child(child) == _ALL_IS_WELL

    @requires("deadline", "fork")
    def test_deadlines_in_a_child_process(self, engine: Engine, start: Start) -> None:
        guest = start(SPIN, Limits(deadline=0.05), pause=lambda: None)
        with pytest.raises(Trap):
            guest("spin")

        def child() -> None:
            fresh = instantiate(engine, SPIN, lambda: None, limits=Limits(deadline=0.05)).function("spin")
            assert fresh is not None
            for spin in (partial(guest, "spin"), fresh):
                with pytest.raises(Trap) as caught:
                    spin()
                assert caught.value.kind is TrapKind.DEADLINE

        assert in_a_child(child) == _ALL_IS_WELL

"""Handlers of signals: V8's, which it does not have, Wasmtime's and `faulthandler`'s, on every way into V8 at once."""

from __future__ import annotations

import pytest

from .support import WAYS, run


@pytest.mark.parametrize("order", ["wv", "vw", "fwv", "fvw", "wvf", "vwf", "wfv"])
def test_wasmtime_and_faulthandler_in_the_same_process(order: str) -> None:
    done = run(f"""
        import faulthandler
        from proxywasm_engine_wasmtime import WasmtimeEngine
        faulthandler.disable()
        engines = []
        for letter in {order!r}:
            if letter == "f":
                faulthandler.enable()
            else:
                engines += [WasmtimeEngine()] if letter == "w" else [V8Engine(**way) for way in WAYS.values()]
        instances = [engine.compile(wat(TRAPS)).instantiate([], Limits()) for engine in engines]
        for _ in range(2):
            for instance in instances:
                for name, arguments in ("unreachable", ()), ("load", ()), ("divide", (0,)), ("recurse", (0,)):
                    try:
                        function(instance, name)(*arguments)
                    except Trap as trap:
                        print(trap.kind.name)
    """)
    kinds = ["UNREACHABLE", "OUT_OF_BOUNDS", "DIVIDE_BY_ZERO", "STACK_OVERFLOW"]
    assert (done.stdout.split(), done.stderr, done.returncode) == (kinds * 2 * (1 + len(WAYS)), "", 0)


def test_v8_installs_no_handlers() -> None:
    done = run("""
        import ctypes
        libc = ctypes.CDLL(None)
        def handlers():
            actions = []
            for number in (4, 7, 8, 11):
                action = (ctypes.c_void_p * 32)()
                libc.sigaction(number, None, action)
                actions.append(action[0])
            return actions
        before = handlers()
        for way in WAYS.values():
            instance = V8Engine(**way).compile(wat(TRAPS)).instantiate([], Limits())
            try:
                function(instance, "load")()
            except Trap:
                print(handlers() == before)
    """)
    assert (done.stdout.split(), done.stderr) == (["True"] * len(WAYS), "")

"""Calls from C, if the engine offers `native_call`. They must behave like calls from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from proxywasm_host.engine.protocol import Engine, Trap, TrapKind
from proxywasm_host.extension import NATIVE_ABI
from proxywasm_host.testing.guest import Guest

from .base import Base, Start
from .exceptions import LAYERS
from .values import ECHO

__all__ = ["Native"]

NAME = f"proxywasm_host.callback.{NATIVE_ABI}".encode()
Call = Callable[..., int]


class _Callback(ctypes.Structure):
    """The C structure ``Proxywasm_callback``."""

    _fields_ = (
        ("call", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)),
        ("itself", ctypes.c_void_p),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class Native(Base):
    """Tests of calls from C."""

    @pytest.fixture
    def call(self, engine: Engine) -> Call:
        """A function ``call(guest, name, *arguments)`` that calls as C code does."""

        def call(guest: Guest, name: str, *arguments: int) -> int:
            function: Any = guest.instance.function(name)
            try:
                capsule = function.native_call
            except AttributeError:
                pytest.skip(f"{engine.name} does not offer native_call here")
            offered = _Callback.from_address(_pointer(capsule, NAME))
            slots = (ctypes.c_uint64 * max(1, len(arguments)))(*arguments)
            status = offered.call(offered.itself, slots, len(arguments))
            assert status == 0, "an exception was to be set"
            return slots[0]

        return call

    def test_an_i32_is_the_lower_half_of_its_slot(self, start: Start, call: Call) -> None:
        seen: list[int] = []

        def keep(value: int) -> int:
            seen.append(value)
            return -2

        guest = start(ECHO, i32=keep, i64=abs, f32=abs, f64=abs, mixed=max)
        assert call(guest, "i32", 0xFFFF_FFFF_8000_0001) == 0xFFFF_FFFE
        assert seen == [0x8000_0001]

    def test_an_i64_is_its_slot(self, start: Start, call: Call) -> None:
        guest = start(ECHO, i32=abs, i64=lambda value: value ^ 1, f32=abs, f64=abs, mixed=max)
        assert call(guest, "i64", 0xFFFF_FFFF_8000_0000) == 0xFFFF_FFFF_8000_0001

    @pytest.mark.parametrize("name", ["f32", "f64", "mixed"])
    def test_floats_are_for_python(self, start: Start, name: str) -> None:
        guest = start(ECHO, i32=abs, i64=abs, f32=abs, f64=abs, mixed=max)
        assert not hasattr(guest.instance.function(name), "native_call")

    def test_a_wrong_number_of_slots_is_a_type_error(self, start: Start, call: Call) -> None:
        guest = start(ECHO, i32=abs, i64=abs, f32=abs, f64=abs, mixed=max)
        for arguments in ((), (1, 2)):
            with pytest.raises(TypeError):
                call(guest, "i32", *arguments)

    def test_they_nest_and_raise(self, start: Start, call: Call) -> None:
        guest: Guest = start(LAYERS, outer=lambda: call(guest, "two"), inner=lambda: 40)
        assert call(guest, "one") == 42
        error = KeyError("deep down")

        def inner() -> int:
            raise error

        guest = start(LAYERS, outer=lambda: call(guest, "two"), inner=inner)
        with pytest.raises(KeyError) as caught:
            call(guest, "one")
        assert caught.value is error
        assert call(guest, "fine") == 7

    def test_a_trap_is_raised(self, start: Start, call: Call) -> None:
        guest = start(LAYERS, outer=lambda: 0, inner=lambda: 0)
        with pytest.raises(Trap) as caught:
            call(guest, "boom")
        assert caught.value.kind is TrapKind.UNREACHABLE

    def test_after_the_end(self, start: Start, call: Call) -> None:
        guest = start(LAYERS, outer=lambda: 0, inner=lambda: 0)
        assert call(guest, "fine") == 7
        guest.close()
        with pytest.raises(RuntimeError):
            call(guest, "fine")

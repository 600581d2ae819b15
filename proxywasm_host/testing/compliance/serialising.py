"""Compiled code as bytes: written, read, and refused by other engines."""

from __future__ import annotations

import pytest

from proxywasm_host.engine.protocol import Engine, HostFunction, InvalidModule, Limits
from proxywasm_host.engine.registry import list_engines, open_engine
from proxywasm_host.testing.guest import type_of

from .assembled import wasm
from .base import Base, requires

_SEVEN = """(module (import "h" "f" (func (param i32) (result i64)))
  (memory (export "memory") 1) (func (export "f") (result i32) (i32.const 7)))"""


class Serialising(Base):
    """Tests of serialised modules."""

    @requires("serialise")
    def test_there_and_back(self, engine: Engine) -> None:
        module = engine.compile(wasm(_SEVEN))
        again = engine.deserialise(module.serialise())
        assert (again.imports, again.exports) == (module.imports, module.exports)
        function = HostFunction("h", "f", type_of("i32 -> i64"), lambda value: value)
        instance = again.instantiate([function], Limits())
        call = instance.function("f")
        assert call is not None
        assert call() == 7
        instance.close()
        assert engine.deserialise(again.serialise()).exports == module.exports

    @requires("serialise")
    @pytest.mark.parametrize("foreign", [b"", b"\0asm\1\0\0\0", b"\x7fELF" + bytes(200), b"x" * 1000])
    def test_other_bytes_are_refused(self, engine: Engine, foreign: bytes) -> None:
        with pytest.raises(InvalidModule):
            engine.deserialise(foreign)

    @requires("serialise")
    def test_torn_code_is_refused(self, engine: Engine) -> None:
        whole = engine.compile(wasm(_SEVEN)).serialise()
        for size in (8, 40, len(whole) // 2, len(whole) - 1):
            with pytest.raises(InvalidModule):
                engine.deserialise(whole[:size])

    @requires("serialise")
    def test_what_another_version_serialised_is_refused(self, engine: Engine) -> None:
        ours = engine.compile(wasm(_SEVEN)).serialise()
        other = "".join(reversed(engine.fingerprint))
        assert other != engine.fingerprint
        theirs = ours.replace(engine.fingerprint.encode(), other.encode())
        assert theirs != ours, "serialised code does not carry the fingerprint"
        with pytest.raises(InvalidModule, match="another version"):
            engine.deserialise(theirs)

    @requires("serialise")
    def test_what_another_engine_serialised_is_refused(self, engine: Engine) -> None:
        """Each installed engine refuses the code of every other one."""
        for status in list_engines():
            if status.usable and status.capabilities.serialise and status.name != engine.name:
                theirs = open_engine(status.name).compile(wasm(_SEVEN)).serialise()
                with pytest.raises(InvalidModule):
                    engine.deserialise(theirs)

    def test_a_fingerprint_stays_the_same(self, engine: Engine) -> None:
        again = type(engine)(**self.options)
        assert again.fingerprint == engine.fingerprint != ""

"""What a module's bytes say, against what an engine says of the same bytes; and damaged modules."""

from __future__ import annotations

from functools import lru_cache

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from proxywasm_host.abi import bytecode
from proxywasm_host.abi.bytecode import PAGE, Bytecode
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.errors import ModuleError
from tests.support import FILTERS, code, wat

NAMES = sorted(str(path.relative_to(FILTERS).with_suffix("")) for path in FILTERS.rglob("*.wasm"))
"""Every filter of ours."""
SMALL = ["c/minimal", "c/hello", "c/probe_0_1_0", "assemblyscript/headers_0_2_0", "rust/tcp", "rust/panics"]
HEADER = b"\0asm\1\0\0\0"


def read_everything(data: bytes) -> Bytecode:
    """Ask for all that can be asked. Raises: ModuleError."""
    module = Bytecode(data)
    module.sections, module.types, module.imports, module.exports, module.memory  # noqa: B018
    module.has_start, module.producers, module.size_of(bytecode.CODE), module.custom("name"), module.abi_version
    return module


def section(id: int, *content: bytes) -> bytes:
    """A section of less than 128 bytes."""
    data = b"".join(content)
    return bytes((id, len(data))) + data


def name(text: bytes) -> bytes:
    return bytes((len(text),)) + text


# -- Real filters ------------------------------------------------------------------------------------------------


@lru_cache(None)
def by_engine(filter: str) -> wasmtime.Module:
    return wasmtime.Module(wasmtime.Engine(), code(filter))


def kind_and_type(extern) -> tuple[str, tuple | None]:
    if isinstance(extern, wasmtime.FuncType):
        return "function", (tuple(map(str, extern.params)), tuple(map(str, extern.results)))
    kinds = {wasmtime.MemoryType: "memory", wasmtime.GlobalType: "global", wasmtime.TableType: "table"}
    return kinds[type(extern)], None


@pytest.mark.parametrize("filter", NAMES)
def test_imports_and_exports_are_those_that_an_engine_sees(filter):
    module, ours = by_engine(filter), Bytecode(code(filter))
    assert ours.imports == [(i.module, i.name, *kind_and_type(i.type)) for i in module.imports]
    assert ours.exports == [(e.name, *kind_and_type(e.type)) for e in module.exports]


@pytest.mark.parametrize("filter", NAMES)
def test_memory_is_that_which_an_engine_sees(filter):
    (memory,) = (e.type for e in by_engine(filter).exports if isinstance(e.type, wasmtime.MemoryType))
    limits = memory.limits
    assert Bytecode(code(filter)).memory == (limits.min * PAGE, limits.max and limits.max * PAGE)


VERSIONS = {
    "assemblyscript/headers_0_1_0": "0.1.0",
    "assemblyscript/headers_0_2_0": "0.2.0",
    "assemblyscript/headers_0_2_1": "0.2.1",
    "c/hello": "0.2.1",
    "c/minimal": "0.2.1",
    "c/probe_0_1_0": "0.1.0",
    "c/probe_0_2_0": "0.2.0",
    "c/probe_0_2_1": "0.2.1",
    "c/probe_0_2_100": "0.2.100",
    "go/body": "0.2.0",
    "go/headers": "0.2.0",
    "go/rate_limiting": "0.2.0",
}
"""The others are Rust's, and of 0.2.1."""


@pytest.mark.parametrize("filter", NAMES)
def test_version(filter):
    assert str(Bytecode(code(filter)).abi_version) == VERSIONS.get(filter, "0.2.1")


def test_producers():
    assert Bytecode(code("c/minimal")).producers == {}
    assert Bytecode(code("go/headers")).producers.keys() == {"language", "processed-by"}
    assert [name for name, _ in Bytecode(code("go/headers")).producers["language"]] == ["Go"]
    assert "rustc" in dict(Bytecode(code("rust/tcp")).producers["processed-by"])


def test_sizes_and_names():
    module = Bytecode(code("rust/panics"))
    sections = {id: module.size_of(id) for id, _, _ in module.sections}
    assert sections[bytecode.CODE] > 0.5 * len(module.data)
    assert len(module.custom("name")) < sections[bytecode.CUSTOM]
    assert module.custom("no such section") is None
    assert not module.has_start


# -- Versions ----------------------------------------------------------------------------------------------------


def exporting(*functions: str) -> Bytecode:
    return Bytecode(wat(f"(module {' '.join(f'(func (export {name!r}))' for name in functions)})".replace("'", '"')))


@pytest.mark.parametrize("version", AbiVersion, ids=str)
def test_marker(version):
    assert exporting("malloc", version.marker).abi_version is version


def test_the_first_known_marker_counts():
    markers = "proxy_abi_version_9_9_9", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"
    assert exporting(*markers).abi_version is AbiVersion.V0_2_0


NO_MARKER = (
    "not a Proxy-Wasm filter: the module exports no proxy_abi_version_… function "
    "(known versions: 0.1.0, 0.2.0, 0.2.1, 0.2.100); build it with a Proxy-Wasm SDK, as a library and not as a program"
)
NO_VERSION = {
    "none": (exporting("malloc"), NO_MARKER),
    "unknown": (
        exporting("proxy_abi_version_0_3_0"),
        "the module is for an unknown Proxy-Wasm ABI (proxy_abi_version_0_3_0); known are 0.1.0, 0.2.0, 0.2.1, 0.2.100",
    ),
    "no function": (Bytecode(wat('(module (memory (export "proxy_abi_version_0_2_1") 1))')), NO_MARKER),
}


@pytest.mark.parametrize(("module", "message"), NO_VERSION.values(), ids=NO_VERSION)
def test_no_version(module, message):
    with pytest.raises(ModuleError) as caught:
        module.abi_version  # noqa: B018
    assert str(caught.value) == message


# -- Made modules ------------------------------------------------------------------------------------------------


def test_every_kind_of_import():
    module = Bytecode(
        wat(
            """(module
              (type $f (func (param i32 i64 f32 f64 v128 funcref externref) (result i32 i64)))
              (import "env" "function" (func (type $f)))
              (import "env" "table" (table 1 2 funcref))
              (import "env" "memory" (memory 1 2))
              (import "env" "global" (global i32))
              (import "env" "tag" (tag (param i32)))
              (import "env" "other" (func (result f64)))
              (func (export "own") (param i64))
              (export "theirs" (func 0))
              (export "table" (table 0))
              (export "memory" (memory 0))
              (export "global" (global 0))
              (export "tag" (tag 0)))"""
        )
    )
    function = ("i32", "i64", "f32", "f64", "v128", "funcref", "externref"), ("i32", "i64")
    assert module.imports == [
        ("env", "function", "function", function),
        ("env", "table", "table", None),
        ("env", "memory", "memory", None),
        ("env", "global", "global", None),
        ("env", "tag", "tag", None),
        ("env", "other", "function", ((), ("f64",))),
    ]
    assert module.exports == [
        ("own", "function", (("i64",), ())),
        ("theirs", "function", function),
        ("table", "table", None),
        ("memory", "memory", None),
        ("global", "global", None),
        ("tag", "tag", None),
    ]


MEMORIES = {
    "none": ("(module)", None),
    "without a maximum": ("(module (memory 3))", (3 * PAGE, None)),
    "with a maximum": ("(module (memory 0 65536))", (0, 1 << 32)),
    "imported": ('(module (import "env" "memory" (memory 1)))', None),
}


@pytest.mark.parametrize(("text", "memory"), MEMORIES.values(), ids=MEMORIES)
def test_memory(text, memory):
    assert Bytecode(wat(text)).memory == memory


def test_a_memory_section_without_a_memory():
    assert Bytecode(HEADER + section(bytecode.MEMORY, b"\0")).memory is None


def test_start_function():
    assert Bytecode(wat("(module (func $f) (start $f))")).has_start


def test_a_module_of_nothing():
    module = Bytecode(HEADER)
    assert (module.sections, module.types, module.imports, module.exports) == ([], [], [], [])


def test_a_type_that_is_no_function_ends_the_types():
    module = Bytecode(
        wat('(module (type (func (param i32))) (type (struct)) (type $f (func)) (func (export "f") (type $f)))')
    )
    assert module.types == [(("i32",), ())]
    assert module.exports == [("f", "function", None)]


def test_a_name_that_is_no_utf_8():
    module = Bytecode(HEADER + section(bytecode.EXPORT, b"\1", name(b"\xffx"), b"\3\0"))
    assert module.exports == [("\ufffdx", "global", None)]


ODD_EXPORTS = {
    "of an unknown kind": (b"\1" + name(b"f") + b"\x09\0", [("f", "?", None)]),
    "of a function that is not there": (b"\1" + name(b"f") + b"\0\x07", [("f", "function", None)]),
}


@pytest.mark.parametrize(("content", "exports"), ODD_EXPORTS.values(), ids=ODD_EXPORTS)
def test_an_export(content, exports):
    assert Bytecode(HEADER + section(bytecode.EXPORT, content)).exports == exports


def test_functions_of_a_type_that_is_not_there():
    module = Bytecode(
        HEADER
        + section(bytecode.IMPORT, b"\1", name(b"env"), name(b"f"), b"\0\x05")
        + section(bytecode.FUNCTION, b"\1\x05")
        + section(bytecode.EXPORT, b"\1", name(b"own"), b"\0\1")
    )
    assert module.imports == [("env", "f", "function", None)]
    assert module.exports == [("own", "function", None)]


def test_damaged_producers_are_none():
    assert Bytecode(HEADER + section(bytecode.CUSTOM, name(b"producers"), b"\1\x7f")).producers == {}


def test_the_first_custom_section_of_a_name():
    sections = [
        section(bytecode.CUSTOM, name(title), text) for title, text in ((b"a", b"1"), (b"b", b"2"), (b"b", b"3"))
    ]
    assert Bytecode(HEADER + b"".join(sections)).custom("b") == b"2"


# -- What is not a module -------------------------------------------------------------------------------------------

COMPONENT = b"\0asm\x0d\0\1\0"
TEXT = (
    "not a WebAssembly module: it begins with b' \\n(m', not with b'\\x00asm' "
    "(this is WebAssembly text: make a module of it with wat2wasm)"
)
NO_MODULES = {
    "nothing": (b"", "not a WebAssembly module: it has only 0 bytes"),
    "magic only": (b"\0asm", "not a WebAssembly module: it has only 4 bytes"),
    "half of the version": (b"\0asm\1\0", "not a WebAssembly module: it has only 6 bytes"),
    "an ELF file": (b"\x7fELF\2\1\1\0\0", "not a WebAssembly module: it begins with b'\\x7fELF', not with b'\\x00asm'"),
    "a short file": (b"ab", "not a WebAssembly module: it begins with b'ab', not with b'\\x00asm'"),
    "text": (
        b" \n(module)",
        TEXT,
    ),
    "version 2": (
        b"\0asm\2\0\0\0",
        "WebAssembly of version 2, not a core module of version 1: build the filter as a core module",
    ),
    "a component": (
        COMPONENT,
        "a WebAssembly component, not a core module of version 1: build the filter as a core module",
    ),
    "a section that ends early": (
        HEADER + b"\1\x05\0",
        "section 1 at byte 10 has 5 bytes, but the module ends after 1: the file is truncated",
    ),
    "a section without a size": (
        HEADER + b"\1",
        "the module ends too early, at byte 9: it is truncated",
    ),
    "an endless number": (
        HEADER + b"\1" + b"\x80" * 12,
        "a number at byte 19 is too long: the module is damaged",
    ),
    "an import of an unknown kind": (
        HEADER + section(bytecode.IMPORT, b"\1", name(b"env"), name(b"f"), b"\x05\0"),
        "import env.f is of an unknown kind 5: the module is damaged",
    ),
    "a name beyond its section": (
        HEADER + section(bytecode.EXPORT, b"\1\x20abc"),
        "32 bytes must follow byte 12, but the module or section ends at 15",
    ),
    "fewer types than promised": (
        HEADER + section(bytecode.TYPE, b"\xff\xff\xff\xff\x0f\x60\0\0"),
        "the module ends too early, at byte 18: it is truncated",
    ),
}


@pytest.mark.parametrize(("data", "message"), NO_MODULES.values(), ids=NO_MODULES)
def test_no_module(data, message):
    with pytest.raises(ModuleError) as caught:
        read_everything(data)
    assert str(caught.value) == message


def test_a_damaged_module_is_refused_when_it_is_made():
    with pytest.raises(ModuleError):
        Bytecode(HEADER + b"\1\x05\0")


@pytest.mark.parametrize("filter", SMALL)
def test_cut_off_anywhere(filter):
    data = code(filter)
    whole = []
    for end in range(len(data)):
        try:
            read_everything(data[:end])
        except ModuleError:
            continue
        whole.append(end)
    exports = next(end for id, _, end in Bytecode(data).sections if id == bytecode.EXPORT)
    assert all(end in {end for _, _, end in Bytecode(data).sections} and end >= exports for end in whole)


@settings(max_examples=300)
@given(st.sampled_from(SMALL), st.data())
def test_damaged_anywhere(filter, data):
    damaged = bytearray(code(filter))
    outside_code = [
        at for id, start, end in [(0, 0, 8), *Bytecode(bytes(damaged)).sections]
        if id not in (bytecode.CODE, bytecode.DATA) for at in (start - 1, start, end - 1)
    ]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.sampled_from(outside_code)) + data.draw(st.integers(0, 300))
        damaged[near % len(damaged)] = data.draw(st.integers(0, 255))
    try:
        read_everything(bytes(damaged))
    except ModuleError as error:
        assert str(error)


@given(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=40)), max_size=5))
def test_any_sections(sections):
    try:
        read_everything(HEADER + b"".join(section(id, content) for id, content in sections))
    except ModuleError as error:
        assert str(error)

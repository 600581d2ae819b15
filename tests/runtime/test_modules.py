"""What a module may be: types that cannot cross, proposals, sizes and shapes, memories and tables. All of it is told
before an engine sees the module, in the same words on each; and what was refused leaves the host as it was.
"""

import pytest

from proxywasm_host import Host, ModuleError, ModuleLimits
from proxywasm_host.abi import module_limits
from proxywasm_host.engine.cache import ModuleCache
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.testing import Message, exchange
from tests.support import code as filter_code
from tests.support import wat

PARTS = """
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
"""


def a_filter(more: str = "", parts: str = PARTS) -> bytes:
    """A module that is a filter, with more in it, as text of WebAssembly."""
    order = (more, parts) if more.startswith("(import") else (parts, more)
    return wat(f"(module {' '.join(order)})")


def refusal(host: Host, code: bytes, **options: object) -> str:
    """Why the module is not loaded. A filter of the same host works before and after."""
    with pytest.raises(ModuleError) as refused:
        host.load_plugin(code, **options)  # type: ignore[arg-type]
    good = host.load_plugin(filter_code("c/hello"))
    result = exchange(host, [good], Message.request("GET", "http://example.com/"))
    assert result.upstream_request is not None
    good.close()
    return str(refused.value)


CANNOT_CROSS = "which cannot cross between guest and host"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('(func (export "f") (param v128))', f"export f has a parameter of the type v128, {CANNOT_CROSS}"),
        ('(func (export "f") (result v128) unreachable)', f"export f has a result of the type v128, {CANNOT_CROSS}"),
        ('(func (export "f") (param externref))', f"export f has a parameter of the type externref, {CANNOT_CROSS}"),
        ('(func (export "f") (result funcref) unreachable)', f"export f has a result of the type funcref, {CANNOT_CROSS}"),
        ('(func (export "f") (result i32 i32) unreachable)', "export f has 2 results, and only one can be passed between guest and host"),
        ('(import "env" "proxy_x" (func (param v128)))', f"import env.proxy_x has a parameter of the type v128, {CANNOT_CROSS}"),
        ('(import "env" "proxy_x" (func (result externref)))', f"import env.proxy_x has a result of the type externref, {CANNOT_CROSS}"),
        ('(import "env" "proxy_x" (func (result i32 i32)))', "import env.proxy_x has 2 results, and only one can be passed between guest and host"),
        ('(import "env" "proxy_log" (func (param i32 i32 v128) (result i32)))', f"import env.proxy_log has a parameter of the type v128, {CANNOT_CROSS}"),
        ('(global (export "g") v128 (v128.const i32x4 0 0 0 0))', f"export g is a global of the type v128, {CANNOT_CROSS}"),
        ('(global (export "g") (mut externref) (ref.null extern))', f"export g is a global of the type externref, {CANNOT_CROSS}"),
        ('(import "env" "g" (global v128))', "import env.g is a global: a filter may import functions only"),
        ('(import "env" "t" (table 1 funcref))', "import env.t is a table: a filter may import functions only"),
        ('(import "env" "m" (memory 1))', "import env.m is a memory: a filter may import functions only"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("unknown_imports", ["error", "stub"])
def test_types_that_cannot_cross(host: Host, more: str, reason: str, unknown_imports: str) -> None:
    parts = (
        PARTS
        if not more.endswith("(memory 1))")
        else PARTS.replace('(memory (export "memory") 1)', '(export "memory" (memory 0))')
    )
    assert refusal(host, a_filter(more, parts), unknown_imports=unknown_imports) == reason


@pytest.mark.parametrize("start", ["_initialize", "_start", "main", "__main_void"])
@pytest.mark.parametrize(
    "type", ["(param externref)", "(param v128)", "(param i32 i32 i32)", "(result i32 i32)", "(result i64)"]
)
def test_starts_of_other_types(host: Host, start: str, type: str) -> None:
    code = a_filter(f'(func (export "{start}") {type} unreachable)')
    assert refusal(host, code).startswith(f"export {start} has ")


@pytest.mark.parametrize(
    "more",
    [
        '(func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) i32.const 0)',
        '(func (export "_initialize") (result i32) i32.const 0) (func (export "__main_void") (result i32) i32.const 0)',
        '(func (export "_start"))',
        '(global (export "g") (mut i64) (i64.const 0)) (table (export "t") 1 2 funcref)',
        # Inside of a module are all types that an engine knows.
        "(func (param v128) (result i32 externref) i32.const 0 ref.null extern) (global v128 (v128.const i32x4 0 0 0 0))",
    ],
)  # fmt: skip
def test_types_that_a_filter_may_have(host: Host, more: str) -> None:
    host.load_plugin(a_filter(more))


PROPOSALS = [
    ("tail calls", "(func $f (return_call $f))"),
    ("exceptions", "(tag) (func)"),
    ("exceptions", "(func (block (try_table (catch_all 0))))"),
    ("exceptions", "(func (param exnref))"),
    ("relaxed SIMD", "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))"),
    ("multiple memories", "(memory 1)"),
    ("garbage collection", "(type (struct))"),
    ("garbage collection", "(func (param anyref))"),
    ("garbage collection", "(func (drop (ref.i31 (i32.const 0))))"),
    ("typed function references", "(func (param (ref func)))"),
    ("typed function references", "(func $f) (table 1 (ref func) (ref.func $f)) (elem declare func $f)"),
    ("typed function references", "(type $t (func)) (func (call_ref $t (ref.null $t)))"),
    ("threads", "(func (atomic.fence))"),
    ("wide arithmetic", "(func (param i64 i64) (i64.mul_wide_u (local.get 0) (local.get 1)) drop drop)"),
]  # fmt: skip


@pytest.mark.parametrize(("proposal", "more"), PROPOSALS, ids=lambda value: value if len(value) < 30 else "")
def test_proposals_that_no_sdk_uses(host: Host, proposal: str, more: str) -> None:
    reason = refusal(host, a_filter(more))
    assert reason.startswith(f"the module uses a proposal of WebAssembly that filters may not use ({proposal}")


@pytest.mark.parametrize(
    ("proposal", "memory"),
    [
        ("threads", '(memory (export "memory") 1 1 shared)'),
        ("64-bit memory", '(memory (export "memory") i64 1)'),
        ("custom page sizes", '(memory (export "memory") 1 (pagesize 1))'),
    ],
)
def test_memories_that_no_sdk_uses(host: Host, proposal: str, memory: str) -> None:
    reason = refusal(host, a_filter(parts=PARTS.replace('(memory (export "memory") 1)', memory)))
    assert reason.startswith(f"the module uses a proposal of WebAssembly that filters may not use ({proposal}")


def test_what_sdks_use(host: Host) -> None:
    host.load_plugin(
        a_filter("""
          (global (export "g") (mut i32) (i32.const 0))
          (table $t 2 funcref) (table $u 1 externref) (elem $e func $f) (data $d "abc") (elem declare func $f)
          (func $f (result i32 i64)
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 1))
            (memory.copy (i32.const 0) (i32.const 0) (i32.const 1))
            (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))
            (data.drop $d)
            (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))
            (table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 1))
            (table.fill $t (i32.const 0) (ref.null func) (i32.const 1))
            (table.set $u (i32.const 0) (ref.null extern))
            (drop (table.size $t))
            (drop (i32.extend8_s (i32.trunc_sat_f64_u (f64.const 1))))
            (drop (i8x16.extract_lane_s 0 (i32x4.add (v128.const i32x4 0 0 0 0) (v128.const i32x4 0 0 0 0))))
            (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3))
            (i64.const 5))""")
    )


def test_tail_calls_that_are_asked_for(engine: Engine) -> None:
    code = a_filter('(func $f (export "f") (return_call $f))')
    with Host(engine, module_limits=ModuleLimits(proposals=frozenset({"tail calls"}))) as host:
        try:
            host.load_plugin(code)
        except ModuleError as error:
            assert str(error).startswith(f"{engine.name} cannot compile the module")
    with pytest.raises(ValueError, match="no proposal is called 'tails'"):
        ModuleLimits(proposals=frozenset({"tails"}))


def test_what_was_compiled_is_of_one_state_of_the_limits_and_of_our_sources(tmp_path, monkeypatch) -> None:
    """Each is a part of the name under which compiled code is kept."""
    states = [ModuleLimits().fingerprint, ModuleLimits(size=1).fingerprint]
    for at, source in enumerate(module_limits._SOURCES):
        changed = tmp_path / source.name
        changed.write_bytes(source.read_bytes() + b"\n")
        sources = [*module_limits._SOURCES[:at], changed, *module_limits._SOURCES[at + 1 :]]
        with monkeypatch.context() as patched:
            patched.setattr(module_limits, "_SOURCES", sources)
            module_limits._revision.cache_clear()
            states.append(ModuleLimits().fingerprint)
    module_limits._revision.cache_clear()
    assert len(set(states)) == 5
    assert ModuleLimits().fingerprint == states[0]


SHAPES: list[tuple[str, int, str, str]] = [
    # the limit, what it is set to, what is beyond it, what is said
    ("functions", 3, "(func) (func)", "the module has 4 functions"),
    ("types", 2, "(type (func (param i64)))", "the module has 3 types"),
    ("values", 2, "(func (param i32 i32 i32))", "type 2 has 3 parameters"),
    ("imports", 0, '(import "env" "proxy_done" (func (result i32)))', "the module has 1 imports"),
    ("exports", 3, '(export "a" (memory 0))', "the module has 4 exports"),
    ("name", 30, f'(export "{"a" * 31}" (memory 0))', f"export {'a' * 31} has a name of 31 letters"),
    ("globals", 1, "(global i32 (i32.const 0)) (global i32 (i32.const 0))", "the module has 2 globals"),
    ("tables", 1, "(table 1 funcref) (table 1 funcref)", "the module has 2 tables"),
    ("elements", 7, "(table 4 funcref) (table 4 externref)", "the tables begin with 8 elements"),
    ("elements", 2, "(table 0 funcref) (elem func 0 0 0)", "the segments have 3 elements"),
    ("segments", 1, "(elem func 0) (elem func 0)", "the module has 2 segments of elements"),
    ("segments", 2, "(elem funcref (ref.func 0) (ref.null func))", "the module has 3 segments of elements and expressions in them"),
    ("names", 4, '(@custom "name" "\\01\\04\\01\\00\\01a\\02\\01\\04\\07\\07")', "the module has 5 names"),
    ("data", 1, '(data "a") (data "b")', "the module has 2 segments of data"),
    ("body", 9, "(func (i64.store (i32.const 0) (i64.const 300)))", "function 2 has 10 bytes of code"),
    ("locals", 2, "(func (param i32) (local i64 f32))", "function 2 has 3 parameters and locals"),
    ("depth", 1, "(func (block (block)))", "function 2 has 2 nested blocks"),
    ("loops", 1, "(func (loop (block (loop))))", "function 2 has 2 nested loops"),
    ("targets", 1, "(func (block (br_table 0 0 0 (i32.const 0))))", "function 2 has a br_table of 2 targets"),
    ("merges", 5, "(func (local i32 i32 i32) (block) (block))", "function 2 merges 6 values at its branches"),
    ("calls", 10, "(table 1 funcref) (func (call_indirect (i32.const 0)) (call 0))",
     "function 2 has 11 calls (an indirect one counts as ten)"),
    ("optimising", 50, "(table 1 funcref) (func (drop (table.get 0 (i32.const 0))) (drop (table.get 0 (i32.const 0))))",
     "function 2 needs 69 microseconds to be optimised, by estimate"),
    ("all_optimising", 60_000, f"(func {'nop ' * 60_000}) " * 2,
     "the functions that take more than 40 ms each need 88802 microseconds to be optimised"),
    ("all_merges", 5, "(func (local i32 i32 i32) (block)) (func (local i32 i32 i32) (block))",
     "the functions merge 6 values at their branches"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "limit", "more", "reason"), SHAPES)
def test_shapes(engine: Engine, part: str, limit: int, more: str, reason: str) -> None:
    code = a_filter(more)
    sentence = (
        f"{reason}, and {limit} is the limit: if you trust it, load it with module_limits=ModuleLimits({part}=…)"
    )
    with Host(engine, module_limits=ModuleLimits(**{part: limit})) as host:
        assert refusal(Host(engine), code, module_limits=ModuleLimits(**{part: limit})) == sentence
        with pytest.raises(ModuleError, match="is the limit"):
            host.load_plugin(code)
        host.load_plugin(code, module_limits=ModuleLimits(**{part: None}))
        host.load_plugin(code, module_limits=ModuleLimits())


def test_the_size_of_a_module(host: Host) -> None:
    code = a_filter()
    limits = ModuleLimits(size=len(code) - 1)
    assert refusal(host, code, module_limits=limits).startswith(
        f"the module has {len(code)} bytes or more, and {len(code) - 1} is the limit"
    )
    host.load_plugin(code, module_limits=ModuleLimits(size=len(code)))


def test_what_no_proposal_has_is_for_the_engine_to_refuse(host: Host) -> None:
    code = a_filter("(func nop)").replace(b"\3\0\1\x0b", b"\3\0\xff\x0b")
    assert refusal(host, code).startswith(f"{host.engine.name} cannot compile the module: ")


def test_a_file_without_end(host: Host) -> None:
    assert refusal(host, "/dev/zero", module_limits=ModuleLimits(size=1000)).startswith("the module has 1001 bytes")  # type: ignore[arg-type]


def test_sections_without_end(host: Host) -> None:
    assert refusal(host, a_filter() + b"\0\1\0" * 10_000) == "the module has more than 10000 sections"


def test_what_was_kept_is_for_the_same_limits(engine: Engine, tmp_path) -> None:
    """What a cache has compiled for one who allows it is not given to another."""
    code = a_filter("(func (loop (loop)))")
    for _ in "again":
        with Host(engine, cache=ModuleCache(tmp_path)) as host:
            host.load_plugin(code)
            with pytest.raises(ModuleError, match="2 nested loops"):
                host.load_plugin(code, module_limits=ModuleLimits(loops=1))


MIB = 1 << 20


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("(table 1000000 funcref)", "tables of 1001024 elements, which count as 16 bytes each, and a memory of 65536 bytes are beyond the limit of 8388608 bytes"),
        ("(table 300000 300000 funcref) (table 300000 300000 externref)", "tables of 600000 elements, "),
        ("(table 640000000 funcref)", "the tables begin with 640000000 elements, and 1000000 is the limit"),
        (" ".join(["(table 100000 100000 funcref)"] * 11), "the module has 11 tables, and 10 is the limit"),
        (" ".join(["(memory 992)"] * 89), "the module uses a proposal of WebAssembly that filters may not use (multiple memories)"),
    ],
)  # fmt: skip
def test_tables_count_as_memory(host: Host, more: str, reason: str) -> None:
    assert refusal(host, a_filter(more), limits=Limits(memory=8 * MIB)).startswith(reason)


def test_memory_that_tables_leave_room_for(host: Host) -> None:
    """A table of 2 MiB leaves a limit of 4 MiB half of it: 31 more pages are one too many, 30 are not."""
    text = """
      (table 130048 funcref)
      (func (export "_start") (if (i32.ne (memory.grow (i32.const %d)) (i32.const %d)) (then unreachable)))"""
    host.load_plugin(a_filter(text % (32, -1)), limits=Limits(memory=4 * MIB))
    host.load_plugin(a_filter(text % (31, 1)), limits=Limits(memory=4 * MIB))


@pytest.mark.parametrize(("table", "most"), [("1", 1025), ("1 100000", 1025), ("1 5", 5), ("0 4294967295", 1024)])
def test_tables_grow_by_little(host: Host, table: str, most: int) -> None:
    """Of two tables each, the second one has no part in it."""
    host.load_plugin(
        a_filter(f"""
          (table $t {table} funcref) (table $u 7 7 externref)
          (func $step (result i32) (table.grow $t (ref.null func) (i32.const 1)))
          (func (export "_start")
            (loop $more (br_if $more (i32.ne (call $step) (i32.const -1))))
            (if (i32.ne (table.size $t) (i32.const {most})) (then unreachable))
            (if (i32.ne (table.grow $t (ref.null func) (i32.const 10000000)) (i32.const -1)) (then unreachable))
            (if (i32.ne (table.size $u) (i32.const 7)) (then unreachable)))""")
    )


def if_else(locals: int, count: int) -> str:
    one = "(if (local.get {0}) (then (local.set {0} (i32.const 1))) (else (local.set {1} (i32.const 2))))"
    return f"(func (local {'i32 ' * locals}) {' '.join(one.format(n % locals, n * 7 % locals) for n in range(count))})"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (if_else(2000, 3000), "function 2 merges "),
        ((if_else(1000, 450) + " ") * 60, "the functions merge "),
        (f"(func {'(loop ' * 2000}{')' * 2000})", "function 2 has 2000 nested loops, and 100 is the limit"),
        (f"(func {'(block ' * 30_000}{')' * 30_000})", "function 2 has 30000 nested blocks, and 20000 is the limit"),
        (f"(func {'(i32.store (i32.const 0) (i32.add (i32.const 1) (i32.load (i32.const 0))))' * 110_000})",
         "function 2 has 1430002 bytes of code, and 1048576 is the limit"),
        (f"(table 1 funcref) (func {'(call_indirect (i32.const 0))' * 3000})", "function 2 has 30000 calls"),
        ("(func " + "(loop)" * 20_000 + ")", "function 2 needs 2"),
        (f"(table 1 funcref) (func {'(drop (table.get 0 (i32.const 0)))' * 6_000})", "function 2 needs 2"),
        (f"(elem declare func 0) (func {'(drop (ref.func 0))' * 6_000})", "function 2 needs 2"),
        (f"(func (param i32) {'(if (local.get 0) (then (local.set 0 (i32.const 0))))' * 4_000})", "function 2 needs 2"),
        (f"(func (local {'i32 ' * 50}) (loop {'(local.set 1 (i32.const 1)) (br_if 0 (i32.load (local.get 1)))' * 2_000}))",
         "function 2 needs 2"),
        (f"(func {'nop ' * 1_000_000}) " * 40, "the functions that take more than 40 ms each need "),
        (f"(table 60000 funcref) (elem (i32.const 0) funcref {'(ref.func 0)' * 60_000})", "the module has 60001 segments"),
        (f"(table 1 funcref) {'(elem func 0)' * 11_000}", "the module has 11000 segments of elements, and 10000 is the limit"),
        (f"(func (block (br_table {'0 ' * 66_000} (i32.const 0))))", "function 2 has a br_table of 65999 targets"),
        ("(func) " * 50_000, "the module has 50002 functions, and 50000 is the limit"),
        (f"(func (local {'i64 ' * 10_001}))", "function 2 has 10001 parameters and locals, and 10000 is the limit"),
        (f"(type (func (param {'i32 ' * 101})))", "type 0 has 101 parameters, and 100 is the limit"),
    ],
    ids=["branches", "many branches", "loops", "blocks", "a long function", "calls", "short loops",
         "table.get", "ref.func", "known conditions", "branches back", "long functions", "elements", "segments", "br_table",
         "functions", "locals", "types"],
)  # fmt: skip
def test_what_takes_compilers_long(host: Host, more: str, reason: str) -> None:
    """By the limits that hold where nobody sets others."""
    assert refusal(host, a_filter(more)).startswith(reason)

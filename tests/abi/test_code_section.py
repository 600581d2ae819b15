"""What a module's code is made of: figures of small modules, of real ones, and the same from Python and from C."""

from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxywasm_host.abi import code_section
from proxywasm_host.abi.code_section import OPTIMISING, PROPOSALS, Figure, Optimising, _read_code, _tables, read_code
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.wasm import CODE, Binary
from tests.support import code as filter_code

TYPES = [(0, 0), (2, 1), (0, 3)]
FUNCTIONS = [1, 0, 0, 0, 0]
"""The first is imported; the others have code, as far as it goes."""


def section(*bodies: str) -> bytes:
    """A code section of functions given in hexadecimal."""
    made = [bytes.fromhex(body) for body in bodies]
    return bytes([len(made)]) + b"".join(leb(len(body)) + body for body in made)


def leb(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + leb(value >> 7)


def figures(*bodies: str, allowed: frozenset[str] = frozenset()):
    data = section(*bodies)
    code = read_code(data, (0, len(data)), TYPES, FUNCTIONS, 1, allowed)
    found = {name: figure[0] if isinstance(figure, Figure) else figure for name, figure in code._asdict().items()}
    del found["optimising"], found["ranges"]
    return found


NOTHING = {
    "body": 2, "locals": 0, "depth": 0, "loops": 0, "targets": 0, "merges": 0, "calls": 0, "all_merges": 0,
    "all_optimising": 0, "grows_tables": False, "stopped": -1, "slow": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("00 0b", {}),
        ("02 03 7f 02 7e 0b", {"locals": 5}),
        ("00 02 40 02 40 0b 0b 02 40 0b 0b", {"depth": 2}),
        ("00 03 40 02 40 03 40 0b 0b 0b 03 40 0b 0b", {"depth": 3, "loops": 2}),
        # Four locals, and one value on the stack, at a block, at a branch, and at one of three targets.
        ("01 04 7f 41 07 02 40 0c 00 0b 1a 0b", {"locals": 4, "depth": 1, "merges": 4 + 1 + 4 + 1, "all_merges": 10}),
        ("01 04 7f 02 40 41 00 0e 02 00 00 00 0b 0b", {"locals": 4, "depth": 1, "targets": 2, "merges": 4 + 3 * 4,
                                                       "all_merges": 16}),
        # What is on the stack when a condition has been taken from it: two operands, and the result of a call.
        ("00 41 00 41 00 10 00 42 00 41 00 04 40 05 0b 1a 1a 0b", {"depth": 1, "merges": 2 + 2, "calls": 1,
                                                                            "all_merges": 4}),
        # A block of three results leaves them behind.
        ("00 02 02 00 0b 02 40 0b 1a 1a 1a 0b", {"depth": 1, "merges": 0 + 3, "all_merges": 3}),
        ("00 10 01 41 00 11 00 00 10 01 0b", {"calls": 12}),
        ("00 41 00 11 02 00 1a 1a 1a 0b", {"calls": 12}),
        # What calls the engine.
        ("00 d0 70 41 01 fc 0f 00 1a 0b", {"grows_tables": True, "calls": 1}),
        ("00 fc 09 00 fc 0d 00 0b", {"calls": 2}),
        ("00 43 0b 0b 0b 0b 1a 44 0b 0b 0b 0b 0b 0b 0b 0b 1a 0b", {}),
        ("00 fd 0c 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 0b 1a 0b", {}),
        ("00 41 00 fd 54 00 00 0b 1a 0b", {}),
        ("00 1c 01 7f 0b", {}),
        ("00 1c 01 63 83 0e 02 40 0b 0b", {"depth": 1}),  # of a reference, whose number has two bytes
        # With the number of a memory, which would be taken for the offset.
        ("00 20 00 28 42 00 44 02 40 0b 0b", {"stopped": 5}),
        ("00 fd 54 40 00 44 00 02 40 0b 0b", {"stopped": 3}),
        ("00 ff 0b", {"stopped": 3}),
        ("00 01 fc 7f 0b", {"stopped": 4}),
        ("00 12 00 0b", {"stopped": 3}),
        ("00 06 40 19 0b 0b", {"stopped": 3}),
        ("00 fd 80 02 0b", {"stopped": 3}),
    ],
)  # fmt: skip
def test_figures(body, expected):
    assert figures(body) == NOTHING | {"body": len(bytes.fromhex(body))} | expected


@pytest.mark.parametrize(
    ("proposal", "body"),
    [
        ("tail calls", "00 12 00 0b"),
        ("tail calls", "00 41 00 13 00 00 0b"),
        ("exceptions", "00 06 40 07 00 19 09 00 0b 0b"),
        ("exceptions", "00 06 40 06 40 18 00 0b 0b"),
        ("exceptions", "00 02 40 1f 40 02 00 00 00 02 00 0b 0b 08 00 0a 0b"),
        ("relaxed SIMD", "00 fd 80 02 0b"),
    ],
)
def test_proposals_that_are_asked_for(proposal, body):
    assert figures(body)["stopped"] >= 0
    assert figures(body, allowed=frozenset({proposal}))["stopped"] == -1


def test_the_largest_of_each_and_whose_it_is():
    data = section("00 0b", "01 03 7f 0b", "00 03 40 0b 0b", "01 02 7f 02 40 0b 0b")
    code = read_code(data, (0, len(data)), TYPES, FUNCTIONS, 1)
    assert code == ((7, 3), (3, 1), (1, 2), (1, 2), (0, 0), (2, 3), (0, 0), (13, 2), 2, 0, False, -1, (), b"")


ONE_EACH = {
    # what is counted, of a function with four locals, and how much there is of it
    "bytes": ("01 04 7f 41 07 1a 0b", 7),
    "merges": ("01 04 7f 02 40 41 00 0d 00 0b 0b", 8),
    "calls": ("01 04 7f 10 01 41 00 11 02 00 1a 1a 1a 0b", 13),
    # Four locals at the begin of a loop, as three, and once more for each of two branches back; and two locals at most in
    # one of five bytes.
    "phis": ("01 04 7f 03 40 41 00 0d 00 41 00 0d 00 01 0b 03 40 41 00 1a 01 0b 0b", 4 * (3 + 2) + 2 * 3),
    "locals_squared": ("02 04 7f 03 7e 0b", 49),
    "phis_squared": ("01 04 7f 03 40 01 01 01 0b 0b", ((2 + 3) // 2 * 3) ** 2),
    # Conditions that are a local's value, one that was just set, what a block leaves, whether one is zero, and a table's:
    # and none that is another, or behind another.
    "choices_squared": (
        "01 04 7f 02 40 20 00 0d 00 41 00 22 00 45 0d 00 02 7f 41 00 0b 0d 00 20 00 0e 00 00 41 00 0d 00 20 00 69 45 0d 00 0b 0b",
        (1 + 1 + 1 + 2) ** 2,
    ),
    # A loop, and branches to it: of a table, too.
    "splits": ("01 04 7f 03 40 02 40 41 00 0e 02 00 01 01 0b 41 00 0d 00 0b 0b", 1 + 2 + 1),
    "targets_squared": ("01 04 7f 02 40 41 00 0e 02 00 00 00 0b 41 00 0e 00 00 0b", (3 + 1) ** 2),
    "splits_squared": (
        "01 04 7f 41 00 25 00 1a 41 00 11 00 00 44 00 00 00 00 00 00 00 00 fc 02 1a d2 00 1a 41 01 41 01 6d 1a 0b",
        (3 + 1 + 2 + 3 + 1) ** 2,
    ),
}


@pytest.mark.parametrize(
    "read", [_read_code, *([NATIVE.read_code] if NATIVE else [])], ids=lambda read: type(read).__name__
)
@pytest.mark.parametrize("what", ONE_EACH)
def test_what_is_counted_to_estimate_optimising(what, read):
    body, count = ONE_EACH[what]
    data, flat = section(body), array("Q", (params | results << 32 for params, results in TYPES)).tobytes()
    weights = array("d", [*(float(name == what) for name in Optimising._fields), count - 1]).tobytes()
    given = data, 0, len(data), *_tables(frozenset()), flat, array("Q", FUNCTIONS).tobytes(), 1, weights
    figures, _, all_optimising, *_, slow, _ = read(*given)
    assert (figures[-2], all_optimising, slow) == (count, count, [0])


def test_functions_that_are_slow_to_optimise():
    """One of many merges, and one that is large; both are more than 40 ms."""
    merging = "01 e8 07 7f" + "02 40 0b" * 1000 + "0b"
    large = "00" + "01" * 60_000 + "0b"
    data = section("00 0b", merging, large)
    code = read_code(data, (0, len(data)), TYPES, FUNCTIONS, 1)
    assert (code.slow, code.optimising, code.all_optimising) == ((1, 2), (104_223, 1), 104_223 + 44_401)


def test_where_instructions_on_ranges_are():
    """Those of two functions, after what only looks like one; not those that drop a segment, or tell a size."""
    data = section("00 41 40 00 fc 0b 00 40 00 26 80 00 0b", "00 fc 09 00 fc 0a 00 00 3f 00 fc 8e 00 00 01 0b")
    code = read_code(data, (0, len(data)), TYPES, FUNCTIONS, 1)
    begins = [6, 9, 11, 20, 26]
    sizes = [3, 2, 3, 4, 5]
    assert list(array("Q", code.ranges)) == [
        at for begin, size in zip(begins, sizes, strict=True) for at in (begin, begin + size)
    ]


def test_what_comes_after_an_unknown_instruction():
    assert figures("00 ff 0b", "01 05 7f 0b", "00 ff 0b") == NOTHING | {"body": 4, "locals": 5, "stopped": 3}


@pytest.mark.parametrize("name", ["rust/auth", "c/hello", "go/body", "assemblyscript/headers_0_2_1"])
def test_all_of_a_real_filter_is_read(name):
    binary = Binary(filter_code(name))
    place = next((start, end) for section, start, end in binary.sections if section == CODE)
    imported = sum(kind == "function" for _, _, kind, _ in binary.imports)
    types = [(len(params), len(results)) for params, results in binary.types]
    code = read_code(binary.data, place, types, [0] * imported + list(binary.functions), imported)
    assert (code.stopped, code.grows_tables) == (-1, False)
    assert code.body.most > 400 and code.depth.most > 10 and code.all_merges > code.merges.most > 200


ONES = [bytes.fromhex(one) for one in (
    "00", "01", "02 40", "02 01", "02 7f", "03 40", "04 40", "04 02", "05", "0b", "0b", "0c 00", "0d 00", "0f", "10 00",
    "0e 02 00 00 00", "11 01 00", "1a", "1b", "1c 01 7f", "20 00", "21 00", "22 80 01", "28 02 00", "36 02 80 80 00",
    "41 00", "42 ff ff 7f", "43 00 00 00 00", "44 00 00 00 00 00 00 00 00", "6a", "45", "fc 00", "fc 0a 00 00",
    "fc 0f 00", "fd 0c 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "fd 15 00", "fd 54 00 00 00", "fd ae 01",
    "12 00", "06 40", "07 00", "18 00", "19", "08 00", "1f 40 02 00 00 00 02 00", "d0 70", "d2 00", "fd 80 02", "ff",
    "02 64 00", "40 00", "26 80 00", "fc 0e 01 00", "fc 8b 00 00", "28 40 00 00", "1c 01 63 83 0e", "80 80 80 80 80 80 80 80 80 80 01", "ff ff ff ff ff ff ff ff ff 01",
)]  # fmt: skip


@pytest.mark.skipif(NATIVE is None, reason="there is nothing to compare with")
@given(
    st.lists(
        st.tuples(st.sampled_from([b"\0", b"\1\3\x7f", b"\2\1\x7f\xff\xff\xff\xff\x0f\x7e", b"\1\1\x63\x70"]),
                  st.lists(st.sampled_from(ONES), max_size=30).map(b"".join), st.integers(-2, 2)),
        max_size=4,
    ),
    st.binary(max_size=8),
    st.sampled_from([frozenset(), PROPOSALS]),
)  # fmt: skip
@example([(b"\0", b"", 1), (b"\1\3\x7f", b"\0", 0), (b"\0", b"", 0)], b"(\xc0", frozenset())
def test_c_and_python_agree(bodies, rest, allowed):
    data = bytes([len(bodies)])
    for locals, body, wrong in bodies:
        data += bytes([max(len(locals + body) + wrong, 0) & 0x7F]) + locals + body
    data += rest
    flat = array("Q", (params | results << 32 for params, results in TYPES)).tobytes()
    weights = array("d", (*OPTIMISING, 5.0)).tobytes()
    given = data, 0, len(data), *_tables(allowed), flat, array("Q", FUNCTIONS).tobytes(), 1, weights
    assert NATIVE.read_code(*given) == _read_code(*given)


def test_python_reads_where_there_is_no_c(monkeypatch):
    expected = figures("01 04 7f 41 07 02 40 0c 00 0b 1a 0b")
    monkeypatch.setattr(code_section, "NATIVE", None)
    assert figures("01 04 7f 41 07 02 40 0c 00 0b 1a 0b") == expected

"""Python in a packed filter: the same answers as CPython, the table of the docs, and words for what does not work."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import proxywasm_pack
import pytest
from proxywasm_pack.lower import lower

from proxywasm_host.testing import Harness
from tests.sdk import language

TABLE = Path(__file__).parent.parent.parent / "docs" / "python-language.md"
PROBES = {name: value for name, value in vars(language).items() if inspect.isfunction(value)}

ASK = """

from proxywasm import on_configure as _configured
@_configured
def _answer(config):
    for name in config:
        try:
            print(name, repr(globals()[name]()))
        except Exception as e:
            print(name, "raises", type(e).__name__, e)
"""

DIFFERS = {
    "digits_of_floats": "at most 16 digits: 0.1 + 0.2 is printed as 0.3",
    "causes": "`raise … from` sets no `__cause__`",
    "views_as_sets": "`keys() & other` is an error; write set(keys())",
    "mixins": "super() in a class without bases does not find the next class in the order of a derived class; name that class",
}

REFUSED = {
    "except*": ("try:\n    pass\nexcept* ValueError:\n    pass", "1: except* does not work in a packed filter; catch"),
    "__init_subclass__": ("class A:\n    def __init_subclass__(cls): pass", "1: __init_subclass__ does not work"),
    "a class with keyword arguments": ("\nclass A(B, x=1): pass", "2: a class with keyword arguments does not work"),
    "time.sleep()": ("import time\ntime.sleep(1)", "2: time.sleep() does not work in a packed filter; it would hold up all"),
    "open()": ("x = 1\nopen('a')", "2: open() does not work in a packed filter; a filter has no files"),
    "eval(), exec()": ("eval('1')", "1: eval() does not work"),
    "assignment to a slice with a step": ("x = []\nx[::2] = []", "2: assigning to (or deleting) a slice with a step"),
    "await in a comprehension": ("async def f(x):\n    return [await y for y in x]", "2: await in a comprehension does not work"),
    "async for in a comprehension": ("async def f(x):\n    return [y async for y in x]", "2: async for in a comprehension"),
    "a condition in a regular expression": ("import re\nre.compile(r'(a)?(?(1)b|c)')", "2: a condition in a pattern, (?(…)…)"),
    "a regular expression that is wrong": ("import re\nre.sub('(', '', x)", "2: the pattern '(' is wrong: missing ), unterminated"),
    "| that binds names in a pattern": (
        "match x:\n    case [a] | (a, _): pass",
        "2: a pattern with | that binds names does not work in a packed filter; write a case for each",
    ),
}


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    path = tmp_path_factory.mktemp("language") / "language.py"
    path.write_text(Path(language.__file__).read_text() + ASK)
    return proxywasm_pack.pack(path)


def test_answers_are_those_of_cpython(module, engine):
    with Harness(engine) as harness:
        harness(module, list(PROBES))
        got = dict(line.split(" ", 1) for line in harness.logs.info if line.split(" ", 1)[0] in PROBES)
    expected = {name: repr(probe()) for name, probe in PROBES.items()}
    assert {name: answer for name, answer in got.items() if answer != expected[name]}.keys() == DIFFERS.keys()
    assert got.keys() == expected.keys()


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_work_is_refused_when_it_is_packed(what):
    source, words = REFUSED[what]
    with pytest.raises(proxywasm_pack.ScriptError) as refused:
        lower(source, "filter.py")
    assert str(refused.value).startswith(f"filter.py:{words}")


def table() -> str:
    """The table of the docs, from the probes above."""
    native, lowered = [], []
    for name, probe in PROBES.items():
        if name in DIFFERS:
            continue
        source = inspect.getsource(probe)
        text = "\n".join(line for line in lower(source, "x")[0].splitlines() if line != "import _lowered as _l")
        (native if text.strip() == ast.unparse(ast.parse(source)).strip() else lowered).append(name.strip("_").replace("_", " "))
    differs = [f"{name.replace('_', ' ')} ({how})" for name, how in DIFFERS.items()]
    rows = [
        ("works", native),
        ("works, rewritten for MicroPython", lowered),
        ("differs", differs),
        ("is refused by `pack`", [what.replace("|", "\\|") for what in REFUSED]),
    ]
    return "# Python in packed filters\n\nThe tests, which compare with CPython (`tests/sdk/language.py`), generate this table.\n\n" + (
        "| | |\n|---|---|\n" + "".join(f"| {how} | {', '.join(names)} |\n" for how, names in rows)
    )


def test_the_table_of_the_docs_is_what_was_tested():
    assert TABLE.read_text().startswith(table())

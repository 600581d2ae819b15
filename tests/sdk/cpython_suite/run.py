"""Parts of CPython's own tests, in packed filters. They are not a part of this project: they come from the `test` package
of the interpreter that runs this.

    python -m tests.sdk.cpython_suite.run                which tests pass: into docs/python-language.md, in two minutes
    python -m tests.sdk.cpython_suite.run NAME ...       those of these files, and why others fail
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import proxywasm_pack
from proxywasm_pack.lower import lower

from proxywasm_host import Limits
from proxywasm_host.testing import Harness

HERE = Path(__file__).parent
TABLE = HERE.parent.parent.parent / "docs" / "python-language.md"
FILES = (
    "augassign", "base64", "binop", "bool", "compare", "contains", "decorators", "dictcomps", "exception_variations", "generators",
    "isinstance", "itertools", "keywordonlyarg", "named_expressions", "numeric_tower", "patma", "raise", "range", "set", "super",
    "unary", "urlparse", "with",
)  # fmt: skip
"""``test_NAME.py`` for things that a filter does; others are about what it does not (files, threads, C, the compiler)."""

ANSWER = """

from proxywasm import HttpFilter, Response, register

class Answer(HttpFilter):
    def on_request_headers(self, request):
        kind, _, method = request.headers["x-test"].partition(".")
        case = globals()[kind]()
        if getattr(case, method, None) is None:
            return Response(204)
        try:
            case.setUp()
            getattr(case, method)()
            case.tearDown()
        except unittest.SkipTest:
            return Response(204)
        return Response(200)

register(Answer)
"""


def source_of(name: str) -> str:
    """The file of the interpreter's `test` package. Raises: LookupError, if that is not installed."""
    spec = importlib.util.find_spec("test")
    assert spec is not None
    folder = Path((spec.submodule_search_locations or [""])[0])
    path = folder / f"test_{name}.py"
    if not path.exists():
        raise LookupError(f"the interpreter has no {path}")
    return path.read_text(encoding="utf-8")


def tests_of(tree: ast.Module) -> dict[str, Any]:
    """Its tests: ``Class.method``, with where they are."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return {
        f"{name}.{method.name}": (node, method)
        for name, node in classes.items()
        if any("TestCase" in ast.unparse(base) or ast.unparse(base) in classes for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
    }


def _packable(tree: ast.Module, folder: Path) -> bytes | None:
    """The module of what of a file can be packed; what cannot is taken out, statement by statement."""
    path = folder / "suite.py"
    for _ in range(400):
        text = ast.unparse(ast.fix_missing_locations(tree))
        path.write_text(text + ANSWER)
        try:
            return proxywasm_pack.pack(path)
        except proxywasm_pack.ScriptError as error:
            lines = re.findall(r'(?:suite\.py:|File "suite\.py", line )(\d+)', str(error))
            if not lines:
                return None
            tree = ast.parse(text)
            if not _without(tree, int(lines[0])):
                return None
    return None


def _without(tree: ast.Module, line: int) -> bool:
    """Take out the smallest method or statement of the top level that has this line."""
    holders: list[Any] = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for holder in reversed(holders):
        for node in holder.body:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            if first <= line <= (node.end_lineno or line):
                if isinstance(node, ast.ClassDef) and len(node.body) > 1 and line > node.lineno:
                    continue
                holder.body.remove(node)
                holder.body = holder.body or [ast.Pass()]
                return True
    return False


def _reduced(tree: ast.Module) -> None:
    """What can be lowered: imports of `test` and of modules that there are not, and methods that cannot be lowered, go."""
    for holder in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        kept = []
        for node in holder.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                try:
                    lower(ast.unparse(node), "suite.py")
                except proxywasm_pack.ScriptError:
                    continue
            kept.append(node)
        holder.body = kept or [ast.Pass()]


def results(name: str, engine: str = "wasmtime") -> dict[str, str]:
    """Each test of a file: ``passes``, ``fails`` (with why) or ``cannot be packed``; those that skip are left out."""
    tree = ast.parse(source_of(name))
    found = tests_of(tree)
    out = dict.fromkeys(found, "cannot be packed")
    _reduced(tree)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unittest.py").write_text((HERE / "unittest.py").read_text())
        module = _packable(tree, Path(folder))
    if module is None:
        return out
    with Harness(engine, limits=Limits(deadline=5)) as harness:
        filter = harness(module, failure_policy="fail_reload", reload_interval=0)
        for test in found:
            outcome = filter.get("/", {"x-test": test})
            if outcome.status == 204:
                out.pop(test)
            elif outcome.status == 200:
                out[test] = "passes"
            else:
                out[test] = "fails: " + (outcome.logs.error[0].splitlines()[-1] if outcome.logs.error else str(outcome.failure))[:200]
            harness.clock.advance(1)
    return out


TITLE = "## CPython's own tests"
ABOUT = f"""
{TITLE}

The table shows how many tests in these files of CPython 3.11 pass, each alone, in packed filters. Most others are about
features that filters lack: `locals()`, `exec`, the attributes of exceptions and functions, warnings, `__class__` cells.

| file | passes | of |
|---|---:|---:|
"""


def main() -> None:
    rows = []
    for name in sys.argv[1:] or FILES:
        of = results(name)
        rows.append(f"| test_{name} | {sum(how == 'passes' for how in of.values())} | {len(of)} |")
        print(rows[-1], flush=True)
        if len(sys.argv) > 1:
            for test, how in of.items():
                print(f"    {test}: {how}")
    if len(sys.argv) == 1:
        text = TABLE.read_text(encoding="utf-8").partition("\n" + TITLE)[0]
        TABLE.write_text(text + ABOUT + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""docs/api.md is the public interface: it names what is there, and nothing that is public is missing."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from types import FunctionType, GetSetDescriptorType, MethodDescriptorType

import pytest

from proxywasm_host.errors import ProxyWasmError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
MODULES = {
    name: re.findall(r"`(\w+)`", names)
    for name, names in re.findall(r"^### `([\w.]+)`\n\n.*\n\n(.*)$", PAGE, re.MULTILINE)
}
MEMBERS = {
    name: re.findall(r"`(\w+)`", members)
    for name, members in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", PAGE, re.MULTILINE)
}
ERRORS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `([\w.]+)` \|$", PAGE, re.MULTILINE)


BLOCK = re.compile(r"^( *)```(\w*).*\n((?s:.)*?)^ *```$", re.MULTILINE)
LOGGERS = {f"proxywasm_host.{name}" for name in ("asgi", "configuration", "driver", "guest", "wsgi")}
OTHERS = {"proxywasm_host.engines", "proxywasm_host.h"}  # entry points, the header
MEMBER_KINDS = (
    *(FunctionType, MethodDescriptorType, GetSetDescriptorType),  # the latter two of classes in C
    *(property, functools.cached_property, classmethod, staticmethod),
)
IMPORT = re.compile(r"from (proxywasm_host[\w.]*) import (\w+(?:, \w+)*)")


def exported(module: str) -> list[str]:
    """The ``__all__`` of a module; read from its source if it needs a package that is not installed."""
    try:
        return list(import_module(module).__all__)
    except ModuleNotFoundError:
        [names] = [
            node.value
            for node in ast.parse(Path(find_spec(module).origin).read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        return ast.literal_eval(names)


def imported(text: str) -> set[tuple[str, str]]:
    """What a program imports from the core, as module and name. Of a whole module, the names that it reads."""
    found: set[tuple[str, str]] = set()
    modules: dict[str, str] = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and f"{node.module}.".startswith("proxywasm_host."):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in MODULES:
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                else:
                    found.add((str(node.module), alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith("proxywasm_host."):
                    modules[alias.asname or alias.name] = alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
            found.add((modules[ast.unparse(node.value)], node.attr))
    return found


def taught() -> set[tuple[str, str]]:
    """What our documentation imports from the core in blocks of code, or names with its module in the text."""
    found = set()
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("engines/*/README.md"), ROOT / "sdk/README.md"]:
        content = page.read_text()
        for full in re.findall(r"`(proxywasm_host\.[\w.]*\w)", BLOCK.sub("", content)):
            module, _, name = full.rpartition(".")
            if full not in MODULES and full not in LOGGERS and full not in OTHERS:
                found.add((module, name))
        for _, language, text in BLOCK.findall(content):
            if language == "python":
                found |= imported(dedent(text))
            else:
                found.update((module, name) for module, names in IMPORT.findall(text) for name in names.split(", "))
    return found


def public() -> dict[str, tuple[object, list[type]]]:
    """Every public class and function, and each member that a class defines or inherits from us, by its full name.

    With each is the list of the classes whose member of that name may document it: those of an interface, for instance.
    """
    found: dict[str, tuple[object, list[type]]] = {}
    for module, names in MODULES.items():
        for name in names:
            try:
                thing = getattr(import_module(module), name)
            except ModuleNotFoundError:  # of an extra that is not installed
                continue
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            found[f"{module}.{name}"] = (thing, [])
            if inspect.isclass(thing):
                ours = [kind for kind in thing.__mro__ if kind.__module__.startswith("proxywasm_host")]
                for key in {key for kind in ours for key in vars(kind) if not key.startswith(("_", "test_"))}:
                    member = inspect.getattr_static(thing, key)
                    if isinstance(member, MEMBER_KINDS):
                        found[f"{module}.{name}.{key}"] = (member, list(thing.__mro__))
    return found


def documented(name: str, thing: object, kinds: list[type]) -> bool:
    """Whether somebody wrote a text: not `dataclass` or `Enum`, which write some, and not another class about itself."""
    key = name.rpartition(".")[2]
    if kinds:
        return any(vars(kind)[key].__doc__ for kind in kinds if key in vars(kind))
    return bool(thing.__doc__) and not thing.__doc__.startswith((f"{key}(", "An enumeration."))


def test_the_page_is_read():
    assert len(MODULES) >= 12
    assert set(MEMBERS) == {"Host", "Plugin", "HttpStream", "TcpStream"}


@pytest.mark.parametrize("module", MODULES)
def test_the_page_has_the_names_of_a_module(module):
    assert MODULES[module] == sorted(exported(module))


def test_what_documentation_teaches_is_on_the_page():
    found = taught()
    assert {("proxywasm_host.integrations.exchange", "Exchange"), ("proxywasm_host.integrations.mitmproxy", "SCRIPT")} <= found
    assert sorted(f"{module}: {name}" for module, name in found if name not in MODULES.get(module, ())) == []


def test_what_examples_import_is_on_the_page():
    found = set().union(*(imported(file.read_text()) for file in ROOT.glob("examples/**/*.py")))
    assert ("proxywasm_host.testing", "exchange") in found
    assert sorted(f"{module}: {name}" for module, name in found if name not in MODULES.get(module, ())) == []


@pytest.mark.parametrize("name", ["v8", "wasmer", "wasmtime"])
def test_what_an_engine_imports_is_on_the_page(name):
    files = [file for pattern in ("*.py", "proxywasm_engine_*/**/*.py") for file in ROOT.glob(f"engines/{name}/{pattern}")]
    found = set().union(*(imported(file.read_text()) for file in files))
    assert ("proxywasm_host.engine.protocol", "InvalidModule") in found
    assert sorted(f"{module}: {name}" for module, name in found if name not in MODULES.get(module, ())) == []


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_has_all_that_an_object_shows_and_nothing_else(name, host, probe):
    made = {"Host": lambda: host, "Plugin": lambda: probe(""), "HttpStream": lambda: host.http_stream([])}
    thing = made.get(name, lambda: host.tcp_stream([]))()
    assert sorted(MEMBERS[name]) == [member for member in dir(thing) if not member.startswith("_")]


def test_every_error_is_in_one_tree_and_has_a_code_of_its_own():
    listed = [getattr(import_module(module), name) for name, _, module in ERRORS]

    def tree(kind):
        yield kind
        for child in kind.__subclasses__():
            if child.__module__.startswith("proxywasm_host."):
                yield from tree(child)

    kinds = set(tree(ProxyWasmError))
    assert kinds == set(listed)
    assert [(kind.__name__, kind.code) for kind in listed] == [(name, code) for name, code, _ in ERRORS]
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_every_error_can_be_imported_from_a_public_module():
    assert [(name, module) for name, _, module in ERRORS if name not in MODULES.get(module, ())] == []


@pytest.mark.parametrize("name", ["RequestCut", "ResponseOver"])
def test_what_an_application_is_told_is_the_error_that_it_expects_as_well(name):
    [module] = [module for kind, _, module in ERRORS if kind == name]
    kind = getattr(import_module(module), name)
    assert issubclass(kind, OSError)
    assert str(kind("the client has gone")) == "the client has gone"
    assert name in PAGE.partition("## Errors")[2].partition("| error |")[0]


def test_what_is_public_has_a_docstring():
    found = public()
    assert {"proxywasm_host.HttpStream.request_headers", "proxywasm_host.errors.ModuleError"} <= found.keys()
    assert [name for name, (thing, kinds) in found.items() if not documented(name, thing, kinds)] == []


def test_a_text_that_nobody_wrote_is_no_docstring():
    @dataclass
    class Record:
        field: int

    class Undocumented(ProxyWasmError):
        def method(self) -> None:
            pass

    assert not documented("Record", Record, [])
    assert not documented("Undocumented", Undocumented, [])
    assert not documented("Undocumented.method", Undocumented.method, [Undocumented])
    assert documented("ProxyWasmError", ProxyWasmError, [])


def test_other_errors_that_are_raised_are_on_the_page():
    """Of Python's errors. Our own that are not in the tree are for ourselves."""
    [listed] = re.findall(r"one of Python's errors: (.*)\. Integrations", PAGE)
    allowed = tuple(getattr(builtins, name) for name in re.findall(r"`(\w+)`", listed))
    assert AssertionError in allowed
    raised = {
        ast.unparse(node.exc.func)
        for file in ROOT.glob("proxywasm_host/**/*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    kinds = [getattr(builtins, name) for name in raised if hasattr(builtins, name)]
    assert ValueError in kinds
    assert [kind for kind in kinds if issubclass(kind, Exception) and not issubclass(kind, allowed)] == []

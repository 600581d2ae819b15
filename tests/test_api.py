"""docs/api.md is the public interface: it names what is there, and nothing that is public is missing."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from proxywasm_host.errors import ProxyWasmError

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
MODULES = {
    name: re.findall(r"`(\w+)`", names)
    for name, names in re.findall(r"^### `([\w.]+)`\n\n.*\n\n(.*)$", PAGE, re.MULTILINE)
}
MEMBERS = {
    name: re.findall(r"`(\w+)`", members)
    for name, members in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", PAGE, re.MULTILINE)
}
ERRORS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `([\w.]+)` \|$", PAGE, re.MULTILINE)


def public() -> list[tuple[str, object]]:
    """Every public class and function, and what a class defines."""
    found = {}
    for module, names in MODULES.items():
        for name in names:
            thing = getattr(import_module(module), name)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            found[f"{thing.__module__}.{thing.__qualname__}"] = thing
            if inspect.isclass(thing) and thing.__module__.startswith("proxywasm_host"):
                wanted = MEMBERS.get(name)
                for key, member in vars(thing).items():
                    shown = key in wanted if wanted else not key.startswith("_")
                    if shown and (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))):
                        found[f"{thing.__module__}.{thing.__qualname__}.{key}"] = member
    return sorted(found.items())


def test_the_page_is_read():
    assert len(MODULES) >= 12
    assert set(MEMBERS) == {"Host", "Plugin", "HttpStream", "TcpStream"}


@pytest.mark.parametrize("module", MODULES)
def test_the_page_has_the_names_of_a_module(module):
    assert MODULES[module] == sorted(import_module(module).__all__)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_has_all_that_an_object_shows_and_nothing_else(name, host, probe):
    made = {"Host": lambda: host, "Plugin": lambda: probe(""), "HttpStream": lambda: host.http_stream([])}
    thing = made.get(name, lambda: host.tcp_stream([]))()
    assert sorted(MEMBERS[name]) == [member for member in dir(thing) if not member.startswith("_")]


def test_every_error_is_in_one_tree_and_has_a_code_of_its_own():
    for _, _, module in ERRORS:
        import_module(module)

    def tree(kind):
        yield kind
        for child in kind.__subclasses__():
            if child.__module__.startswith("proxywasm_host."):
                yield from tree(child)

    kinds = set(tree(ProxyWasmError))
    assert sorted((kind.__name__, kind.code, kind.__module__) for kind in kinds) == sorted(ERRORS)
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_what_is_public_has_a_docstring():
    assert [name for name, thing in public() if not (inspect.getdoc(thing) or "").strip()] == []

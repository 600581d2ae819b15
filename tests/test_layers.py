"""What is imported when the package runs is imported in one order. `pyproject.toml` says which, for import-linter."""

from __future__ import annotations

import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def graph():
    """The modules of the core, and which imports which; not what is imported for annotations only."""
    return grimp.build_graph("proxywasm_host", exclude_type_checking_imports=True, cache_dir=None)


def test_no_module_imports_itself_by_way_of_others(graph):
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        assert len(list(TopologicalSorter(imports).static_order())) == len(graph.modules)
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.fixture(scope="module")
def contracts():
    """The rules for import-linter, by name."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return {one["name"]: one for one in tomllib.load(file)["tool"]["importlinter"]["contracts"]}


def test_contributors_are_told_the_order_that_is_checked(contracts):
    [told] = re.findall(r"Dependencies point one way: (.*?);", (ROOT / "CONTRIBUTING.md").read_text())
    layers = [layer.replace("proxywasm_host.", "") for layer in contracts["arrows point one way"]["layers"]]
    places = [next(at for at, layer in enumerate(layers) if name in layer.split(" | ")) for name in re.findall(r"`(\w+)`", told)]
    assert len(places) > 10
    assert places == sorted(set(places))


def test_what_the_order_of_runtime_leaves_out_is_annotations(graph, contracts):
    left_out = contracts["runtime has one order"]["ignore_imports"]
    pairs = [pair.split(" -> ") for pair in left_out]
    assert [pair for pair in pairs if graph.direct_import_exists(importer=pair[0], imported=pair[1])] == []


def test_an_exchange_can_do_no_io():
    """Nor can what it imports: hosts, streams and the rules of HTTP."""
    io = {"anyio", "asyncio", "http.client", "selectors", "socket", "ssl", "subprocess"}
    script = f"import proxywasm_host.integrations.exchange, sys; print(*({io!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")

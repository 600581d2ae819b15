"""What is imported when the package runs is imported in one order. `pyproject.toml` says which, for import-linter."""

from __future__ import annotations

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


def test_what_the_order_of_runtime_leaves_out_is_annotations(graph):
    with open(Path(__file__).parents[1] / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    left_out = next(one["ignore_imports"] for one in contracts if one["name"] == "runtime has one order")
    pairs = [pair.split(" -> ") for pair in left_out]
    assert [pair for pair in pairs if graph.direct_import_exists(importer=pair[0], imported=pair[1])] == []


def test_an_exchange_can_do_no_io():
    """Nor can what it imports: hosts, streams and the rules of HTTP."""
    io = {"anyio", "asyncio", "http.client", "selectors", "socket", "ssl", "subprocess"}
    script = f"import proxywasm_host.integrations.exchange, sys; print(*({io!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")

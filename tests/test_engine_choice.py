"""Which engine one gets: the real ones, by argument, variable and priority, each plugin its own, and others beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from proxywasm_host import EngineUnavailable, Host, UnknownEngine, open_engine, remedy
from proxywasm_host.testing import Message, exchange
from tests.conftest import ENGINES
from tests.support import FILTERS, code

OPTIONS = {"wasmtime": ("OPTIMISE", "none"), "wasmer": ("OPTIMISE", "none"), "v8": ("SELF_CHECK", "no")}
PRIORITY = ["wasmtime", "v8", "wasmer"]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith("PROXYWASM_") and variable != "PROXYWASM_CACHE_DIR":
            monkeypatch.delenv(variable)


def program(text: str, **environment: str) -> str:
    """What a program prints that finds the plug-ins of an environment of its own."""
    variables = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestOrder:
    @pytest.mark.several_engines
    def test_an_argument_goes_before_the_variable(self, engine, monkeypatch):
        monkeypatch.setenv("PROXYWASM_ENGINE", next(name for name in ENGINES if name != engine.name))
        assert Host(engine.name).engine is engine
        assert Host(engine).engine is engine

    def test_the_variable_goes_before_priority(self, engine, monkeypatch):
        monkeypatch.setenv("PROXYWASM_ENGINE", engine.name)
        assert Host().engine is engine

    def test_of_several_in_the_variable_the_first_that_is_usable(self, engine, monkeypatch):
        monkeypatch.setattr("proxywasm_host.engine.registry._OURS", {"gone": ("gone-engine", 900)})
        others = [name for name in ENGINES if name != engine.name]
        monkeypatch.setenv("PROXYWASM_ENGINE", ",".join(["gone", engine.name, *others]))
        assert Host().engine is engine

    def test_else_the_one_of_highest_priority(self):
        assert Host().engine.name == next(name for name in PRIORITY if name in ENGINES)

    def test_options_come_from_variables_as_well(self, engine, monkeypatch):
        option, value = OPTIONS[engine.name]
        monkeypatch.setenv(f"PROXYWASM_{engine.name.upper()}_{option}", value)
        with_it = open_engine(engine.name)
        assert with_it is not engine
        assert with_it is open_engine(engine.name, **{option.lower(): False if value == "no" else value})
        if option == "OPTIMISE":
            assert with_it.fingerprint != engine.fingerprint

    def test_an_option_that_an_engine_does_not_have_is_told(self, engine, monkeypatch):
        monkeypatch.setenv(f"PROXYWASM_{engine.name.upper()}_TURBO", "1")
        with pytest.raises(TypeError, match=rf"'{engine.name}' has no option 'turbo' \(set by PROXYWASM_\w+_TURBO\)"):
            Host(engine.name)


class TestChains:
    REQUEST = Message.request("GET", "http://example.com/", [("authorization", "Bearer secret"), ("x-remove-me", "1")])

    def result(self, engines):
        """What comes of one request through three filters, each on its engine."""
        filters = ("rust/auth", "secret"), ("go/headers", "go"), ("assemblyscript/headers_0_2_1", "as")
        with Host(engines[0]) as host:
            plugins = [
                host.load_plugin(FILTERS / f"{path}.wasm", configuration=configuration, engine=engine)
                for (path, configuration), engine in zip(filters, engines, strict=True)
            ]
            done = exchange(host, plugins, self.REQUEST)
        assert done.upstream_request is not None
        return done.upstream_request.headers, done.client_response.status, done.client_response.headers

    @pytest.mark.several_engines
    def test_each_plugin_of_a_chain_on_another_engine(self):
        turns = [[*ENGINES[number:], *ENGINES[:number], *ENGINES][:3] for number in range(len(ENGINES))]
        alike = [[name] * 3 for name in ENGINES]
        first, *others = [self.result(engines) for engines in [*alike, *turns]]
        assert others == [first] * len(others)

    def test_a_host_of_one_engine_says_which_plugin_is_on_another(self, engine):
        with Host() as host:
            one, other = (host.load_plugin(code("rust/headers"), engine=name) for name in (None, engine.name))
            assert (one._vm is other._vm) is (host.engine is engine)


class TestRefusals:
    def test_unknown_with_what_is_near(self, engine):
        with pytest.raises(UnknownEngine, match=f"Did you mean '{engine.name}'") as caught:
            Host(engine.name[:-1] + "x")
        assert not isinstance(caught.value, EngineUnavailable)

    def test_known_but_not_installed(self):
        said = program(
            """
            import importlib.metadata
            importlib.metadata.entry_points = lambda group: []
            import proxywasm_host
            for name in ("wasmtime", "v8", "wasmer"):
                try:
                    proxywasm_host.Host(name)
                except proxywasm_host.EngineUnavailable as error:
                    print(error)
            """
        )
        assert said.splitlines() == [
            f"engine {name!r} is known but not installed: {remedy.install_engine(f'proxywasm-engine-{name}')}"
            for name in ("wasmtime", "v8", "wasmer")
        ]

    @pytest.mark.several_engines
    @pytest.mark.parametrize("engine_name", ENGINES)
    def test_installed_but_its_runtime_does_not_load(self, engine_name):
        runtime = {"wasmtime": "wasmtime", "v8": "py_mini_racer", "wasmer": "proxywasm_engine_wasmer._native"}
        said = program(
            f"""
            import sys, proxywasm_host
            sys.modules[{runtime[engine_name]!r}] = None
            try:
                proxywasm_host.Host({engine_name!r})
            except proxywasm_host.EngineUnavailable as error:
                print(error)
            print(proxywasm_host.Host({next(name for name in ENGINES if name != engine_name)!r}).engine.name)
            """
        )
        refusal, other = said.splitlines()
        assert refusal.startswith(f"engine {engine_name!r} is ")
        assert refusal.endswith((remedy.install_engine(f"proxywasm-engine-{engine_name}", upgrade=True), " mini-racer==0.14.1"))
        assert other == next(name for name in ENGINES if name != engine_name)


BROKEN = {
    "raises": "raise RuntimeError('out of luck')",
    "leaves": "import sys; sys.exit('goodbye')",
    "panics": "class PanicException(BaseException): pass\nraise PanicException('rust panicked')",
    "lacks": "",
    "lies": "class Engine:\n    priority = 'high'\n    def compile(self, code): return None",
}


class TestPlugIns:
    @pytest.fixture
    def path(self, tmp_path):
        """Plug-ins that break in several ways, installed beside the real engines."""
        for name, text in BROKEN.items():
            (tmp_path / f"engine_{name}.py").write_text(text)
        (tmp_path / "theirs-1.0.dist-info").mkdir()
        (tmp_path / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        lines = "".join(f"{name} = engine_{name}:Engine\n" for name in BROKEN)
        entry_points = f"[proxywasm_host.engines]\n{lines}odd = not a target\n"
        (tmp_path / "theirs-1.0.dist-info/entry_points.txt").write_text(entry_points)
        return str(tmp_path)

    def test_what_breaks_while_loading_is_told_and_breaks_nothing_else(self, path):
        said = program(
            """
            import proxywasm_host
            for status in proxywasm_host.list_engines():
                print(status.name, status.usable, "" if status.usable else f"{status.reason}; {status.remedy}")
            print(proxywasm_host.Host().engine.name)
            """,
            PYTHONPATH=path,
        )
        *lines, best = said.splitlines()
        told = {name: rest for name, _, rest in (line.partition(" ") for line in lines)}
        assert {name for name, rest in told.items() if rest == "True "} == set(ENGINES)
        assert "out of luck" in told["raises"]
        assert "SystemExit: goodbye" in told["leaves"]
        assert "rust panicked" in told["panics"]
        for name in (*BROKEN, "odd"):
            assert told[name].startswith("False installed but not usable (")
            assert told[name].endswith("pip install --upgrade theirs")
        assert best == next(name for name in PRIORITY if name in ENGINES)

    def test_listing_their_names_imports_none(self, path):
        said = program(
            """
            import sys
            from proxywasm_host.engine.registry import engine_names
            print(*engine_names())
            print([name for name in sys.modules if name.startswith(("engine_", "proxywasm_engine", "wasmtime", "py_mini"))])
            """,
            PYTHONPATH=path,
        )
        names, imported = said.splitlines()
        assert set(names.split()) == {*ENGINES, *BROKEN, "odd", *PRIORITY}
        assert imported == "[]"

    def test_one_that_is_asked_for_by_name_imports_no_other(self, path):
        said = program(
            """
            import sys, proxywasm_host
            proxywasm_host.Host("wasmtime")
            print([name for name in sys.modules if name.startswith(("engine_", "proxywasm_engine_"))
                   and not name.startswith("proxywasm_engine_wasmtime")])
            """,
            PYTHONPATH=path,
        )
        assert said == "[]\n"

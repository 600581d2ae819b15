"""Finding engines, choosing one, and what is said of those that cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_host import remedy
from proxywasm_host.engine import registry
from proxywasm_host.engine.protocol import Capabilities
from proxywasm_host.engine.registry import engine_names, list_engines, open_engine, register_engine
from proxywasm_host.errors import EngineUnavailable, ProxyWasmError, UnknownEngine

GOOD = "proxywasm_engine_wasmtime:WasmtimeEngine"


real_entry_points = registry._entry_points


class Second(WasmtimeEngine):
    name = "second"
    priority = 50


class Lying(WasmtimeEngine):
    """Opens, but does not work."""

    priority = 1000

    def compile(self, bytecode: bytes) -> object:  # type: ignore[override]
        raise MemoryError("no room for code")


class Refusing:
    priority = 900

    def __init__(self) -> None:
        raise EngineUnavailable("refusing", "asleep", "wake it")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No engines but those that a test brings, and no settings."""
    for variable in list(os.environ):
        if variable.startswith("PROXYWASM_"):
            monkeypatch.delenv(variable)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_opened", {})
    monkeypatch.setattr(registry, "_entry_points", dict)
    yield


def install(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    entries = {name: EntryPoint(name, target, registry.GROUP) for name, target in targets.items()}
    monkeypatch.setattr(registry, "_entry_points", lambda: entries)


def here(name: str) -> str:
    return f"{__name__}:{name}"


class TestNames:
    def test_ours_are_known_without_being_installed(self) -> None:
        assert engine_names() == ("v8", "wasmer", "wasmtime")

    def test_plug_ins_and_registered_ones_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wamr="nowhere:Engine")
        register_engine("mine", "nowhere.either:Engine")
        assert engine_names() == ("mine", "v8", "wamr", "wasmer", "wasmtime")

    def test_listing_them_imports_nothing(self) -> None:
        program = """
            import sys
            from proxywasm_host.engine.registry import engine_names
            assert "wasmtime" in engine_names()
            assert not {"wasmtime", "proxywasm_engine_wasmtime"} & sys.modules.keys()
        """
        paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=paths, check=True)

    def test_plug_ins_are_found_by_their_entry_point(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        metadata = tmp_path / "someones_engine-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-engine\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[proxywasm_host.engines]\nwamr = gone:Engine\n")
        monkeypatch.syspath_prepend(tmp_path)
        real_entry_points.cache_clear()
        monkeypatch.setattr(registry, "_entry_points", real_entry_points)
        assert "wamr" in engine_names()
        status = next(status for status in list_engines() if status.name == "wamr")
        assert (status.distribution, status.installed, status.usable) == ("someones-engine", True, False)
        assert status.remedy.endswith("pip install --upgrade someones-engine")
        real_entry_points.cache_clear()

    @pytest.mark.parametrize("target", ["", "module", "module:", ":Class"])
    def test_a_target_of_another_form_is_refused(self, target: str) -> None:
        with pytest.raises(ValueError, match=r"package\.module:Class"):
            register_engine("mine", target)


class TestOpen:
    def test_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        assert isinstance(open_engine("wasmtime"), WasmtimeEngine)

    def test_once_per_name_and_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        assert open_engine("wasmtime") is open_engine("wasmtime") is open_engine()
        other = open_engine("wasmtime", route="objects")
        assert other is open_engine("wasmtime", route="objects")
        assert other is not open_engine("wasmtime")

    def test_a_registered_one_goes_before_an_installed_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        open_engine("wasmtime")
        register_engine("wasmtime", here("Second"))
        assert isinstance(open_engine("wasmtime"), Second)

    def test_the_variable_names_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD, second=here("Second"))
        monkeypatch.setenv("PROXYWASM_ENGINE", "second")
        assert isinstance(open_engine(), Second)
        assert type(open_engine("wasmtime")) is WasmtimeEngine

    def test_the_variable_names_several_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD, second=here("Second"))
        monkeypatch.setenv("PROXYWASM_ENGINE", " v8, second ,wasmtime")
        assert isinstance(open_engine(), Second)

    def test_else_the_usable_one_of_highest_priority(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, second=here("Second"), lying=here("Lying"), refusing=here("Refusing"), gone="gone:E")
        assert isinstance(open_engine(), Second)
        install(monkeypatch, second=here("Second"), wasmtime=GOOD)
        assert type(open_engine()) is WasmtimeEngine

    def test_options_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        monkeypatch.setenv("PROXYWASM_WASMTIME_ROUTE", "objects")
        monkeypatch.setenv("PROXYWASM_WASMTIME_DEADLINE", "no")
        engine = open_engine()
        assert "as requested" in engine.note
        assert not engine.capabilities.deadline
        assert open_engine("wasmtime", route="ctypes", deadline=True).capabilities.deadline


class TestRefusals:
    def refusal(self, name: str | None, **options: object) -> EngineUnavailable:
        with pytest.raises(EngineUnavailable) as caught:
            open_engine(name, **options)
        return caught.value

    def test_unknown(self) -> None:
        with pytest.raises(UnknownEngine, match=r"'wasmtme'.*Did you mean 'wasmtime'.*v8, wasmer, wasmtime") as caught:
            open_engine("wasmtme")
        assert isinstance(caught.value, ProxyWasmError)
        assert isinstance(caught.value, LookupError)

    def test_unknown_and_like_none(self) -> None:
        with pytest.raises(UnknownEngine) as caught:
            open_engine("xyz")
        assert "mean" not in str(caught.value)

    def test_unknown_in_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        monkeypatch.setenv("PROXYWASM_ENGINE", "wasmtime,v9")
        with pytest.raises(UnknownEngine, match=r"'v9' \(named by PROXYWASM_ENGINE\).*'v8'"):
            open_engine()

    def test_known_but_not_installed(self) -> None:
        error = self.refusal("v8")
        assert str(error) == f"engine 'v8' is known but not installed: {remedy.install_engine('proxywasm-engine-v8')}"

    def test_none_at_all(self) -> None:
        assert remedy.install_engine("proxywasm-engine-wasmtime") in str(self.refusal(None))

    def test_the_broken_one_is_named_rather_than_the_missing_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, lying=here("Lying"))
        assert self.refusal(None).name == "lying"

    def test_installed_but_a_stub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmer="not_there_at_all:Engine")
        error = self.refusal("wasmer")
        assert "installed but not usable (ModuleNotFoundError" in error.reason
        assert error.remedy == remedy.install_engine("proxywasm-engine-wasmer")

    def test_opens_but_does_not_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, lying=here("Lying"))
        assert "no room for code" in self.refusal("lying").reason

    def test_what_the_engine_says_itself_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, refusing=here("Refusing"))
        error = self.refusal("refusing")
        assert (error.reason, error.remedy) == ("asleep", "wake it")

    def test_no_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, odd="sys:maxsize")
        assert "not a class" in self.refusal("odd").reason

    def test_an_option_that_it_does_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        with pytest.raises(TypeError, match="'wasmtime' has no option 'rout'; its options: route, optimise"):
            open_engine("wasmtime", rout="x")
        monkeypatch.setenv("PROXYWASM_WASMTIME_ROUT", "x")
        with pytest.raises(TypeError, match="set by PROXYWASM_WASMTIME_ROUT"):
            open_engine("wasmtime")

    def test_a_value_that_it_does_not_take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        with pytest.raises(ValueError, match="'slow'"):
            open_engine("wasmtime", route="slow")


class TestList:
    def test_all_of_them_the_usable_ones_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD, second=here("Second"), lying=here("Lying"), gone="gone:E")
        found = {status.name: status for status in list_engines()}
        assert list(found) == ["wasmtime", "second", "lying", "v8", "wasmer", "gone"]
        wasmtime, lying, v8, gone = (found[name] for name in ("wasmtime", "lying", "v8", "gone"))
        assert (wasmtime.installed, wasmtime.usable, wasmtime.reason) == (True, True, "")
        assert wasmtime.version.split(".")[0].isdigit()
        assert wasmtime.note.startswith("C API ")
        assert wasmtime.capabilities.deadline
        assert (v8.installed, v8.usable, v8.distribution) == (False, False, "proxywasm-engine-v8")
        assert v8.remedy == remedy.install_engine("proxywasm-engine-v8")
        assert v8.capabilities == Capabilities()
        assert (lying.installed, lying.usable, lying.priority) == (True, False, 1000)
        assert "no room" in lying.reason
        assert (gone.installed, gone.usable) == (True, False)

    def test_an_option_that_is_wrong_in_the_environment_is_told_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, wasmtime=GOOD)
        monkeypatch.setenv("PROXYWASM_WASMTIME_ROUTE", "slow")
        status = next(status for status in list_engines() if status.name == "wasmtime")
        assert (status.usable, "'slow'" in status.reason) == (False, True)

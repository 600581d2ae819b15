"""The cache of compiled modules: what is loaded, what is compiled anew, and what is never loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from proxywasm_engine_wasmtime import WasmtimeEngine
from proxywasm_host.engine.cache import Loaded, ModuleCache, default_directory
from proxywasm_host.engine.protocol import Capabilities, InvalidModule, Limits
from tests.support import wat

SEVEN = wat('(module (func (export "f") (result i32) (i32.const 7)))')
EIGHT = wat('(module (func (export "f") (result i32) (i32.const 8)))')

needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner and mode here")


class Counting(WasmtimeEngine):
    """An engine that counts what it is asked to do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.compiled = self.deserialised = 0

    def compile(self, bytecode: bytes) -> Any:
        self.compiled += 1
        time.sleep(0.01)  # for the threads
        return super().compile(bytecode)

    def deserialise(self, compiled: bytes) -> Any:
        self.deserialised += 1
        return super().deserialise(compiled)


@pytest.fixture
def engine() -> Counting:
    return Counting()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def answer(loaded: Loaded) -> object:
    call = loaded.module.instantiate([], Limits()).function("f")
    assert call is not None
    return call()


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.module"))


class TestMemory:
    def test_a_module_is_compiled_once(self, engine: Counting) -> None:
        cache = ModuleCache(None)
        assert cache.load(engine, SEVEN) is cache.load(engine, SEVEN)
        assert engine.compiled == 1

    def test_other_bytes_and_other_engines_have_their_own(self, engine: Counting) -> None:
        cache = ModuleCache(None)
        loaded = [cache.fetch(engine, SEVEN), cache.fetch(engine, EIGHT), cache.fetch(Counting(), SEVEN)]
        assert [item.origin for item in loaded] == ["compiled"] * 3
        assert list(map(answer, loaded)) == [7, 8, 7]

    def test_the_one_not_used_for_longest_is_forgotten(self, engine: Counting) -> None:
        cache = ModuleCache(None, keep=2)
        modules = [SEVEN, EIGHT, SEVEN, wat("(module)"), SEVEN, EIGHT]
        origins = [cache.fetch(engine, module).origin for module in modules]
        assert origins == ["compiled", "compiled", "memory", "compiled", "memory", "compiled"]

    def test_threads_that_want_the_same_compile_it_once(self, engine: Counting, directory: Path) -> None:
        cache = ModuleCache(directory)
        barrier = threading.Barrier(8)
        origins = []

        def load() -> None:
            barrier.wait()
            origins.append(cache.fetch(engine, SEVEN).origin)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(origins) == ["compiled"] + ["memory"] * 7
        assert engine.compiled == 1

    def test_a_failure_is_not_kept(self, engine: Counting) -> None:
        cache = ModuleCache(None)
        for _ in range(2):
            with pytest.raises(InvalidModule):
                cache.load(engine, b"garbage")
        assert engine.compiled == 2


class TestDisk:
    def test_another_cache_loads_what_one_compiled(self, engine: Counting, directory: Path) -> None:
        first = ModuleCache(directory).fetch(engine, SEVEN)
        second = ModuleCache(directory).fetch(engine, SEVEN)
        assert (first.origin, second.origin, engine.compiled) == ("compiled", "disk", 1)
        assert answer(second) == 7
        assert second.seconds > 0

    @needs_owners
    def test_nobody_else_may_look_in(self, engine: Counting, directory: Path) -> None:
        ModuleCache(directory).load(engine, SEVEN)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
        assert len(files(directory)) == 1
        assert len(list(directory.iterdir())) == 2  # the module and the key

    def test_a_second_process_does_not_compile(self, directory: Path) -> None:
        program = (
            "import sys, pathlib; from proxywasm_engine_wasmtime import WasmtimeEngine;"
            "from proxywasm_host.engine.cache import ModuleCache;"
            f"print(ModuleCache(pathlib.Path(sys.argv[1])).fetch(WasmtimeEngine(), {SEVEN!r}).origin)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        origins = [
            subprocess.run(
                [sys.executable, "-c", program, directory], env=environment, check=True, capture_output=True, text=True
            ).stdout.strip()
            for _ in range(2)
        ]
        assert origins == ["compiled", "disk"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_processes_that_write_at_once_do_not_disturb_each_other(self, directory: Path) -> None:
        children = []
        modules = [wat(f'(module (func (export "f") (result i32) (i32.const {number})))') for number in range(20)]
        for _ in range(3):
            child = os.fork()
            if not child:
                cache, engine = ModuleCache(directory), WasmtimeEngine(route="objects", parallel_compilation=False)
                wrong = [n for n, module in enumerate(modules) if answer(cache.fetch(engine, module)) != n]
                os._exit(len(wrong))
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
        assert len(files(directory)) == 20
        cache, engine = ModuleCache(directory), WasmtimeEngine()
        assert {cache.fetch(engine, module).origin for module in modules} == {"disk"}


class TestDistrust:
    """Whatever is wrong with a file: it is compiled anew, and replaced by a good one."""

    @pytest.fixture
    def file(self, engine: Counting, directory: Path) -> Path:
        ModuleCache(directory).load(engine, SEVEN)
        (path,) = files(directory)
        return path

    def check_replaced(self, engine: Counting, directory: Path) -> None:
        origins = [ModuleCache(directory).fetch(engine, SEVEN).origin for _ in range(2)]
        assert origins == ["compiled", "disk"]
        assert engine.deserialised == 1  # what was wrong has not been handed to the engine

    @pytest.mark.parametrize("size", [0, 5, 39, 40, 41, 1000])
    def test_torn(self, engine: Counting, directory: Path, file: Path, size: int) -> None:
        file.write_bytes(file.read_bytes()[:size])
        self.check_replaced(engine, directory)

    @pytest.mark.parametrize("at", [0, 8, 39, 40, 2000, -1])
    def test_tampered_with(self, engine: Counting, directory: Path, file: Path, at: int) -> None:
        contents = bytearray(file.read_bytes())
        contents[at] ^= 1
        file.write_bytes(contents)
        self.check_replaced(engine, directory)

    def test_the_good_file_of_another_module(self, engine: Counting, directory: Path, file: Path) -> None:
        ModuleCache(directory).load(engine, EIGHT)
        (other,) = set(files(directory)) - {file}
        file.write_bytes(other.read_bytes())
        self.check_replaced(engine, directory)

    @needs_owners
    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_writable_by_others(self, engine: Counting, directory: Path, file: Path, mode: int) -> None:
        file.chmod(mode)
        self.check_replaced(engine, directory)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
    def test_of_another_user(self, engine: Counting, directory: Path, file: Path) -> None:
        os.chown(file, 12345, 12345)
        self.check_replaced(engine, directory)

    def test_a_symbolic_link(self, engine: Counting, directory: Path, file: Path) -> None:
        file.rename(directory / "elsewhere")
        file.symlink_to(directory / "elsewhere")
        self.check_replaced(engine, directory)

    @pytest.mark.parametrize("place", ["module", "key"])
    def test_a_pipe(self, engine: Counting, directory: Path, file: Path, place: str) -> None:
        """Opened as a file is, it would keep us waiting for a writer."""
        replaced = file if place == "module" else directory / "key"
        replaced.unlink()
        os.mkfifo(replaced, 0o600)
        self.check_replaced(engine, directory)

    def test_of_another_fingerprint(self, engine: Counting, directory: Path, file: Path) -> None:
        other = Counting(optimise="none")
        assert ModuleCache(directory).fetch(other, SEVEN).origin == "compiled"
        assert ModuleCache(directory).fetch(engine, SEVEN).origin == "disk"
        assert len(files(directory)) == 2

    def test_whole_but_refused_by_the_engine(
        self, engine: Counting, directory: Path, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: bytes) -> None:
            raise InvalidModule("compiled for another processor")

        monkeypatch.setattr(engine, "deserialise", refuse)
        assert file.exists()
        assert answer(ModuleCache(directory).fetch(engine, SEVEN)) == 7

    @needs_owners
    def test_a_key_that_others_could_read_is_replaced(self, engine: Counting, directory: Path, file: Path) -> None:
        key = directory / "key"
        before = key.read_bytes()
        key.chmod(0o640)
        self.check_replaced(engine, directory)
        assert key.read_bytes() != before
        assert file.exists()

    @pytest.mark.parametrize("contents", [b"", b"short"])
    def test_a_torn_key_is_replaced(self, engine: Counting, directory: Path, file: Path, contents: bytes) -> None:
        (directory / "key").write_bytes(contents)
        self.check_replaced(engine, directory)
        assert file.exists()

    @needs_owners
    def test_a_directory_that_others_may_write_to_is_not_used(
        self, engine: Counting, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
        with caplog.at_level("DEBUG", "proxywasm_host.engine.cache"):
            cache = ModuleCache(directory)
            assert [cache.fetch(engine, module).origin for module in (SEVEN, EIGHT)] == ["compiled"] * 2
        assert list(directory.iterdir()) == []
        assert len(caplog.records) == 1
        assert "open to others" in caplog.text


class TestNoRoom:
    def test_where_no_directory_can_be(self, engine: Counting, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        cache = ModuleCache(tmp_path / "file" / "cache")
        assert cache.fetch(engine, SEVEN).origin == "compiled"
        assert cache.fetch(engine, SEVEN).origin == "memory"

    def test_a_full_disk_leaves_nothing_behind(
        self, engine: Counting, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ModuleCache(directory).load(engine, EIGHT)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        assert ModuleCache(directory).fetch(engine, SEVEN).origin == "compiled"
        assert len(files(directory)) == 1
        assert not list(directory.glob(".tmp-*"))

    def test_the_oldest_go_first(self, engine: Counting, directory: Path) -> None:
        modules = [wat(f'(module (func (export "f") (result i32) (i32.const {number})))') for number in range(3)]
        sizes = []
        for age, module in zip((300, 200), modules, strict=False):
            before = set(files(directory))
            ModuleCache(directory).load(engine, module)
            (new,) = set(files(directory)) - before
            os.utime(new, (time.time() - age,) * 2)
            sizes.append(new.stat().st_size)
        assert ModuleCache(directory).fetch(engine, modules[0]).origin == "disk"  # so now it is the younger one
        ModuleCache(directory, size_limit=max(sizes) * 2 + 100).load(engine, modules[2])
        origins = [ModuleCache(directory).fetch(engine, modules[number]).origin for number in (0, 2, 1)]
        assert origins == ["disk", "disk", "compiled"]

    def test_abandoned_temporary_files_are_removed(self, engine: Counting, directory: Path) -> None:
        ModuleCache(directory).load(engine, SEVEN)
        old, new = directory / ".tmp-old", directory / ".tmp-new"
        for path in (old, new):
            path.write_bytes(b"x")
        os.utime(old, (time.time() - 7200,) * 2)
        ModuleCache(directory).load(engine, EIGHT)
        assert (old.exists(), new.exists()) == (False, True)

    def test_an_engine_that_cannot_serialise_is_left_alone(self, engine: Counting, directory: Path) -> None:
        engine.capabilities = Capabilities()
        ModuleCache(directory).load(engine, SEVEN)
        assert not directory.exists()


class TestDefaultDirectory:
    def test_in_order(self) -> None:
        assert default_directory({"PROXYWASM_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
        assert default_directory({"XDG_CACHE_HOME": "/b"}) == Path("/b/proxywasm-host")
        assert default_directory({}) == Path.home() / ".cache" / "proxywasm-host"

    def test_empty_switches_it_off(self) -> None:
        assert default_directory({"PROXYWASM_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}) is None


def test_a_compilation_that_takes_long_is_told(engine, directory, monkeypatch, caplog):
    monkeypatch.setattr("proxywasm_host.engine.cache.SLOW", 0)
    told: list[str] = []
    heard = threading.Event()

    def hear(sentence: str) -> None:
        told.append(sentence)
        heard.set()

    class Slow(Counting):
        def compile(self, bytecode: bytes) -> Any:
            assert heard.wait(60)
            return super().compile(bytecode)

    ModuleCache(directory, slow=hear).load(Slow(), SEVEN)
    ModuleCache(directory, slow=hear).load(engine, SEVEN)
    ModuleCache(None, slow=hear).load(Slow(), SEVEN)
    assert told == [
        "compiling a module of 0.0 MB on wasmtime takes more than a second; next time it loads at once",
        "compiling a module of 0.0 MB on wasmtime takes more than a second; it is not cached on disk",
    ]


def test_a_compilation_that_takes_long_is_logged_if_nobody_else_is_told(monkeypatch, caplog):
    monkeypatch.setattr("proxywasm_host.engine.cache.SLOW", 0)
    caplog.set_level("INFO", "proxywasm_host")

    class Slow(Counting):
        def compile(self, bytecode: bytes) -> Any:
            deadline = time.monotonic() + 60
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.001)
            return super().compile(bytecode)

    ModuleCache(None).load(Slow(), SEVEN)
    assert caplog.messages == [
        "compiling a module of 0.0 MB on wasmtime takes more than a second; it is not cached on disk"
    ]

"""The C extensions are optional, so pip says nothing if one does not compile, and tests that need it are left out."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from proxywasm_host import Host, Limits, extension, open_engine
from proxywasm_host.engine.protocol import FunctionType, HostFunction
from proxywasm_host.extension import get_include
from proxywasm_host.testing.compliance.base import instantiate
from proxywasm_host.testing.compliance.exceptions import LAYERS
from tests.conftest import ENGINES
from tests.support import REQUEST, code, wat

COMPILER = shutil.which("cc") and Path(sysconfig.get_paths()["include"], "Python.h").exists()
ROOT = Path(__file__).parent.parent
SETUPTOOLS = int(version("setuptools").partition(".")[0]) if find_spec("setuptools") else 0
EXTENSIONS = ["proxywasm_host._native", "proxywasm_engine_wasmtime._native", "proxywasm_engine_v8._native"]


needs_compiler = pytest.mark.skipif(
    not COMPILER or "PROXYWASM_NATIVE" in os.environ, reason="there is no compiler, or it is off"
)


@needs_compiler
@pytest.mark.parametrize("name", [name for name in EXTENSIONS if find_spec(name.partition(".")[0])])
def test_each_is_built_where_there_is_a_compiler(name):
    built = Path(import_module(name).__file__)
    assert extension.fingerprint(built.parent / "native") == import_module(name).FINGERPRINT


@needs_compiler
@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_can_be_called_from_c(name):
    """Otherwise all works, and takes longer; and `EngineComplianceSuite` skips its tests of such calls."""
    instance = instantiate(open_engine(name), LAYERS, lambda: 0)
    assert name_of(instance.function("fine").native_call) == f"proxywasm_host.callback.{extension.NATIVE_ABI}".encode()
    assert name_of(instance.memory.native_range) == f"proxywasm_host.memory.{extension.NATIVE_ABI}".encode()
    instance.close()


def name_of(capsule: object) -> bytes:
    get = ctypes.pythonapi.PyCapsule_GetName
    get.restype, get.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    return get(capsule)


# -- Of another version --------------------------------------------------------------------------------------------------

OTHER = {word: f"proxywasm_host.{word}.999".encode() for word in ("hostcall", "callback", "memory")}


def capsule_of_another_version(word: str) -> object:
    """It points at nothing that may be looked at."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return make(1, OTHER[word], None)


class Foreign:
    """An engine as if it had been built against another version of ``proxywasm_host.h``."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


class ForeignFunction(Foreign):
    native_call = capsule_of_another_version("callback")

    def __call__(self, *args: int) -> object:
        return self._real(*args)


class ForeignMemory(Foreign):
    native_range = capsule_of_another_version("memory")


class ForeignInstance(Foreign):
    def __init__(self, real: object) -> None:
        super().__init__(real)
        self.memory = ForeignMemory(real.memory)

    def function(self, name: str) -> object:
        found = self._real.function(name)
        return found and ForeignFunction(found)


class ForeignModule(Foreign):
    def instantiate(self, functions, limits, bind):
        return ForeignInstance(self._real.instantiate(functions, limits, lambda instance: bind(ForeignInstance(instance))))


class ForeignEngine(Foreign):
    def compile(self, code: bytes) -> ForeignModule:
        return ForeignModule(self._real.compile(code))

    def deserialise(self, code: bytes) -> ForeignModule:
        return ForeignModule(self._real.deserialise(code))


def test_an_engine_of_another_native_abi_is_called_through_python(engine):
    with Host(ForeignEngine(engine)) as host:
        plugin = host.load_plugin(code("rust/headers"), configuration="hello")
        with host.http_stream([plugin]) as stream:
            (sent,) = stream.request_headers(REQUEST, True)
            assert sent.headers[-1] == (b"x-wasm", b"hello")


def test_a_core_of_another_native_abi_is_called_through_python(engine):
    class Seven:
        native_entry = capsule_of_another_version("hostcall")

        def __call__(self) -> int:
            return 7

    text = '(module (import "h" "seven" (func $seven (result i32))) (func (export "f") (result i32) (call $seven)))'
    module = engine.compile(wat(text))
    instance = module.instantiate([HostFunction("h", "seven", FunctionType((), ("i32",)), Seven())], Limits())
    assert instance.function("f")() == 7
    instance.close()


def test_an_extension_of_another_native_abi_is_left_alone(monkeypatch):
    module = ModuleType("proxywasm_engine_other._native")
    module.__file__, module.NATIVE_ABI = "/nowhere/_native.so", 999
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("PROXYWASM_NATIVE", raising=False)
    assert extension.load(module.__name__) == (
        None,
        "off: it was built for native ABI 999, and this proxywasm-host has 1: install a matching version of proxywasm-engine-other",
    )


@pytest.mark.parametrize("change", ["a line more", "a file more", "another name", "an old one", "none", "all gone"])
def test_an_extension_that_was_built_from_other_sources_is_left_alone(change, tmp_path, monkeypatch):
    """As after a change in a checkout. Where its sources are not installed with it, it is what was built with the rest."""
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "module.c").write_text("int a;\n")
    (sources / "native.h").write_text("int b;\n")
    module = ModuleType("proxywasm_engine_other._native")
    module.__file__, module.NATIVE_ABI = str(tmp_path / "_native.so"), extension.NATIVE_ABI
    module.FINGERPRINT = extension.fingerprint(sources)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("PROXYWASM_NATIVE", raising=False)
    (sources / "notes.txt").write_text("no source")
    if change == "a line more":
        (sources / "native.h").write_text("int b;\nint c;\n")
    elif change == "a file more":
        (sources / "more.c").touch()
    elif change == "another name":
        (sources / "module.c").rename(sources / "modules.c")
    elif change == "an old one":
        del module.FINGERPRINT
    elif change == "all gone":
        shutil.rmtree(sources)
    stale = change not in ("none", "all gone")
    note = "off: it was built from other sources; install the package again"
    assert extension.load(module.__name__) == ((None, note) if stale else (module, "on"))


def test_the_header_has_the_same_version():
    text = (Path(get_include()) / "proxywasm_host.h").read_text()
    assert f"#define PROXYWASM_NATIVE_ABI {extension.NATIVE_ABI} " in text
    assert sorted(re.findall(r'"proxywasm_host\.(\w+)\.(\d+)"', text)) == [(word, str(extension.NATIVE_ABI)) for word in sorted(OTHER)]


@pytest.mark.parametrize("name", ENGINES)
def test_the_memory_of_an_engine_has_the_version_that_the_engine_was_built_for(name):
    """A newer core must not take an old struct for one of its own."""
    script = f"""
import ctypes
from proxywasm_host import extension, open_engine
from proxywasm_host.testing.compliance.base import instantiate
from proxywasm_host.testing.compliance.exceptions import LAYERS
extension.NATIVE_ABI += 1
get = ctypes.pythonapi.PyCapsule_GetName
get.restype, get.argtypes = ctypes.c_char_p, (ctypes.py_object,)
print(get(instantiate(open_engine({name!r}), LAYERS, lambda: 0).memory.native_range).decode())
"""
    assert output_of(script) == [f"proxywasm_host.memory.{extension.NATIVE_ABI}"]


def output_of(script: str, path: Path | None = None, cwd: Path = ROOT) -> list[str]:
    """The lines that a script prints, with a folder of packages that go before the installed ones."""
    paths = [str(path or cwd), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def of_another_version(tmp_path):
    """A function that builds an engine in C with the header of another version, into a folder of packages."""

    def build(name: str) -> Path:
        pytest.importorskip(f"proxywasm_engine_{name}")
        header = (Path(get_include()) / "proxywasm_host.h").read_text()
        other = re.sub(rf"(PROXYWASM_NATIVE_ABI ){extension.NATIVE_ABI}\b", r"\g<1>999", header)
        shutil.copytree(get_include(), tmp_path / "include")
        (tmp_path / "include/proxywasm_host.h").write_text(re.sub(rf'\.{extension.NATIVE_ABI}"', '.999"', other))
        source = ROOT / f"engines/{name}/proxywasm_engine_{name}"
        package = tmp_path / source.name
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("native", "*.so", "__pycache__"))
        include = [f"-I{tmp_path}/include", f"-I{sysconfig.get_paths()['include']}"]
        output = ["-o", package / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"]
        sources = sorted((source / "native").glob("*.c"))
        subprocess.run(["cc", "-shared", "-fPIC", "-pthread", "-DFINGERPRINT=0", *include, *sources, *output], check=True)
        return tmp_path

    return build


def problem_of(name: str) -> str:
    return (
        f"off: it was built for native ABI 999, and this proxywasm-host has {extension.NATIVE_ABI}: "
        f"install a matching version of proxywasm-engine-{name}"
    )


@needs_compiler
@pytest.mark.parametrize("name", ["wasmtime", "v8"])
def test_an_engine_that_was_built_with_the_header_of_another_version_says_so(name, of_another_version):
    """It goes on without the extension, and runs filters as before."""
    script = f"""
from proxywasm_host import Host
from proxywasm_host.testing import Message, exchange
with Host({name!r}) as host:
    print(host.engine.note)
    auth = host.load_plugin("tests/filters/rust/auth.wasm", configuration="secret")
    print(exchange(host, [auth], Message.request("GET", "http://a/")).client_response.status)
"""
    note, status = output_of(script, of_another_version(name))
    assert problem_of(name) in note
    assert status == "401"


@needs_compiler
def test_who_asks_for_an_extension_of_another_version_hears_what_to_install(of_another_version):
    script = """
from proxywasm_host import open_engine
from proxywasm_host.errors import EngineUnavailable
print(open_engine("wasmtime").note)
try:
    open_engine("wasmtime", route="native")
except EngineUnavailable as error:
    print(error.reason, error.remedy, error.__cause__, sep="\\n")
"""
    note, reason, remedy, cause = output_of(script, of_another_version("wasmtime"))
    assert note == f"C API through ctypes (the C extension is {problem_of('wasmtime')})"
    assert reason == f"not usable: the C extension of the engine is {problem_of('wasmtime')}"
    assert re.fullmatch(r".*pip install --upgrade .*engines/wasmtime, or take another route", remedy)
    assert cause == "None"


# -- Built on their own --------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(SETUPTOOLS < 77, reason="this setuptools is too old to build them")
@pytest.mark.parametrize("name", ["wasmtime", "v8"])
def test_an_engine_is_built_outside_of_the_checkout(name, tmp_path):
    """From its source distribution, with the core that is installed. Where none is, pip installs one for the build."""
    copy = tmp_path / name
    shutil.copytree(ROOT / "engines" / name, copy, ignore=shutil.ignore_patterns("*.so", "*.egg-info", "build", "__pycache__"))
    package = f"proxywasm_engine_{name}"
    output_of(f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})", cwd=copy)
    (packed,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(packed, tmp_path)
    script = f"""
import sys
from setuptools import build_meta
sys.modules["proxywasm_host"] = None
print(build_meta.get_requires_for_build_wheel())
del sys.modules["proxywasm_host"]
print(build_meta.get_requires_for_build_wheel())
build_meta.build_wheel({str(tmp_path)!r})
"""
    lines = output_of(script, cwd=tmp_path / packed.name.removesuffix(".tar.gz"))
    assert [line for line in lines if line.startswith("[")] == ["['proxywasm-host>=0.1,<0.2']", "[]"]
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    check = f"from proxywasm_host.extension import load; module, note = load('{package}._native'); print(module.__file__, note)"
    (line,) = output_of(check, tmp_path / "installed")
    assert line.startswith(f"{tmp_path}/installed/{package}/_native")
    assert line.endswith(" on")


# -- Copied by hand ------------------------------------------------------------------------------------------------------

WHO_COMPARES = {
    "proxywasm_host": "proxywasm_host.integrations.exchange",
    "proxywasm_engine_wasmtime": "proxywasm_engine_wasmtime",
    "proxywasm_engine_v8": "proxywasm_engine_v8",
}
"""By package, a module whose import imports all that compare constants."""


@pytest.mark.parametrize("package", WHO_COMPARES)
def test_all_that_c_has_copied_is_compared(package):
    name = f"{package}._native"
    if find_spec(package) is None or extension.load(name)[0] is None:
        pytest.skip(f"{name} is not in use")
    native = import_module(name)
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location({name!r}, {native.__file__!r})
native = sys.modules[{name!r}] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
compared = set()
class Constants(dict):
    def __getitem__(self, name):
        compared.add(name)
        return super().__getitem__(name)
native.CONSTANTS = Constants(native.CONSTANTS)
import {WHO_COMPARES[package]}
print(*sorted(compared), sep="\\n")
"""
    assert output_of(script) == sorted(native.CONSTANTS)


@pytest.mark.parametrize("folder", ["proxywasm_host/native", *(f"engines/{each}/proxywasm_engine_{each}/native" for each in ("v8", "wasmtime"))])
def test_what_c_says_that_python_has_too_is_listed(folder):
    """A comment such as "as in errors.py" needs a row in the list of constants, which Python compares."""
    text = "".join(path.read_text() for path in sorted((ROOT / folder).glob("*.[ch]")))
    listed = set(re.findall(r"PROXYWASM_CONSTANT\((\w+)\)|\{TEXT\(\"(:\w+)\"\)", text))
    listed = {name or header for name, header in listed}
    comments = list(re.finditer(r"^(.*)/\* [^*]*\b[Aa]s in \w+\.py\b.*?\*/", text, re.MULTILINE))
    assert comments
    for comment in comments:
        code = comment[1] or text[comment.end() :].partition("};")[0] + "}"
        names = set(re.findall(r"(?<=#define )\w+|\b[A-Z][A-Z0-9_]+\b(?=,| =| }|\n)|:\w+(?=\")", code))
        assert names, comment[0]
        assert names <= listed, comment[0]


def test_engines_have_the_same_limit_of_nested_calls():
    """In Rust too, where Python has no copy."""
    from proxywasm_engine_wasmtime.errors import MAX_NESTED

    assert f"const MAX_NESTED: i32 = {MAX_NESTED};" in (ROOT / "engines/wasmer/src/reentrancy.rs").read_text()
    assert f"\nMAX_NESTED = {MAX_NESTED}\n" in (ROOT / "engines/v8/proxywasm_engine_v8/errors.py").read_text()


IN_RUST = {
    "void *": "*mut c_void",
    "const uint64_t *": "*const u64",
    "uint64_t *": "*mut u64",
    "size_t ": "usize",
    "int64_t": "i64",
    "int": "c_int",
}


def test_rust_declares_the_structs_of_the_header():
    """Wasmer's crate reads no header: its structs and the names of its capsules are compared with it. It asserts that they
    have the size and offsets of C."""
    header = (Path(get_include()) / "proxywasm_host.h").read_text()
    rust = "".join(path.read_text() for path in sorted((ROOT / "engines/wasmer/src").glob("*.rs")))
    for word in ("hostcall", "callback"):
        struct = re.search(rf"typedef struct {{\s*(\w+) \(\*call\)\((.*?)\);\s*void \*self;\s*}} Proxywasm_{word};", header)
        params = ", ".join(IN_RUST[re.match(r"(.*[ *])\w+$", param)[1]] for param in struct[2].split(", "))
        function = f'function: unsafe extern "C" fn({params}) -> {IN_RUST[struct[1]]},\n    itself: *mut c_void,\n}}'
        mine = re.search(rf"`Proxywasm_{word}` of .*\n#\[repr\(C\)\]\n(?:#.*\n)?.*struct (\w+) {{\n    {re.escape(function)}", rust)
        assert f"assert!(offset_of!({mine[1]}, itself) == 8 && size_of::<{mine[1]}>() == 16);" in rust
        assert f'c"proxywasm_host.{word}.{extension.NATIVE_ABI}"' in rust
    assert "typedef struct {\n    uint64_t bytes, size;\n} Proxywasm_memory;" in header
    assert re.search(r"`Proxywasm_memory` of .*\ntype Range = \[AtomicU64; 2\];\n\nconst _: \(\) = assert!\(size_of::<Range>\(\) == 16\);", rust)

"""Bad input: each kind is one sentence on standard error that says what to do, and has its exit code."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from proxywasm_host import remedy
from proxywasm_host.cli.exit_codes import Exit, exit_of, exit_of_failure, summary
from proxywasm_host.errors import ProxyWasmError
from tests.cli.conftest import HEADERS
from tests.support import FILTERS

MEMORY = '(memory (export "memory") 1)'
ALLOCATOR = '(func (export "malloc") (param i32) (result i32) i32.const 0)'
NEEDS_DATAPLANE = pytest.mark.skipif(not find_spec("proxywasm_dataplane"), reason="no proxywasm_dataplane")
MARKER = '(func (export "proxy_abi_version_0_2_1"))'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            f"(module {MEMORY} {ALLOCATOR})",
            (
                "not a Proxy-Wasm filter: the module exports no proxy_abi_version_… function (known versions: 0.1.0, 0.2.0, "
                "0.2.1, 0.2.100); build it with a Proxy-Wasm SDK, as a library and not as a program"
            ),
        ),
        (
            f'(module {MEMORY} {ALLOCATOR} (func (export "proxy_abi_version_0_9_0")))',
            "the module is for an unknown Proxy-Wasm ABI (proxy_abi_version_0_9_0); known are 0.1.0, 0.2.0, 0.2.1, 0.2.100",
        ),
        (
            f'(module (import "env" "proxy_foo" (func)) {MEMORY} {ALLOCATOR} {MARKER})',
            (
                "import env.proxy_foo is offered by no Proxy-Wasm host: load it with --unknown-imports stub to have it "
                "answer UNIMPLEMENTED"
            ),
        ),
        (
            f'(module (import "js" "alert" (func)) {MEMORY} {ALLOCATOR} {MARKER})',
            (
                "import js.alert is offered by no Proxy-Wasm host: build the filter for wasm32-wasip1 or "
                "wasm32-unknown-unknown, without functions that only a browser or another host has"
            ),
        ),
        (
            f"(module {MEMORY} {MARKER})",
            (
                "the module has no allocator: it exports neither proxy_on_memory_allocate nor malloc. "
                "Link the SDK's allocator in, or export malloc"
            ),
        ),
        (
            f'(module {MEMORY} {ALLOCATOR} {MARKER} (func (export "proxy_on_done") (param i32)))',
            (
                "export proxy_on_done has the type (i32) -> (), but in ABI 0.2.1 it is (i32) -> (i32): "
                "is the marker proxy_abi_version_0_2_1 right?"
            ),
        ),
        (
            f'(module (import "env" "proxy_done" (func (param i64))) {MEMORY} {ALLOCATOR} {MARKER})',
            "import env.proxy_done has the type (i64) -> (), but in ABI 0.2.1 it is () -> (i32)",
        ),
    ],
    ids=[
        "no marker",
        "unknown marker",
        "unknown import",
        "foreign import",
        "no allocator",
        "export's type",
        "import's type",
    ],
)
def test_modules_that_are_no_filters(proxywasm, module, text, sentence):
    path = module(text)
    result = proxywasm("run", path, "/x")
    assert (result.code, result.out) == (3, "")
    assert result.complaint.startswith(f"error: {path}: {sentence}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a WebAssembly module: it has only 0 bytes"),
        (b"(module)", "this is WebAssembly text: make a module of it with wat2wasm"),
        (
            b"\0asm\r\0\1\0",
            "a WebAssembly component, not a core module of version 1: build the filter as a core module",
        ),
        (b"ELF\x7f1234", "not a WebAssembly module: it begins with b'ELF\\x7f'"),
    ],
)
def test_files_that_are_no_modules(proxywasm, tmp_path, content, words):
    path = tmp_path / "f.wasm"
    path.write_bytes(content)
    result = proxywasm("run", path, "/x")
    assert (result.code, words in result.complaint) == (3, True)


def test_a_truncated_module(proxywasm, tmp_path):
    path = tmp_path / "f.wasm"
    path.write_bytes((FILTERS / "rust/headers.wasm").read_bytes()[:60_000])
    result = proxywasm("run", path, "/x")
    assert (result.code, "the file is truncated" in result.complaint) == (3, True)


def test_a_module_whose_code_is_invalid(proxywasm, engine, tmp_path, module):
    path = module(f"(module {MEMORY} {ALLOCATOR} {MARKER} (func (result i32) i32.const 7))")
    path.write_bytes(path.read_bytes().replace(b"\x41\x07\x0b", b"\x41\x07\xff"))
    result = proxywasm("run", path, "/x")
    assert result.code == 3
    assert f"{path}: {engine.name} cannot compile the module" in result.complaint


def test_the_second_filter_is_named_if_it_is_the_bad_one(proxywasm, tmp_path):
    path = tmp_path / "second.wasm"
    path.write_bytes(b"")
    result = proxywasm("run", HEADERS, path, "/x")
    assert (result.code, f"error: {path}: not a" in result.complaint) == (3, True)
    assert result.lines[1] == "start"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([HEADERS], "the URL is missing: proxywasm run FILTER.wasm [METHOD] URL"),
        (["/x"], "the filter is missing: proxywasm run FILTER.wasm [METHOD] URL"),
        (["nope.wasm", "/x"], "cannot read the filter nope.wasm: No such file or directory"),
        ([str(FILTERS), "/x"], f"cannot read the filter {FILTERS}: Is a directory"),
        ([HEADERS, "http:///x"], "'http:///x' is not a URL: it names no host"),
        ([HEADERS, "/x", "-H", "bad"], "'bad' is not a header: write it as 'name: value'"),
        ([HEADERS, "/x", "-H", ": x"], "': x' is not a header: write it as 'name: value'"),
        ([HEADERS, "/x", "--trailer", "a b: x"], "'a b: x' is not a header: its name contains white space"),
        ([HEADERS, "/x", "-d", "@nope"], "cannot read nope: No such file or directory"),
        (
            [HEADERS, "/x", *["--config", "a"] * 3],
            "--config was given 3 times for 1 filter: give it once for all, or once for each",
        ),
        ([HEADERS, HEADERS, "/x", *["--vm-id", "a"] * 3], "--vm-id was given 3 times for 2 filters"),
        ([HEADERS, "/x", "--callout", "idp"], "'idp' is not a reply: write it as CLUSTER=STATUS[:BODY], or CLUSTER=fail"),
        ([HEADERS, "/x", "--callout", "idp=no"], "'idp=no' is not a reply"),
        ([HEADERS, "/x", "--property", "a"], "'a' is not a property: write it as path=text, or path:=json for a number"),
        ([HEADERS, "/x", "--property", "a:=x"], "'x', the value of property a, is not JSON"),
        (
            [HEADERS, "/x", "--env", "NOT_THERE"],
            "the environment has no variable NOT_THERE: write NOT_THERE=value to set it",
        ),
        ([HEADERS, "/x", "--env", "=x"], "'=x' is not an environment variable: write it as NAME=value"),
        ([HEADERS, "/x", "--memory-limit", "3x"], "'3x' is not a size: write it as 1000, 64KiB or 256MiB"),
        ([HEADERS, "/x", "--profile", "nginx"], "'nginx' is not one of 'envoy', 'spec'"),
        ([HEADERS, "/x", "--bogus"], "No such option '--bogus'"),
        ([HEADERS, "ftp://x/"], "'ftp://x/' is not a URL of HTTP: write it as http://HOST/PATH, https://HOST/PATH, or /PATH alone"),
        ([HEADERS, "http://x/", "GET"], "the method comes before the URL: GET http://x/"),
        ([HEADERS, "/x", "GET"], "the method comes before the URL: GET /x"),
        ([HEADERS, "get", "/x"], "there is no file get; if it is the method, write it as GET"),
        ([HEADERS, "/x", "-X", "GE T"], "'GE T' is not a method: those are GET, POST and the like"),
        ([HEADERS, "http://x:99999/"], "'http://x:99999/' is not a URL: Port out of range 0-65535"),
        ([HEADERS, "/x", "-H", "a: b\r\nc: d"], "is not a header: it contains a line break or a NUL"),
        ([HEADERS, "/x", "--response-header", "a: \0"], "is not a header: it contains a line break or a NUL"),
        ([HEADERS, "/x", "--config", "@"], "'@' names no file: write it as @FILE, or @- for standard input"),
        ([HEADERS, "/x", "--property", "a:=99999999999999999999"], "property 'a': 99999999999999999999 needs more than 64 bits"),
        ([HEADERS, "/x", "--callout", "idp=99999"], "99999 is not a status: HTTP's are from 100 to 599, gRPC's"),
        ([HEADERS, "/x", "--failure-policy", "open"], "'open' is not one of 'fail_closed', 'fail_open', 'fail_reload'"),
        ([HEADERS, "/x", "--unknown-imports", "no"], "'no' is not one of 'error', 'stub'"),
        ([HEADERS, "/x", "--sha256", "12"], "'12' is not a SHA-256 digest: write its 64 hexadecimal digits"),
        ([HEADERS, "/x", "--reload-interval", "-1"], "reload_interval is a number of seconds, 0 or more, not -1.0"),
        ([HEADERS, "/x", "--isolation", "stream"], "isolation 'stream' needs the profile 'wasmx', and this host has 'envoy'"),
        ([HEADERS, "/x", "--response-status", "7"], "7 is not in the range 100<=x<=999"),
    ],
)
def test_wrong_usage(command, arguments, sentence):
    result = command("run", *arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.complaint


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", '{"a": 1}'], "--config is the file of the server's configuration, and '{\"a\": 1}' is not one; "),
        (["--config", '{"a": 1}'], "for a filter's configuration write --filter-config '{\"a\": 1}'"),
        (["--config", "@auth.json"], "for a filter's configuration write --filter-config @auth.json"),
        pytest.param(["--config", "nope.yaml"], "cannot read the configuration", marks=NEEDS_DATAPLANE),
        ([HEADERS], "say what to serve: FILTER.wasm and --upstream URL, or --config FILE"),
    ],
)
def test_wrong_usage_of_serve(command, arguments, sentence):
    result = command("serve", *arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.complaint


def test_the_configuration_of_a_filter_is_called_the_same_in_run_and_serve(proxywasm):
    assert "x-wasm: hi" in proxywasm("run", HEADERS, "/x", "--filter-config", "hi").out


def test_an_engine_that_there_is_not(command):
    result = command("run", HEADERS, "/x", "--engine", "wasmtim")
    assert result.code == 4
    assert result.complaint.startswith("error: no engine is called 'wasmtim'. Did you mean 'wasmtime'? There are ")


def test_an_engine_that_is_not_installed(command, monkeypatch):
    monkeypatch.setattr("proxywasm_host.engine.registry._entry_points", dict)
    monkeypatch.setattr("proxywasm_host.engine.registry._opened", {})
    result = command("run", HEADERS, "/x", "--engine", "v8")
    assert result.code == 4
    assert result.complaint == f"error: engine 'v8' is known but not installed: {remedy.install_engine('proxywasm-engine-v8')}"


def test_an_error_of_a_command_that_shows_nothing_else(command, monkeypatch):
    monkeypatch.setenv("PROXYWASM_ENGINE", "nope")
    result = command("bench", HEADERS)
    assert (result.code, "(named by PROXYWASM_ENGINE)" in result.complaint) == (4, True)


def test_exit_codes():
    assert exit_of_failure(None) == Exit.OK
    assert exit_of(ProxyWasmError("?")) == Exit.GUEST
    assert summary(ProxyWasmError("?")) == {"kind": "host", "message": "?", "callback": None, "backtrace": []}


@pytest.mark.parametrize(
    "words",
    [
        ("run", HEADERS, "http://x/", "--record"),
        ("test", "a.suite.yaml", "--junit"),
        ("test", "a.suite.yaml", "--coverage-json"),
        ("test", "a.suite.yaml", "--coverage-html"),
        ("pack", "a.py", "--output"),
    ],
)
def test_a_file_that_cannot_be_written(command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.suite.yaml").write_text(f"filter: {HEADERS}\ntests: [{{name: a}}]\n")
    (tmp_path / "a.py").write_text("import proxywasm\n")
    for file, sentence in (
        (".", f"Invalid value for '{words[-1]}': . is a folder, not a file"),
        ("gone/x", f"Invalid value for '{words[-1]}': there is no folder gone"),
        ("/dev/full", "cannot write /dev/full: No space left on device"),
    ):
        result = command(*words, file)
        assert (result.code, sentence in result.complaint.replace("'-o' / '--output'", "'--output'")) == (Exit.USAGE, True)

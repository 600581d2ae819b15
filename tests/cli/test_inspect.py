"""``proxywasm inspect``."""

from __future__ import annotations

import pytest

from tests.support import FILTERS

MEMORY = '(memory (export "memory") 1 2) (func (export "malloc") (param i32) (result i32) i32.const 0)'
MARKER = '(func (export "proxy_abi_version_0_2_1"))'


def test_as_people_read_it(command):
    result = command("inspect", FILTERS / "c/minimal.wasm")
    size = (FILTERS / "c/minimal.wasm").stat().st_size
    sizes = command("inspect", FILTERS / "c/minimal.wasm", "--json").json["sizes"]
    code, data, custom = (sizes[key] for key in ("code", "data", "custom"))
    assert (result.code, result.err) == (0, "")
    assert (
        result.out
        == f"""\
{FILTERS}/c/minimal.wasm
  ABI           0.2.1
  made with     unknown
  size          {size} bytes: code {code} bytes, data {data} bytes, custom {custom} bytes
  memory        192 KiB at first, no maximum
  starts by     nothing: it has no start function

  callbacks     1
  on_request_headers

  hostcalls     1
  add_header_map_value

  wasi          0

would load here
"""
    )


def test_as_json(command, module):
    path = module(f'(module (import "env" "proxy_log" (func (param i32 i32 i32) (result i32))) {MEMORY} {MARKER})')
    assert command("inspect", path, "--json").json == {
        "file": str(path),
        "abi": "0.2.1",
        "sdk": "",
        "language": "",
        "producers": {},
        "callbacks": [],
        "hostcalls": ["proxy_log"],
        "custom_hostcalls": [],
        "missing_foreign_functions": {},
        "imports": [{"import": "env.proxy_log", "status": "have", "reason": ""}],
        "wasi": [],
        "unknown_imports": [],
        "start": [],
        "memory": {"initial": 65536, "maximum": 131072},
        "sizes": {"file": path.stat().st_size, "code": 9, "data": 0, "custom": 0},
        "loads": True,
        "reason": None,
    }


def test_what_becomes_of_each_import(command, module):
    imports = """
        (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
        (import "env" "proxy_new_thing" (func (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    """
    path = module(f"(module {imports} {MEMORY} {MARKER})")
    refused = command("inspect", path, "--json")
    stubbed = command("inspect", path, "--json", "--unknown-imports", "stub")
    assert [(each["import"], each["status"]) for each in refused.json["imports"]] == [
        ("env.proxy_log", "have"),
        ("env.proxy_new_thing", "refused"),
        ("wasi_snapshot_preview1.path_open", "stub"),
    ]
    assert stubbed.json["imports"][1] == {
        "import": "env.proxy_new_thing",
        "status": "stub",
        "reason": "it does nothing, and answers UNIMPLEMENTED",
    }
    assert (refused.code, stubbed.code) == (3, 0)
    page = command("inspect", path).out
    assert (
        "  refused       1\n  env.proxy_new_thing: import env.proxy_new_thing is offered by no Proxy-Wasm host" in page
    )
    assert "  stubs         1\n  wasi_snapshot_preview1.path_open: it does nothing, and answers NOENT" in page


def test_foreign_functions_of_other_hosts(command, module):
    foreign = '(import "env" "proxy_call_foreign_function" (func (param i32 i32 i32 i32 i32 i32) (result i32)))'
    data = '(data (i32.const 0) "compressstats_filter_emitresolve_lua")'
    path = module(f"(module {foreign} {MEMORY} {MARKER} {data})")
    assert command("inspect", path, "--json").json["missing_foreign_functions"] == {
        "stats_filter_emit": "of Envoy's sink for statistics",
        "resolve_lua": "of ngx_wasm_module: the profile wasmx has it",
    }
    page = command("inspect", path).out
    assert "foreign functions that answer NOT_FOUND here, unless they are registered" in page
    assert "stats_filter_emit (of Envoy's sink for statistics)" in page
    silent = module(f"(module {MEMORY} {MARKER} {data})")
    assert command("inspect", silent, "--json").json["missing_foreign_functions"] == {}
    data = (
        '(data (i32.const 0) "sign\\00flex_create_service\\00declare_propertys\\00clear_route_cache\\00content_type")'
    )
    found = command("inspect", module(f"(module {foreign} {MEMORY} {MARKER} {data})"), "--json").json
    assert found["missing_foreign_functions"] == {
        "declare_propertys": "is declare_property meant?",
        "flex_create_service": "of MuleSoft's gateway",
    }


@pytest.mark.parametrize(
    ("name", "abi", "sdk", "language"),
    [
        ("rust/headers", "0.2.1", "proxy-wasm 0.2.5", "Rust"),
        ("go/headers", "0.2.0", "proxy-wasm-go-sdk", "Go"),
        ("assemblyscript/headers_0_1_0", "0.1.0", "@solo-io/proxy-runtime", "AssemblyScript"),
        ("assemblyscript/headers_0_2_1", "0.2.1", "@gcoredev/proxy-wasm-sdk-as", "AssemblyScript"),
        ("c/probe_0_2_100", "0.2.100", "", ""),
    ],
)
def test_where_a_filter_comes_from(command, name, abi, sdk, language):
    found = command("inspect", FILTERS / f"{name}.wasm", "--json").json
    assert (found["abi"], found["sdk"], found["language"]) == (abi, sdk, language)
    assert "proxy_on_request_headers" in found["callbacks"]
    assert "proxy_get_header_map_value" in found["hostcalls"]
    assert found["loads"]


def test_what_made_a_real_one_is_told(command):
    lines = command("inspect", FILTERS / "rust/headers.wasm").lines
    assert lines[2] == "made with     proxy-wasm 0.2.5 · Rust"
    assert lines[3].startswith("compiled by   rustc 1.")
    assert "starts by     _initialize" in lines


def test_a_module_that_would_not_load(command, module):
    path = module(
        f'(module (import "env" "proxy_foo" (func)) (import "wasi_unstable" "fd_close" (func (param i32) (result i32))) {MEMORY} {MARKER} (func $s) (start $s))'
    )
    result = command("inspect", path)
    assert result.code == 3
    assert "unknown       env.proxy_foo" in result.lines
    assert "starts by     start section" in result.lines
    assert result.lines[-1] == "would not load here"
    assert result.complaint == (
        f"error: {path}: import env.proxy_foo is offered by no Proxy-Wasm host: load it with --unknown-imports stub "
        "to have it answer UNIMPLEMENTED, or add it with --hostcalls"
    )
    found = command("inspect", path, "--json").json
    assert (found["loads"], found["unknown_imports"], found["wasi"]) == (False, ["env.proxy_foo"], ["fd_close"])


HOSTCALLS = """
from proxywasm_host.hostcalls import data, data_out, hostcall, u32_out

@hostcall("proxy_get_secret", data("name"), data_out("secret"))
def get_secret(vm, name):
    return b"a secret"

@hostcall("proxy_kv_store_open", data("name"), u32_out("handle"))
def kv_store_open(vm, name):
    return 7
"""


@pytest.mark.parametrize("where", ["own_hostcalls", "own_hostcalls.py"])
def test_hostcalls_of_your_own(command, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_hostcalls.py").write_text(HOSTCALLS)
    path = FILTERS / "c/secrets.wasm"
    assert command("inspect", path).code == 3
    result = command("inspect", path, "--hostcalls", where)
    assert (result.code, result.lines[-1]) == (0, "would load here")
    assert "of your own   proxy_get_secret, proxy_kv_store_open" in result.lines
    found = command("inspect", path, "--hostcalls", where, "--json").json
    assert (found["unknown_imports"], found["custom_hostcalls"]) == ([], ["proxy_get_secret", "proxy_kv_store_open"])
    ran = command("run", path, "/", "--config", "token", "--hostcalls", where, "--trace", "--json").json
    assert ["x-secret", "a secret"] in ran["upstream_request"]["headers"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("nowhere_at_all", "cannot import nowhere_at_all: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("nowhere.py", "cannot import nowhere.py: FileNotFoundError"),
        ("json", "json has no hostcalls: decorate functions with @hostcall of proxywasm_host.hostcalls"),
    ],
)
def test_hostcalls_that_are_not_there(command, where, says):
    result = command("inspect", FILTERS / "c/secrets.wasm", "--hostcalls", where)
    assert (result.code, says in result.err) == (2, True)


def test_a_module_without_an_abi_and_without_memory(command, module):
    path = module("(module)")
    result = command("inspect", path)
    assert (result.code, result.lines[1]) == (3, "ABI           none")
    found = command("inspect", path, "--json").json
    assert (found["abi"], found["memory"]) == (None, None)
    assert found["reason"].startswith("not a Proxy-Wasm filter: the module exports no proxy_abi_version_")


def test_no_module_at_all(command, tmp_path):
    path = tmp_path / "text.wasm"
    path.write_text("hello")
    result = command("inspect", path)
    assert (result.code, result.out) == (3, "")
    assert result.complaint.startswith(f"error: {path}: not a WebAssembly module")


def test_no_file(command):
    result = command("inspect", "nope.wasm")
    assert (result.code, "cannot read the filter nope.wasm: No such file" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("tool", "language"),
    [("rustc", "Rust"), ("TinyGo", "Go"), ("clang", "C or C++"), ("something", "X, Y")],
)
def test_the_language_by_the_producers(tool, language):
    from proxywasm_host.cli.sdk import _language

    assert _language({"processed-by": [(tool, "1")], "language": [("X", ""), ("Y", "2")]}) == language


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999, "999 bytes"),
        (1024, "1 KiB"),
        (121_400, "121 kB"),
        (1 << 20, "1 MiB"),
        (2_644_845, "2.6 MB"),
        (0, "0 bytes"),
    ],
)
def test_sizes(size, text):
    from proxywasm_host.cli.inspect import bytes_of

    assert bytes_of(size) == text


def test_a_long_path_stays_in_one_piece(command, tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = folder / "f.wasm"
    path.write_bytes((FILTERS / "c/minimal.wasm").read_bytes())
    assert command("inspect", path).lines[0] == str(path)

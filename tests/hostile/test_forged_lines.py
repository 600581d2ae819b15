"""No guest can write a line of its own into a log or onto a terminal, or control one: not with what it logs, nor with
names that end up in errors, traces and hints.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from io import StringIO
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import grpc
import httpx2
import pytest

from proxywasm_host import FilterConfig, Host, ModuleError
from proxywasm_host.cli import main
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.envoy.messages import ProcessingRequest, ProcessingResponse
from proxywasm_host.integrations.asgi import ProxyWasmMiddleware
from proxywasm_host.integrations.wsgi import ProxyWasmMiddleware as WsgiMiddleware
from tests.envoy.proxy import served
from tests.hostile.forger import WORDS, forger
from tests.serve.conftest import origin, serve  # noqa: F401 - fixtures
from tests.support import wat

FORGED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]|^FORGED", re.MULTILINE)
"""What controls a terminal; or a line whose beginning is the guest's."""


def check(output: str) -> None:
    """The guest's words are there, and are nothing but words."""
    assert r"x\r\nFORGED \x1b[2K" in " ".join(output.split()), output
    assert not FORGED.search(output), repr(output[max(0, FORGED.search(output).start() - 200) :][:400])


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forger") / "forger.wasm"
    path.write_bytes(forger())
    return path


@pytest.mark.parametrize("options", [(), ("--trace",)], ids=["run", "run --trace"])
def test_on_a_terminal(options, module, engine: Engine, capsys) -> None:
    main(["run", str(module), "/x", "--unknown-imports", "stub", "--engine", engine.name, *options])
    out, err = capsys.readouterr()
    check(out)
    check(err)


@pytest.mark.parametrize("command", ["run --json", "bench", "replay", "step"])
def test_on_a_terminal_by_another_command(command, module, tmp_path, monkeypatch, capsys) -> None:
    record = str(tmp_path / "request.json")
    monkeypatch.setattr("sys.stdin", StringIO("\n" * 20))
    main(["run", str(module), "/x", "--unknown-imports", "stub", "--record", record, *command.split()[1:]])
    if command in ("replay", "step"):
        capsys.readouterr()
        main([command, record, str(module)])
    elif command == "bench":
        capsys.readouterr()
        main(["bench", str(module), "/x", "--unknown-imports", "stub"])
    output = "".join(capsys.readouterr())
    assert "FORGED" in output
    assert not FORGED.search(output), repr(output)


@pytest.fixture(scope="module")
def without_a_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forger") / "forger.wasm"
    path.write_bytes(forger(stub=False))
    return path


def test_on_a_terminal_by_fuzz(without_a_stub, capsys) -> None:
    """Which says where the guest trapped, and not what it said."""
    assert main(["fuzz", str(without_a_stub), "--examples", "3", "--seed", "1"]) == 1
    output = "".join(capsys.readouterr())
    assert "the guest does not trap: unreachable in proxy_on_request_headers" in output
    assert not FORGED.search(output), repr(output)


SUITE = """\
filter: FILTER
tests:
  - name: forged
    request: {url: /x}
    expect: {response: {status: 200}, logs: ["nothing of the kind"]}
"""


@pytest.mark.parametrize("format", ["tap", "junit", "json"])
def test_in_the_report_of_a_suite(format, without_a_stub, tmp_path, capsys) -> None:
    suite = tmp_path / "a.suite.yaml"
    suite.write_text(SUITE.replace("FILTER", str(without_a_stub)))
    report = tmp_path / "junit.xml"
    options = {"tap": (), "junit": ("--junit", str(report)), "json": ("--json",)}[format]
    assert main(["test", str(suite), *options]) == 1
    output = "".join(capsys.readouterr()) + (report.read_text() if format == "junit" else "")
    assert "FORGED" in output
    assert not FORGED.search(output), repr(output)


@pytest.mark.parametrize(
    "part",
    ['(import "env" "{}" (func))', '(import "{}" "f" (func))', '(func (export "{}"))', '(memory (export "{}") 1)'],
)
def test_names_of_imports_and_exports(part, tmp_path, capsys) -> None:
    """A module with such a name is refused; what is said of it is one line, and so is what `inspect` shows."""
    text = "".join(f"\\{byte:02x}" for byte in WORDS)
    path = tmp_path / "names.wasm"
    path.write_bytes(wat(f'(module {part.format(text)} (func (export "proxy_abi_version_0_2_1")))'))
    with Host() as host, pytest.raises(ModuleError, match="has control characters in its name") as refused:
        host.load_plugin(path)
    check(str(refused.value))
    main(["inspect", str(path)])
    check("".join(capsys.readouterr()))


def to_a_log(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the process logs."""
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)


def test_in_the_log_of_a_middleware(engine: Engine, module, monkeypatch) -> None:
    log = StringIO()
    to_a_log(log, monkeypatch)
    filter = FilterConfig(module, engine=engine, unknown_imports="stub")
    app = ProxyWasmMiddleware(nobody, [filter], engine=engine)
    assert asyncio.run(status_of(app)) == 503
    check(log.getvalue())


def test_in_the_log_of_a_wsgi_middleware(engine: Engine, module, monkeypatch) -> None:
    log = StringIO()
    to_a_log(log, monkeypatch)
    environ: dict[str, object] = {"wsgi.errors": log}
    setup_testing_defaults(environ)
    statuses = []
    app = WsgiMiddleware(nobody, [FilterConfig(module, engine=engine, unknown_imports="stub")], engine=engine)
    for part in app(environ, lambda status, *_: statuses.append(status)):
        assert b"FORGED" not in part
    assert statuses == ["503 Service Unavailable"]
    check(log.getvalue())


async def nobody(scope: object, receive: object, send: object) -> None:
    raise AssertionError("the request came through")


async def status_of(app: ProxyWasmMiddleware) -> int:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://example.com") as client:
        return (await client.get("/")).status_code


def test_in_the_log_of_serve(module, serve) -> None:  # noqa: F811
    served = serve(settings={"filters": [{"file": str(module), "unknown_imports": "stub"}], "log_level": "trace"})
    assert served.get().status_code == 503
    served.stop()
    check(served.log)


@pytest.fixture(scope="module")
def configuration(module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configuration") / "filters.yaml"
    path.write_text(json.dumps({"filters": [{"file": str(module), "unknown_imports": "stub"}], "log_level": "trace"}))
    return path


def test_in_the_log_of_ext_proc(configuration: Path) -> None:
    asked = ProcessingRequest()
    asked.request_headers.end_of_stream = True
    for key, value in ((":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "example.com")):
        asked.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    with (
        served("ext-proc", "--config", configuration, "--listen", "127.0.0.1:0") as ours,
        grpc.insecure_channel(f"127.0.0.1:{ours.port}") as channel,
    ):
        process = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            ProcessingRequest.SerializeToString,
            ProcessingResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as failed:
            list(process(iter([asked]), timeout=60))
    assert not FORGED.search(failed.value.details()), repr(failed.value.details())
    check(ours.log)


def test_in_the_log_of_ext_authz(configuration: Path) -> None:
    with served("ext-authz", "--config", configuration, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0") as ours:
        url = ours.line(r"also listening for HTTP at (\S+)")[1]
        answer = httpx2.get(url, timeout=60)
    assert answer.status_code in (403, 500, 503)
    assert "FORGED" not in f"{answer.headers} {answer.text}"
    check(ours.log)

"""``proxywasm run --json``: compared whole."""

from __future__ import annotations

from tests.cli.conftest import AUTH, HEADERS, PANICS, PROBE, needs

START = [
    {"plugin": "p", "name": "proxy_on_context_create", "arguments": [1, 0], "result": None},
    {"plugin": "p", "name": "proxy_on_vm_start", "arguments": [1, 0], "result": 1},
]
CREATED = {"plugin": "p", "name": "proxy_on_context_create", "arguments": [2, 1], "result": None}
END = [
    {"plugin": "p", "name": "proxy_on_log", "arguments": [2], "result": None},
    {"plugin": "p", "name": "proxy_on_done", "arguments": [2], "result": 1},
    {"plugin": "p", "name": "proxy_on_delete", "arguments": [2], "result": None},
]


def test_a_request_and_its_response(proxywasm):
    result = proxywasm(
        "run", HEADERS, "POST", "http://example.com/a?b", "-d", "abc", "--name", "p", "--framing", "http2",
        "--response-header", "server: up", "--response-chunk", "x", "--response-trailer", "t: 1", "--json",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    request = [
        [":authority", "example.com"], [":path", "/a?b"], [":method", "POST"], [":scheme", "http"],
        ["content-length", "3"], ["x-wasm", "hello"],
    ]  # fmt: skip
    response = [[":status", "200"], ["x-wasm", "hello"], ["server", "proxy-wasm"]]
    assert result.json == {
        "upstream_request": {"method": "POST", "path": "/a?b", "headers": request, "body": "abc", "trailers": []},
        "client_response": {"status": 200, "headers": response, "body": "x", "trailers": [["t", "1"]]},
        "local_response": None,
        "callbacks": [
            *START,
            {"plugin": "p", "name": "proxy_on_configure", "arguments": [1, 0], "result": 1},
            CREATED,
            {"plugin": "p", "name": "proxy_on_request_headers", "arguments": [2, 5, 0], "result": 0},
            {"plugin": "p", "name": "proxy_on_request_body", "arguments": [2, 3, 1], "result": 0},
            {"plugin": "p", "name": "proxy_on_response_headers", "arguments": [2, 2, 0], "result": 0},
            {"plugin": "p", "name": "proxy_on_response_body", "arguments": [2, 1, 0], "result": 0},
            {"plugin": "p", "name": "proxy_on_response_trailers", "arguments": [2, 1], "result": 0},
            *END,
        ],
        "logs": [
            {"plugin": "p", "level": "info", "message": "headers: configured, value hello"},
            {"plugin": "p", "level": "info", "message": "headers: request for /a?b by -"},
            {"plugin": "p", "level": "info", "message": "headers: response by up"},
            {"plugin": "p", "level": "info", "message": "headers: done"},
        ],
        "effects": [
            {"effect": "RequestHeaders", "headers": request, "end_stream": False},
            {"effect": "RequestBody", "data": "abc", "end_stream": True},
            {"effect": "ResponseHeaders", "headers": response, "end_stream": False},
            {"effect": "ResponseBody", "data": "x", "end_stream": False},
            {"effect": "ResponseTrailers", "trailers": [["t", "1"]]},
        ],
        "error": None,
    }


def test_a_filter_that_asks_and_answers(proxywasm):
    result = proxywasm("run", AUTH, "/x", "--name", "p", "--config", "callout:idp", "--callout", "idp=403:no", "--json")
    headers = [[":status", "403"], ["content-type", "text/plain"], ["content-length", "10"]]
    found = result.json
    assert (result.code, found["upstream_request"], found["error"]) == (0, None, None)
    assert found["local_response"] == {
        "status": 403,
        "details": "",
        "headers": [["content-type", "text/plain"]],
        "body": "forbidden\n",
        "grpc_status": None,
    }
    assert found["client_response"] == {"status": 403, "headers": headers, "body": "forbidden\n", "trailers": []}
    assert found["effects"][0] == {
        "effect": "HttpCall",
        "plugin": "p",
        "token": 4,
        "cluster": "idp",
        "headers": [[":method", "GET"], [":path", "/check"], [":authority", "idp"]],
        "body": "",
        "trailers": [],
        "timeout": 1000,
    }


def test_what_is_no_text_is_base64(proxywasm, tmp_path):
    (tmp_path / "body").write_bytes(b"\xff\xfe")
    result = proxywasm("run", PROBE, "/x", "-d", f"@{tmp_path}/body", "-H", "x: caf\udce9", "--json")
    request = result.json["upstream_request"]
    assert request["body"] == {"base64": "//4="}
    assert request["headers"][-2:] == [["x", {"base64": "Y2Fm6Q=="}], ["content-length", "2"]]


def test_a_trap(proxywasm, engine):
    result = proxywasm("run", PANICS, "/x", "--config", "request_headers", "--json")
    error = result.json["error"]
    assert (result.code, result.json["client_response"]["status"]) == (5, 503)
    assert (error["kind"], error["message"], error["callback"]) == ("trap", "unreachable", "proxy_on_request_headers")
    assert any("panic_as_told" in frame for frame in error["backtrace"]) is engine.capabilities.backtrace
    assert result.json["callbacks"][-1] == {
        "plugin": "panics", "name": "proxy_on_request_headers", "arguments": [2, 4, 1], "result": None,
    }  # fmt: skip


def test_a_deadline(proxywasm, engine):
    needs(engine, "deadline")
    result = proxywasm("run", PANICS, "/x", "--config", "loop:request_headers", "--deadline", "0.2", "--json")
    assert (result.code, result.json["error"]["kind"]) == (124, "deadline")


def test_a_refused_configuration(proxywasm):
    result = proxywasm("run", AUTH, "/x", "--name", "p", "--json")
    assert result.code == 5
    assert result.json == {
        "upstream_request": None,
        "client_response": None,
        "local_response": None,
        "callbacks": [*START, {"plugin": "p", "name": "proxy_on_configure", "arguments": [1, 0], "result": 0}],
        "logs": [{"plugin": "p", "level": "info", "message": "auth: no token configured"}],
        "effects": [],
        "error": {
            "kind": "refused",
            "message": "proxy_on_configure returned false",
            "callback": "proxy_on_configure",
            "backtrace": [],
        },
    }
    assert "refused its configuration" in result.err


def test_no_module(command, tmp_path):
    path = tmp_path / "f.wasm"
    path.write_bytes(b"text")
    result = command("run", path, "/x", "--json")
    message = f"{path}: not a WebAssembly module: it begins with b'text', not with b'\\x00asm'"
    assert (result.code, result.json["error"]) == (
        3,
        {"kind": "module", "message": message, "callback": None, "backtrace": []},
    )


def test_no_engine(command):
    result = command("run", HEADERS, "/x", "--engine", "nope", "--json")
    assert (result.code, result.json["error"]["kind"]) == (4, "engine")
    assert result.complaint == f"error: {result.json['error']['message']}"

"""``proxywasm run`` as people read it, and what each option does."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest

from proxywasm_host import Host, Limits
from proxywasm_host.cli import main
from proxywasm_host.cli.options import CommandLine
from tests.cli.conftest import AUTH, BODY, HEADERS, PANICS, PROBE, needs
from tests.support import FILTERS

POST = ("POST", "http://example.com/p")


def script(*lines: str) -> str:
    """A script for the probe. It begins with an empty line: ``@`` would mean a file."""
    return "\n".join(("", *lines, ""))


# -- The page ----------------------------------------------------------------------------------------------------------


def test_the_whole_page(proxywasm, engine):
    result = proxywasm(
        "run", HEADERS, "http://example.com/hello", "-H", "user-agent: curl/8", "-H", "x-remove-me: please",
        "--response-header", "server: upstream", "--response-body", "Hello.",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert (
        result.out.replace(f"{engine.name} {engine.version}", "ENGINE")
        == """\
ENGINE · headers: ABI 0.2.1, proxy-wasm 0.2.5 (Rust)

start
  headers  on_vm_start(0 bytes) → true
  headers  on_configure(0 bytes) → true
      info      headers: configured, value hello

client sends request headers, end of stream: GET http://example.com/hello
  headers  on_request_headers(6 headers, end of stream) → CONTINUE
      adds      x-wasm: hello
      removes   x-remove-me
      info      headers: request for /hello by curl/8
  → upstream gets headers, end of stream

upstream sends response headers: 200
  headers  on_response_headers(3 headers) → CONTINUE
      adds      x-wasm: hello
      replaces  server: proxy-wasm
      info      headers: response by upstream
  → the client gets headers

upstream sends 6 bytes of body
  headers  on_response_body(6 bytes) → CONTINUE
  → the client gets 6 bytes of body

upstream ends the response
  headers  on_response_body(0 bytes, end of stream) → CONTINUE
  → the client gets the end

the stream ends
  headers  on_log
      info      headers: done

REQUEST  client → upstream
    :authority: example.com
    :path: /hello
    :method: GET
    :scheme: http
    user-agent: curl/8
  - x-remove-me: please
  + x-wasm: hello

RESPONSE  upstream → client
    :status: 200
  - server: upstream
    content-length: 6
  + x-wasm: hello
  + server: proxy-wasm

    Hello.
"""
    )


def outcome(result):
    """The page's end: what came of request and response."""
    return result.out[result.out.index("REQUEST") :]


def test_bodies_in_parts_and_trailers(proxywasm):
    result = proxywasm(
        "run", BODY, *POST, "--chunk", "abc\n", "--chunk", "def", "--trailer", "t: 1",
        "--response-chunk", "a foo\nb", "--response-chunk", " foo", "--response-trailer", "u: 2",
    )  # fmt: skip
    assert (
        outcome(result)
        == """\
REQUEST  client → upstream  unchanged
    :authority: example.com
    :path: /p
    :method: POST
    :scheme: http

    abc
    def

    (trailers)
    t: 1

RESPONSE  upstream → client
    :status: 200
  + x-body: rewritten

  - a foo
  - b foo
  + a bar
  + b bar

    (trailers)
    u: 2
"""
    )
    assert "upstream sends response trailers, end of stream" in result.lines
    assert "→ upstream gets trailers, end of stream" in result.lines


def test_a_chain_whose_filters_have_one_name_numbers_them(proxywasm):
    result = proxywasm("run", HEADERS, HEADERS, "/x", "--config", "one", "--config", "two")
    assert "headers-2  on_request_headers(5 headers, end of stream) → CONTINUE" in result.lines
    assert [line for line in outcome(result).splitlines() if "x-wasm" in line] == [
        "  + x-wasm: one", "  + x-wasm: two", "  + x-wasm: two", "  + x-wasm: one",
    ]  # fmt: skip


def test_a_filter_that_answers(proxywasm):
    result = proxywasm("run", AUTH, "/x", "--config", "secret")
    assert result.code == 0
    assert "answers   401 'unauthorized\\n'" in result.lines
    assert (
        outcome(result)
        == """\
REQUEST  nothing reaches upstream  a filter answered

RESPONSE  made by a filter → client
    :status: 401
    www-authenticate: Bearer realm="proxy-wasm"
    content-type: text/plain
    content-length: 13

    unauthorized
"""
    )


def test_a_filter_that_traps(proxywasm, engine):
    result = proxywasm("run", PANICS, "/x", "--config", "request_headers")
    assert result.code == 5
    assert "panics  on_request_headers(4 headers, end of stream) ✗ FAILED" in result.lines
    assert (
        "      critical  panicked at panics.rs:52:5:\n                told to panic in request_headers\n" in result.out
    )
    assert (
        outcome(result)
        == """\
REQUEST  nothing reaches upstream  panics failed in proxy_on_request_headers

RESPONSE  made by the host → client  details: wasm_fail_stream
    :status: 503
"""
    )
    assert "plugin 'panics' failed in a callback: unreachable in proxy_on_request_headers " in result.complaint
    assert (" at abort " in result.complaint) is engine.capabilities.backtrace
    assert "last hostcalls:" in result.complaint


def test_a_filter_that_does_not_come_back(proxywasm, engine):
    needs(engine, "deadline")
    result = proxywasm("run", PANICS, "/x", "--config", "loop:request_headers", "--deadline", "0.2")
    assert result.code == 124
    assert "deadline of 0.2 s exceeded in proxy_on_request_headers" in result.complaint
    assert (" at proxy_on_request_headers " in result.complaint) is engine.capabilities.backtrace
    assert result.complaint.endswith("--deadline SECONDS allows more, --deadline 0 removes it.")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--config", "refuse"), "did not accept its configuration: give it one that it understands, by --config."),
        (
            ("--vm-config", "refuse"),
            "did not accept its VM configuration: give it one that it understands, by --vm-config.",
        ),
    ],
)
def test_a_filter_that_refuses_its_configuration(proxywasm, options, hint):
    result = proxywasm("run", PANICS, "/x", *options)
    assert result.code == 5
    assert result.complaint.endswith(hint)
    assert result.lines[1] == "start"
    assert "REQUEST" not in result.out


@pytest.mark.parametrize(("option", "held"), [("request_headers", "request"), ("response_headers", "response")])
def test_a_filter_that_never_resumes(proxywasm, option, held):
    result = proxywasm("run", PROBE, "/x", "--config", script(f"@on_{option}", "return 1"), "--name", "probe")
    assert result.code == 0
    assert f"probe paused the {held} and never resumed it" in outcome(result)
    assert "→ PAUSE" in result.out


def test_a_message_that_stops_half_way(proxywasm):
    result = proxywasm(
        "run", PROBE, "/x", "--name", "p", "--response-body", "abc", "--config", script("@on_response_body", "return 1")
    )
    assert (
        result.lines[-1]
        == "! the response is not complete: its end never came: p paused the response and never resumed it"
    )


def test_a_stream_that_is_reset(proxywasm):
    result = proxywasm("run", PROBE, "/x", "--config", script("@on_request_headers", "close_stream 0"))
    assert "→ the stream is reset: wasm_close_stream" in result.lines
    assert "nothing reaches upstream  the stream was reset: wasm_close_stream" in outcome(result)


def test_a_wrong_length_is_warned_of(proxywasm):
    result = proxywasm(
        "run",
        PROBE,
        "/x",
        "--response-body",
        "abc",
        "--config",
        script("@on_response_body/eos", "set_buffer_bytes 1 0 0 def"),
    )
    assert " ".join(outcome(result).split()).endswith(
        "! the response says content-length: 3, but the body has 6 bytes. Envoy does not correct that: "
        "remove content-length in the callback on headers"
    )


def test_bodies_that_are_no_text_or_long(proxywasm, tmp_path):
    (tmp_path / "photo").write_bytes(bytes(range(200, 220)))
    lines = "\n".join(["x" * 600, *map(str, range(60))])
    result = proxywasm("run", *POST[:0], PROBE, *POST, "-d", f"@{tmp_path}/photo", "--response-body", lines)
    assert "(20 bytes: c8 c9 ca cb cc cd ce cf d0 d1 d2 d3 d4 d5 d6 d7 …)" in result.lines
    assert "… (21 more lines)" in result.lines
    assert "x" * 501 not in result.out.replace("\n    ", "")


def test_what_a_filter_did_in_words(proxywasm):
    result = proxywasm(
        "run", PROBE, *POST, "-d", "abc", "--response-body", "xyz", "--callout", "up=200", "--config",
        script(
            "@on_request_headers", "set_header_map_pairs 0 :path=/y&:method=POST", "set_property a%00b v",
            "call_foreign_function nope x", "get_property nope", "clock_time_get 0", "replace_header_map_value 7 x y",
            "grpc_call up s m pairs: hi 5", "grpc_stream up s m pairs:", "set_tick_period_milliseconds 30",
            "set_tick_period_milliseconds 0", "call_foreign_function clear_route_cache x",
            "@on_request_body", "set_buffer_bytes 0 0 0 pre", "if_status 0", "set_buffer_bytes 0 3 0 post",
            "@on_response_headers", "continue_stream 1", "add_header_map_value 3 t x",
            "@on_response_body/eos", "set_buffer_bytes 1 0 9999999 whole", "add_header_map_value 3 t x", "set_buffer_bytes 1 0 2 XX",
            "@on_response_trailers", "close_stream 1",
        ),
    )  # fmt: skip
    for line in (
        "sets all  :path: /y, :method: POST",
        "property  a.b = 'v'",
        "refused   replace_header_map_value(map=HTTP_CALL_RESPONSE_TRAILERS, key='x', value='y') =",
        "→ callout 5 to up: gRPC s/m",
        "→ callout 6 to up: gRPC s/m",
        "→ ticks each 30 ms",
        "→ no more ticks",
        "→ ClearRouteCache()",
        "writes    'pre' before the http request body",
        "writes    http request body, from byte 3: 'post'",
        "resumes   the response",
        "adds      t: x (response trailers)",
        "writes    http response body, whole: 'whole'",
        "writes    http response body, first 2 bytes: 'XX'",
    ):
        assert line in result.lines, line
    assert "get_property(" not in "".join(line for line in result.lines if line.startswith("refused"))


def test_an_action_that_there_is_not(proxywasm):
    result = proxywasm("run", PROBE, "/x", "--name", "p", "--config", script("@on_request_headers", "return 9"))
    assert "p  on_request_headers(4 headers, end of stream) → 9 (no action)" in result.lines


def test_resuming_in_abi_0_1_0(proxywasm):
    filter = FILTERS / "c/probe_0_1_0.wasm"
    config = script(
        "@on_configure",
        "set_tick_period_milliseconds 5",
        "@on_request_headers",
        "return 1",
        "@on_tick",
        "set_effective_context $stream",
        "continue_request",
    )
    result = proxywasm("run", filter, "/x", "--ticks", "1", "--config", config)
    assert "time passes: tick" in result.lines
    assert "resumes   the request" in result.lines


def test_what_a_module_does_before_its_first_callback(proxywasm, module):
    path = module("""(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "initialising") (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) i32.const 0)
      (func (export "_initialize") (drop (call $log (i32.const 3) (i32.const 0) (i32.const 12)))))""")
    assert "start\n      warn      initialising\n" in proxywasm("run", path, "/x").out
    assert (
        "start\n      proxy_log(level=WARN, message='initialising') = OK\n"
        in proxywasm("run", path, "/x", "--trace").out
    )


def test_a_guest_that_needs_more_memory_than_it_may_have(proxywasm, engine):
    needs(engine, "memory_limit")
    result = proxywasm("run", HEADERS, "/x", "--memory-limit", "64KiB")
    assert (result.code, result.complaint.endswith("--memory-limit SIZE allows more.")) == (5, True)


# -- --trace -----------------------------------------------------------------------------------------------------------


def test_the_trace_lists_every_hostcall_with_its_status_and_reason(proxywasm):
    config = script(
        "@on_request_headers",
        "get_header_map_value 0 nope",
        "get_header_map_pairs 0",
        "http_call nowhere :path=/ x pairs: 5",
    )
    result = proxywasm("run", PROBE, "/x", "--name", "p", "--config", config, "--trace")
    page = " ".join(result.out.split())
    for words in (
        (
            "p on_context_create(of 1) p on_request_headers(4 headers, end of stream) → CONTINUE "
            "proxy_get_header_map_value(map=REQUEST_HEADERS, key='nope') = NOT_FOUND: no 'nope' in the request headers "
            "proxy_log(level=INFO, message='get_header_map_value(0, nope) = 1') = OK "
            "proxy_get_header_map_pairs(map=REQUEST_HEADERS) = OK [':authority': 'example.com', ':path': '/x', "
            "':method': 'GET', ':scheme': 'http']"
        ),
        (
            "proxy_http_call(cluster='nowhere', headers=[':path': '/'], body='x', trailers=[], timeout=5) = BAD_ARGUMENT: "
            "no cluster is called 'nowhere': add it to clusters"
        ),
        "p on_done → true p on_delete",
    ):
        assert words in page, words


# -- What to do about it -----------------------------------------------------------------------------------------------


IN_A_PROGRAM = "run sends HTTP; in a program, Host.tcp_stream gives a filter a connection."
MEMORY = '(memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) i32.const 1024)'
MARKER = '(func (export "proxy_abi_version_0_2_1"))'


def test_a_tcp_filter_is_told_from_one_that_traps(proxywasm):
    result = proxywasm("run", str(FILTERS / "rust/tcp.wasm"), "/x")
    assert result.code == 5
    assert result.complaint.endswith(f"tcp is a TCP filter: it has no context for HTTP. {IN_A_PROGRAM}")
    assert "TCP" not in proxywasm("run", PANICS, "/x", "--config", "request_headers").complaint


def test_a_filter_with_callbacks_for_connections_alone(proxywasm, module):
    path = module(
        f'(module {MEMORY} {MARKER} (func (export "proxy_on_new_connection") (param i32) (result i32) i32.const 0))'
    )
    result = proxywasm("run", path, "/x")
    told = f"filter is a TCP filter: it has callbacks for connections, and none for HTTP. {IN_A_PROGRAM}"
    assert (result.code, result.complaint) == (0, told)


def test_a_filter_whose_sdk_has_no_context_for_http(proxywasm, module):
    """As a filter in Rust whose root context does not say which contexts it makes: on_new_connection traps too."""
    path = module(
        f"""(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32))) {MEMORY} {MARKER}
        (data (i32.const 0) "invalid context_id")
        (func $panic (drop (call $log (i32.const 5) (i32.const 0) (i32.const 18))) unreachable)
        (func (export "proxy_on_new_connection") (param i32) (result i32) call $panic i32.const 0)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) call $panic i32.const 0))"""
    )
    result = proxywasm("run", path, "/x")
    assert (
        result.code,
        "in Rust by get_type and create_http_context, in Go by NewHttpContext" in result.complaint,
    ) == (5, True)


@pytest.mark.parametrize(
    ("filter", "configuration", "cluster"),
    [(AUTH, "callout:idp", "idp"), (str(FILTERS / "rust/grpc.wasm"), "peer,demo.S,Get,hi", "peer")],
)
def test_a_callout_that_nobody_answers_for_says_what_to_write(proxywasm, filter, configuration, cluster):
    result = proxywasm("run", filter, "/x", "--config", configuration)
    told = f"The filter calls the cluster '{cluster}', which has no answer here: add --callout {cluster}=200."
    assert (result.code, result.complaint) == (0, told)
    answered = proxywasm("run", filter, "/x", "--config", configuration, "--callout", f"{cluster}=200")
    assert (answered.code, answered.err) == (0, "")


def test_a_compilation_that_takes_long_is_told(proxywasm, engine, monkeypatch):
    """Standard output is the result alone, meanwhile and afterwards."""
    monkeypatch.setattr("proxywasm_host.engine.cache.SLOW", 0)
    monkeypatch.setenv("PROXYWASM_CACHE_DIR", "")
    said = threading.Event()
    say, compile = CommandLine.say, type(engine).compile
    monkeypatch.setattr(CommandLine, "say", staticmethod(lambda sentence: (say(sentence), said.set())))
    monkeypatch.setattr(type(engine), "compile", lambda self, code: said.wait(60) and compile(self, code))
    result = proxywasm("run", str(FILTERS / "c/minimal.wasm"), "/x", "--json")
    told = f"compiling a module of 0.0 MB on {engine.name} takes more than a second; it is not cached on disk …"
    assert (result.complaint, result.json["client_response"]["status"]) == (told, 200)


# -- Options -----------------------------------------------------------------------------------------------------------


def request_of(result):
    """What upstream got, as one reads it."""
    return dict(result.json["upstream_request"]["headers"])


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (["/x"], "GET", "/x", ""),
        (["PUT", "/x"], "PUT", "/x", ""),
        (["-X", "PATCH", "/x"], "PATCH", "/x", ""),
        (["http://example.com"], "GET", "/", ""),
        (["/x", "-d", "abc"], "POST", "/x", "abc"),
        (["/x", "-d", ""], "POST", "/x", ""),
        (["DELETE", "/x", "-d", "abc"], "DELETE", "/x", "abc"),
        (["/x", "--chunk", "a", "--chunk", "b"], "POST", "/x", "ab"),
    ],
)
def test_method_url_and_body(proxywasm, arguments, method, path, body):
    request = proxywasm("run", PROBE, *arguments, "--json").json["upstream_request"]
    assert (request["method"], request["path"], request["body"]) == (method, path, body)
    length = dict(request["headers"]).get("content-length")
    assert length == (str(len(body)) if "-d" in arguments else None)


def test_headers_in_the_order_that_envoy_shows(proxywasm):
    result = proxywasm(
        "run", PROBE, "https://example.com/x", "-H", "B: 1", "-H", "Host: other", "-H", "User-Agent: a", "-H", "a:",
        "-H", "USER-AGENT: b", "-H", "Content-Length: 9", "-d", "abc", "--json",
    )  # fmt: skip
    assert result.json["upstream_request"]["headers"] == [
        [":authority", "other"], [":path", "/x"], [":method", "POST"], [":scheme", "https"],
        ["b", "1"], ["user-agent", "a,b"], ["a", ""], ["content-length", "9"],
    ]  # fmt: skip


def test_data_from_a_file_and_from_standard_input(proxywasm, tmp_path, monkeypatch):
    (tmp_path / "data").write_bytes(b"from a file\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    result = proxywasm("run", PROBE, "/x", "-d", f"@{tmp_path}/data", "--response-body", "@-", "--json").json
    assert result["upstream_request"]["body"] == "from a file\n"
    assert result["client_response"]["body"] == "from a pipe"


def test_the_response(proxywasm):
    result = proxywasm(
        "run", PROBE, "/x", "--response-status", "404", "--response-header", "A: b", "--response-body", "no", "--json"
    )
    assert result.json["client_response"] == {
        "status": 404, "headers": [[":status", "404"], ["a", "b"], ["content-length", "2"]], "body": "no", "trailers": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        (["HEAD", "/x"], "2 headers"),
        (["/x", "--response-status", "304"], "2 headers"),  # the length is that of the answer to GET
        (["/x", "--response-status", "204"], "1 header"),
    ],
)
def test_responses_that_have_no_body(proxywasm, arguments, headers):
    result = proxywasm("run", PROBE, *arguments, "--response-body", "abc", "--response-trailer", "t: 1")
    assert f"on_response_headers({headers}, end of stream)" in result.out
    assert "body" not in outcome(result)


def test_framing(proxywasm):
    def bodies(*arguments):
        result = proxywasm("run", PROBE, "/x", "-d", "abc", *arguments, "--json")
        return [call["arguments"][1:] for call in result.json["callbacks"] if call["name"] == "proxy_on_request_body"]

    assert bodies() == [[3, 0], [0, 1]]
    assert bodies("--framing", "http2") == [[3, 1]]


def test_configurations_of_plugin_and_vm_root_id_vm_id_and_environment(proxywasm, monkeypatch):
    monkeypatch.setenv("GIVEN", "on")
    config = script(
        "@on_configure",
        "get_buffer_bytes 6 0 99",
        "get_property plugin_root_id",
        "get_property plugin_vm_id",
        "get_property plugin_name",
        "environ_get",
    )
    result = proxywasm(
        "run", PROBE, "/x", "--config", config, "--vm-config", "#vm", "--root-id", "r", "--vm-id", "v", "--name", "n",
        "--env", "A=b", "--env", "GIVEN", "--json",
    )  # fmt: skip
    assert [line["message"].partition(" = ")[2] for line in result.json["logs"]] == [
        '0 "#vm"', '0 "r"', '0 "v"', '0 "n"', "0 [A=b, GIVEN=on]",
    ]  # fmt: skip


def test_properties(proxywasm):
    config = script("@on_request_headers", "get_property source%00address", "get_property source%00port")
    result = proxywasm(
        "run",
        PROBE,
        "/x",
        "--config",
        config,
        "--property",
        "source.address=1.2.3.4",
        "--property",
        "source.port:=7",
        "--json",
    )
    assert [line["message"].partition(" = ")[2] for line in result.json["logs"]] == [
        '0 "1.2.3.4"',
        '0 "%07%00%00%00%00%00%00%00"',
    ]


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("idp=403:no", "auth: token 4 answered 403 no"),
        ("idp=200", "auth: allowed"),
        ("idp=fail", "auth: no answer, status 11 reset"),
    ],
)
def test_callouts(proxywasm, reply, line):
    result = proxywasm("run", AUTH, "/x", "--config", "callout:idp", "--callout", reply)
    assert f"info      {line}" in result.lines
    assert "→ callout 4 to idp: GET /check" in result.lines


def test_a_callout_to_another_cluster_is_refused_with_the_reason(proxywasm):
    result = proxywasm("run", AUTH, "/x", "--config", "callout:idp")
    assert "= BAD_ARGUMENT: no cluster is called 'idp': add it to clusters" in " ".join(result.out.split())


@pytest.mark.parametrize(
    ("filter", "config", "reply", "line"),
    [
        ("rust/grpc", "up,s,m,hi", "up=0:yes", 'grpc: call 5 answered with 3 bytes "yes"'),
        ("rust/grpc", "up,s,m,hi", "up=7:no", 'grpc: call 5 failed with 7: 7 "no"'),
        ("rust/grpc", "stream:up,s,m,hi", "up=3:yes", 'grpc: stream 6 closed with 3: 3 ""'),
    ],
)
def test_grpc_callouts(proxywasm, filter, config, reply, line):
    result = proxywasm("run", FILTERS / f"{filter}.wasm", "/x", "--config", config, "--callout", reply)
    assert f"info      {line}" in result.lines


def test_redis_callouts(proxywasm):
    config = script(
        "@on_configure",
        'redis_init up "" "" 100',
        "@on_request_headers",
        "redis_call up PING",
        "return 1",
        "@on_redis_call_response",
        "get_buffer_bytes 9 0 99",
    )
    result = proxywasm("run", FILTERS / "c/probe_0_2_100.wasm", "/x", "--config", config, "--callout", "up=0:+PONG")
    assert 'info      get_buffer_bytes(9, 0, 99) = 0 "+PONG"' in result.lines


def test_ticks(proxywasm):
    config = script("@on_configure", "set_tick_period_milliseconds 5", "@on_request_headers", "return 1")
    assert proxywasm("run", PROBE, "/x", "--config", config, "--ticks", "3").out.count("time passes: tick") == 3


def test_the_memory_limit(proxywasm, engine):
    needs(engine, "memory_limit")
    config = script("@on_request_headers", "grow 100")

    def grown(limit):
        [line] = proxywasm("run", PROBE, "/x", "--config", config, "--memory-limit", limit, "--json").json["logs"]
        return line["message"]

    assert grown("2MiB").endswith(" -1")
    assert not grown("64MiB").endswith(" -1")


def test_the_limits_where_none_are_given(proxywasm, engine, monkeypatch):
    needs(engine, "memory_limit")
    seen = []

    def host(*arguments, **options):
        seen.append(options["limits"])
        return Host(*arguments, **options)

    monkeypatch.setattr("proxywasm_host.cli.options.Host", host)
    config = script("@on_request_headers", "grow 3000", "grow 1200", "say goes%20on")
    logs = proxywasm("run", PROBE, "/x", "--config", config, "--json").json["logs"]
    assert seen == [Limits(memory=256 << 20, deadline=5)]
    first, second, last = (line["message"].rpartition(" ")[2] for line in logs)
    assert (first != "-1", second, last) == (True, "-1", "on")


def test_no_deadline(proxywasm):
    assert proxywasm("run", PROBE, "/x", "--deadline", "0").code == 0


def test_failure_policy_and_what_follows(proxywasm):
    result = proxywasm("run", PANICS, "/x", "--config", "request_headers", "--failure-policy", "fail_open", "--json")
    assert (result.code, result.json["client_response"]["status"]) == (5, 503)
    spared = proxywasm(
        "run",
        PANICS,
        "/x",
        "--config",
        "request_headers",
        "--failure-policy",
        "fail_open",
        "--profile",
        "spec",
        "--json",
    )
    assert (spared.code, spared.json["client_response"]["status"]) == (5, 200)


def test_allow_on_headers_stop_iteration(proxywasm):
    config = ("--config", script("@on_request_headers", "return 1"))

    def bodies(*arguments):
        return proxywasm("run", PROBE, "/x", "-d", "abc", *config, *arguments).out.count("on_request_body")

    assert (bodies(), bodies("--allow-on-headers-stop-iteration")) == (0, 2)


def test_unknown_imports(proxywasm, module):
    path = module("""(module (import "env" "proxy_foo" (func (result i32))) (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) i32.const 0) (func (export "proxy_abi_version_0_2_1")))""")
    assert proxywasm("run", path, "/x").code == 3
    assert proxywasm("run", path, "/x", "--unknown-imports", "stub").code == 0


def test_each_filter_may_have_its_own_engine(command, engine):
    result = command("run", HEADERS, HEADERS, "/x", "--engine", engine.name, "--engine", engine.name)
    assert (result.code, result.lines[0].split(" · ")[0]) == (0, f"{engine.name} {engine.version}")


def test_log_level(proxywasm):
    config = script("@on_request_headers", "log 1 fine", "log 3 careful")

    def lines(*arguments):
        return [
            (line["level"], line["message"])
            for line in proxywasm("run", PROBE, "/x", "--config", config, *arguments, "--json").json["logs"]
        ]

    assert lines() == [("warn", "careful")]
    assert lines("--log-level", "trace") == [("debug", "fine"), ("warn", "careful")]
    assert lines("--log-level", "critical") == []


# -- Colour ------------------------------------------------------------------------------------------------------------


def test_colour_if_it_is_asked_for(proxywasm, monkeypatch):
    plain = proxywasm("run", HEADERS, "/x").out
    assert "\x1b" not in plain
    assert "\x1b[32m+ x-wasm: hello" in proxywasm("run", HEADERS, "/x", "--color").out.replace("  + ", "+ ")


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_a_terminal_has_colour_unless_it_says_no(engine, monkeypatch, variables, colour):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "PROXYWASM_ENGINE": engine.name, **variables}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["run", HEADERS, "/x"]) == 0
    assert ("\x1b[" in terminal.getvalue()) is colour


def test_a_narrow_terminal_wraps_under_the_beginning_of_a_line(proxywasm, monkeypatch):
    long = "x" * 60
    result = proxywasm("run", HEADERS, "/x", "-H", f"a: {long} {long}")
    assert f"    a: {long}\n      {long}\n" in result.out


def test_the_filters_of_a_configuration_run_as_they_are_there(proxywasm, tmp_path):
    """In our own form, or in another host's."""
    plugin = {"url": f"file://{FILTERS / 'rust/headers.wasm'}", "pluginConfig": {"a": 1}}
    kind = {
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "mine"},
        "spec": plugin,
    }
    own = {
        "upstream": "http://127.0.0.1:1",
        "filters": [{"file": str(FILTERS / "rust/headers.wasm"), "configuration": "own"}],
    }
    for said, shown in ((kind, 'x-wasm: {"a": 1}'), (own, "x-wasm: own")):
        (tmp_path / "given.json").write_text(json.dumps(said))
        result = proxywasm("run", tmp_path / "given.json", "http://example.com/")
        assert (result.code, shown in result.out) == (0, True), result.out + result.err
    rules = {"matchRules": [{"domain": ["a.example"], "config": {"b": 1}}, {"domain": ["off.example"], "configDisable": True}]}
    higress = {**kind, "apiVersion": "extensions.higress.io/v1alpha1", "spec": {**plugin, **rules}}
    (tmp_path / "given.json").write_text(json.dumps(higress))
    for host, shown in (("a.example", 'x-wasm: {"b": 1}'), ("b.example", 'x-wasm: {"a": 1}'), ("off.example", None)):
        shows = proxywasm("run", tmp_path / "given.json", f"http://{host}/").out
        assert shown in shows if shown else "+ x-wasm" not in shows
    (tmp_path / "given.json").write_text(json.dumps(kind | {"spec": {**plugin, "odd": 1}}))
    assert "given.json:1: spec.odd: is not understood here" in proxywasm("run", tmp_path / "given.json", "/").complaint

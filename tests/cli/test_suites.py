"""``proxywasm test``: what a suite says, and what is told of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from proxywasm_host.suites.model import Suite
from tests.cli.conftest import AUTH, BODY, HEADERS, PANICS, PROBE, RUST

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path: Path):
    """A suite's file, with ``FILTER`` for the path of one of ours."""

    def write(text: str, name: str = "a.suite.yaml", filter: str | None = None) -> Path:
        path = tmp_path / name
        path.write_text(text.replace("FILTER", filter or ""))
        return path

    return write


def failing(result) -> dict[str, list[str]]:
    """What is wrong, by the names of tests, of ``--json``."""
    return {test["name"]: test["wrong"] for test in result.json["tests"] if not test["passed"]}


# -- YAML --------------------------------------------------------------------------------------------------------------

PASSES = """\
filter: FILTER
tests:
  - name: changes headers
    request: {url: /hello, headers: {user-agent: curl/8, x-remove-me: please}}
    upstream: {status: 201, headers: {server: up, set-cookie: [a=1, b=2]}, body: Hello.}
    expect:
      upstream: {method: GET, path: /hello, headers: {x-wasm: hello, x-remove-me: null}}
      response:
        status: 201
        headers: {server: proxy-wasm, set-cookie: "a=1, b=2", x-wasm: {contains: ell}}
        body: {regex: "H.*\\\\."}
      local: false
      logs: ["headers: request for /hello by curl/8", {regex: ".*by up"}]
      no_logs: [{contains: error}]
  - name: is configured
    configuration: {a: 1}
    steps:
      - expect: {upstream: {headers: {x-wasm: '{"a": 1}'}}}
      - request: {method: PUT, body: abcde, chunk_size: 2}
        upstream: 404
        expect: {upstream: {method: PUT, body: abcde}, response: {status: 404}}
"""


def test_a_suite_passes(proxywasm, engine, write):
    suite = write(PASSES, filter=HEADERS)
    result = proxywasm("test", suite)
    assert (result.code, result.err) == (0, "")
    assert result.lines[:-1] == [
        "TAP version 14",
        "1..2",
        f"ok 1 - {suite}: changes headers (headers.wasm, {engine.name})",
        f"ok 2 - {suite}: is configured (headers.wasm, {engine.name})",
    ]
    assert result.lines[-1].startswith("# 2 passed, 0 failed in ")


ENVOY = """\
filter_chains:
- filters:
  - typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      http_filters:
      - name: first
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
          config:
            configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: in a file}
            vm_config: {code: {local: {filename: headers.wasm}}}
      - name: second
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
          config:
            configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: inline}
            vm_config: {code: {local: {inline_bytes: INLINE}}}
"""


def test_a_suite_for_the_filters_of_a_configuration(proxywasm, write):
    module = Path(HEADERS).read_bytes()
    write("", "headers.wasm").write_bytes(module)
    write(ENVOY.replace("INLINE", base64.b64encode(module).decode()), "envoy.yaml")
    suite = write(
        """\
filter: envoy.yaml
tests:
  - {name: as configured, expect: {upstream: {headers: {x-wasm: "in a file, inline"}}}}
  - {name: as the suite says, configuration: mine, expect: {upstream: {headers: {x-wasm: "mine, mine"}}}}
"""
    )
    result = proxywasm("test", suite)
    assert (result.code, result.err) == (0, ""), result.out
    assert result.lines[1] == "1..2"
    write("wasm { module headers headers.wasm; }\nhttp { proxy_wasm headers nginx; server {} }\n", "nginx.conf")
    suite.write_text("filter: nginx.conf\ntests: [{name: a, expect: {upstream: {headers: {x-wasm: nginx}}}}]\n")
    result = proxywasm("test", suite)
    assert (result.code, result.err) == (0, ""), result.out


def test_a_configuration_that_a_suite_cannot_have(proxywasm, write):
    write(ENVOY.replace("INLINE", "AGFzbQEAAAA="), "envoy.yaml")
    suite = write("filter: envoy.yaml\ntests: [{name: a}]\n")
    result = proxywasm("test", suite)
    assert result.code == 2
    assert f"{suite.parent / 'headers.wasm'}" in result.err
    write(ENVOY.replace("INLINE", "not base64!"), "envoy.yaml")
    write("", "headers.wasm").write_bytes(b"")
    result = proxywasm("test", suite)
    assert result.code == 2
    assert "envoy.yaml" in result.err
    assert "the module is not base64" in result.err
    google = write('test { name: "a" }\n', "a.textpb")
    write(ENVOY.replace("INLINE", "AGFzbQEAAAA="), "envoy.yaml")
    result = proxywasm("test", google, "--filter", suite.parent / "envoy.yaml")
    assert (result.code, result.err.split(": ", 2)[2]) == (
        2,
        "has 2 filters, but a suite of Google's tests one\n",
    )


def test_what_is_not_as_expected_is_told(proxywasm, engine, write):
    suite = write(
        """\
filter: FILTER
tests:
  - name: headers
    upstream: {headers: {server: up}}
    expect:
      upstream: {path: /x, headers: {x-wasm: null, x-there: "1", x-no: {regex: "[0-9]+"}}}
      response: {status: 500, body: text, headers: {x-wasm: {absent: ell}}}
      local: true
      details: via_nobody
      logs: [nothing like that]
      no_logs: [{regex: "headers: d.*"}]
      metrics: {requests: 1}
      paused: request
      failure: true
  - name: silence
    steps: [{}, {expect: {upstream: false, response: false}}]
""",
        filter=HEADERS,
    )
    result = proxywasm("test", suite, "--json")
    assert result.code == 1
    assert failing(result) == {
        "headers": [
            "the filter must fail, but did not",
            "upstream: path is '/', expected '/x'",
            "upstream: header x-wasm is 'hello', expected none",
            "upstream: header x-there is missing, expected '1'",
            "upstream: header x-no is missing, expected regex '[0-9]+'",
            "the client: status is '200', expected '500'",
            "the client: header x-wasm is 'hello', expected absent 'ell'",
            "the client: the body is '', expected 'text'",
            "the response is that of upstream, expected a filter",
            "details is 'via_upstream', expected 'via_nobody'",
            "paused at the end: nothing, expected request",
            "no log line 'nothing like that'; there is "
            + ", ".join(map(repr, ("headers: request for / by -", "headers: response by up", "headers: done"))),
            "the log line 'headers: done' must not be there: regex 'headers: d.*'",
            "metric requests is not there; there is none, expected 1",
        ],
        "silence": [
            "step 2: upstream gets something, expected nothing",
            "step 2: the client gets something, expected nothing",
        ],
    }
    text = proxywasm("test", suite, "-k", "SILENCE").out
    assert text.splitlines()[1:-1] == [
        "1..1",
        f"not ok 1 - {suite}: silence (headers.wasm, {engine.name})",
        "  ---",
        f'  at: "{suite}:15"',
        "  wrong:",
        '    - "step 2: upstream gets something, expected nothing"',
        '    - "step 2: the client gets something, expected nothing"',
        "  ...",
    ]


def test_callouts_are_answered(proxywasm, write):
    suite = write(
        """\
filter: FILTER
configuration: callout:idp
tests:
  - name: yes
    callouts: {idp: 200}
    expect: {response: {status: 200}, local: false, metrics: {auth.allowed: 1}}
  - name: no, then not at all, then yes
    steps:
      - {callouts: {idp: {status: 403, headers: {x-why: no}, body: go}}, expect: {upstream: false, response: {status: 403}}}
      - {callouts: {idp: fail}, expect: {local: true, response: {status: 403}, metrics: {auth.denied: 2}}}
      - {callouts: {idp: [200, 403]}, expect: {local: false}}
  - name: nobody answers
    callouts: {idp: []}
    expect: {response: {status: 403}}
  - name: a cluster that is not there
    expect: {response: {status: 403}}
""".replace("yes\n    callouts", '"yes"\n    callouts'),
        filter=AUTH,
    )
    result = proxywasm("test", suite, "--json")
    assert failing(result) == {}


def test_time_passes_and_callouts_are_told(proxywasm, write):
    suite = write(
        """\
filter: FILTER
configuration: callout:idp
tests:
  - name: late
    request: {headers: {authorization: x}}
    callouts: {idp: {status: 200, after: 0.9}}
    expect: {local: false, callouts: [{cluster: idp, method: GET, path: /check, headers: {authorization: x}}]}
  - {name: too late, callouts: {idp: {after: 1.1}}, expect: {response: {status: 403}}}
  - {name: never, callouts: {idp: never}, expect: {response: {status: 403}}}
  - name: other callouts
    callouts: {idp: 200}
    expect: {callouts: [{cluster: ipd, path: {regex: /chek}}]}
  - {name: none, callouts: {idp: 200}, expect: {callouts: []}}
  - {name: not there on this platform, profile: gcp, callouts: {idp: 200}}
""",
        filter=AUTH,
    )
    wrong = failing(proxywasm("test", suite, "--json"))
    (other, path), (none,) = wrong.pop("other callouts"), wrong.pop("none")
    assert (other, path) == (
        "callout 1: cluster is 'idp', expected 'ipd'",
        "callout 1: path is '/check', expected regex '/chek'",
    )
    assert none.startswith("1 callouts were made, expected 0; there are <Callout http idp: GET /check; ")
    assert {name: len(said) for name, said in wrong.items()} == {"not there on this platform": 1}


def test_a_filter_that_fails(proxywasm, write):
    suite = write(
        """\
filter: FILTER
configuration: request_headers
tests:
  - {name: unexpected}
  - {name: expected, expect: {failure: true, response: {status: 503}}}
  - {name: in other words, expect: {failure: nothing}}
  - {name: in its configuration, configuration: refuse}
""",
        filter=PANICS,
    )
    wrong = failing(proxywasm("test", suite, "--json"))
    assert {name: [sentence.partition(":")[0] for sentence in said] for name, said in wrong.items()} == {
        "unexpected": ["the filter failed"],
        "in other words": [wrong["in other words"][0]],
        "in its configuration": ["plugin 'panics' refused its configuration (on_configure)"],
    }
    assert wrong["in other words"][0].startswith("the failure is '")


def test_properties_ticks_and_what_is_still_held(proxywasm, write):
    script = "@on_request_headers\\nget_property source%00address\\nreturn 1\\n@on_tick\\nset_effective_context $stream\\ncontinue_stream 0"
    suite = write(
        f"""\
filter: FILTER
configuration: "{script}"
tests:
  - name: held
    properties: {{source.address: "1.2.3.4"}}
    expect: {{paused: request, upstream: false, logs: [{{contains: 1.2.3.4}}]}}
  - name: let go by a tick
    configuration: "@on_configure\\nset_tick_period_milliseconds 10\\n{script}"
    expect: {{upstream: {{}}, response: {{status: 200}}}}
""",
        filter=PROBE,
    )
    result = proxywasm("test", suite, "--json")
    assert failing(result) == {}


def test_a_chain_and_other_filters(proxywasm, write):
    suite = write(
        """\
filter: [FILTER, FILTER]
tests:
  - {name: twice, expect: {upstream: {headers: {x-wasm: "hello, hello"}}}}
""",
        filter=HEADERS,
    )
    assert proxywasm("test", suite).code == 0
    result = proxywasm("test", suite, "--filter", HEADERS, "--filter", BODY, "--config", "v", "--json")
    assert {Path(test["filter"]).name: test["wrong"] for test in result.json["tests"]} == {
        "headers.wasm": ["upstream: header x-wasm is 'v', expected 'hello, hello'"],
        "body.wasm": ["upstream: header x-wasm is missing, expected 'hello, hello'"],
    }


# -- What cannot be run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filter: a.wasm\ntests:\n  - {name: x, expct: {}}\n", ":3: tests[0].expct: is not known; see proxywasm test --schema"),
        ("filter: a.wasm\ntests:\n  - name: x\n    upstream: {status: 42}\n", ":4: tests[0].upstream"),
        ("tests: []\n", ":1: filter: is missing"),
        ("filter: a.wasm\ntests: []\n", ":2: tests: List should have at least 1 item"),
        ("filter: a.wasm\ntests: [{name: x, request: {body: a, chunks: [b]}}]\n", "give body or chunks, not both"),
        ("filter: a.wasm\ntests: [{name: x, request: {chunk_size: 1}}]\n", "chunk_size needs a body"),
        ("filter: a.wasm\ntests: [{name: x, advance: 1, steps: [{}]}]\n", "a test with steps has advance in its steps"),
        ("filter: a.wasm\ntests: [{name: x, expect: {logs: [{}]}}]\n", "give regex, contains or absent"),
        ("filter: a.wasm\ntests: [{name: x, expect: {logs: [{regex: '['}]}}]\n", "'[' is not a regular expression"),
        ("filter: a.wasm\nprofile: envy\ntests: [{name: x}]\n", ":2: profile: no profile is called 'envy'. Did you mean 'envoy'?"),
        ("filter: nowhere.wasm\ntests: [{name: x}]\n", "nowhere.wasm: No such file or directory"),
        ("filter: a.wasm\nfilter: b.wasm\n", ":2: filter is given twice"),
        ("[]\n", "a suite is a mapping, with 'filter' and 'tests' in it"),
    ],
)  # fmt: skip
def test_a_wrong_suite_is_told_with_its_place(command, write, text, said):
    suite = write(text)
    result = command("test", suite)
    assert result.code == 2
    assert said in result.complaint
    assert str(suite) in result.complaint


def test_wrong_use(command, write):
    suite = write("filter: a.wasm\ntests: [{name: x}]\n")
    for words, said in (
        ([], "the suite is missing: proxywasm test SUITE…"),
        ([suite, "-k", "y"], "no test has 'y' in its name"),
        (["a.txt"], "a.txt is not a suite: those end in .yaml, .yml, .textpb, .txtpb, .textproto, .pbtxt"),
        (["no.yaml"], "cannot read the suite no.yaml: No such file or directory"),
        (["no.textpb"], "cannot read the suite no.textpb: No such file or directory"),
        ([suite, "--filter", "b.wasm"], "cannot read the filter b.wasm: No such file or directory"),
    ):
        result = command("test", *words)
        assert (result.code, said in result.complaint) == (2, True), result.complaint
    result = command("test", suite, "--filter", __file__)
    assert (result.code, __file__ in result.complaint) == (3, True)
    assert command("test", suite, "--engine", "nope").code == 4


def test_without_the_extra_it_says_what_to_install(command, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    for name in ("service_extensions", "service_extensions_schema"):
        monkeypatch.delitem(sys.modules, f"proxywasm_host.suites.{name}", raising=False)
        monkeypatch.delattr(f"proxywasm_host.suites.{name}", raising=False)
    result = command("test", write(TEXT_PROTO, "tests.textpb"))
    assert result.code == 2
    assert "proxywasm test needs more: google.protobuf is not installed: " in result.complaint
    assert "[suites]" in result.complaint


def test_the_example_of_the_documentation(proxywasm, tmp_path):
    text = (ROOT / "docs/suites.md").read_text()
    suite = tmp_path / "auth.suite.yaml"
    suite.write_text(text.partition("```yaml\n")[2].partition("```")[0].replace("auth.wasm", AUTH, 1))
    assert proxywasm("test", suite).lines[-1].startswith("# 2 passed, 0 failed")


def test_the_schema_is_published():
    """Made with: proxywasm test --schema > docs/suite.schema.json"""
    assert json.loads((ROOT / "docs/suite.schema.json").read_text()) == Suite.model_json_schema()


# -- Reports -----------------------------------------------------------------------------------------------------------


@pytest.mark.several_engines
def test_every_engine(command, write, tmp_path):
    suite = write(
        'filter: FILTER\ntests: [{name: a}, {name: "b\\x07 #1", expect: {upstream: {path: "\\x07"}}}]\n', filter=HEADERS
    )
    report = tmp_path / "report.xml"
    result = command("test", suite, "--engine", "all", "--junit", report)
    assert result.code == 1
    engines = [line.rsplit(", ", 1)[1].rstrip(")") for line in result.lines if line.startswith("ok ")]
    assert len(engines) > 1
    assert result.lines[1] == f"1..{2 * len(engines)}"
    assert f"not ok {2 * len(engines)} - {suite}: b\\x07 \\#1 (headers.wasm, {engines[-1]})" in result.lines
    root = ET.parse(report).getroot()
    (element,) = root
    assert {name: element.attrib[name] for name in ("name", "tests", "failures", "errors")} == {
        "name": str(suite),
        "tests": str(2 * len(engines)),
        "failures": str(len(engines)),
        "errors": "0",
    }
    cases = [
        (case.get("name"), case.get("classname"), case.get("line"), [failure.get("message") for failure in case])
        for case in element
    ]
    wrong = "upstream: path is '/', expected '\\x07'"
    assert cases == [
        *(("a", f"headers.wasm ({engine})", "2", []) for engine in engines),
        *(("b\\x07 #1", f"headers.wasm ({engine})", "2", [wrong]) for engine in engines),
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("filter: FILTER\ntests: [{name: a}, {name: b}]\n", "a.suite.yaml"),
        ('env { wasm_path: "FILTER" }\n' + 'test { name: "a" request_headers { input { } } }\n' * 2, "tests.textpb"),
    ],
)
def test_coverage_is_told(proxywasm, write, tmp_path, text, name):
    suite, told, page = write(text, name, PANICS), tmp_path / "coverage.json", tmp_path / "coverage.html"
    result = proxywasm("test", suite, "--coverage", "--coverage-json", told, "--coverage-html", page)
    assert result.code == 0
    assert [line for line in result.lines if line.startswith("# panics: ")]
    assert [line.split() for line in result.lines if "proxy_on_request_headers " in line] == [
        ["#", "proxy_on_request_headers", "2"]
    ]
    (covered,) = json.loads(told.read_text()).values()
    assert covered["callbacks"]["proxy_on_request_headers"] == 2
    assert covered["callbacks"]["proxy_on_queue_ready"] == 0
    assert "proxy_on_queue_ready" in covered["missed"]
    assert "<h2>panics: " in page.read_text()


def test_too_little_coverage_is_a_failure(proxywasm, write):
    suite = write("filter: FILTER\ntests: [{name: a}]\n", filter=PANICS)
    result = proxywasm("test", suite, "--coverage-under", "99.5", "--json")
    assert (result.code, [test["passed"] for test in result.json["tests"]]) == (1, [True])
    assert " % is under 99.5 %; not reached: " in result.complaint
    assert "proxy_on_queue_ready" in result.complaint
    assert proxywasm("test", suite, "--coverage-under", "1").code == 0


def test_watching_runs_again(write, tmp_path):
    def replace(text: str) -> None:
        """At once, as nothing half-written may be seen."""
        write(text, "new", HEADERS).replace(suite)

    suite = write(PASSES, filter=HEADERS)
    words = [sys.executable, "-m", "proxywasm_host.cli", "test", str(suite), "--watch", "-k", "changes"]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = [watching.stdout.readline() for _ in range(4)]
        assert said[3].startswith("# 1 passed")
        replace("filter: [\n")
        assert "this is not YAML" in watching.stdout.readline()
        time.sleep(0.01)
        replace(PASSES.replace("status: 201\n        h", "status: 200\n        h"))
        assert [watching.stdout.readline() for _ in range(3)][2].startswith("not ok 1")
    finally:
        watching.kill()
        watching.communicate()


# -- Google's form -----------------------------------------------------------------------------------------------------

TEXT_PROTO = """\
env { time_secs: 7 }
test {
  name: "headers as a proto"
  plugin_init { log { regex: "headers: configured.*" } }
  stream_init { log { regex: ".*" invert: true } }
  request_headers {
    input { header { key: "X-Remove-Me" value: "please" } header { key: "A" value: "1" } header { key: "a" value: "2" } }
    result {
      has_header { key: "X-Wasm" value: "hello" }
      has_header { key: "a" value: "1, 2" }
      no_header { key: "x-remove-me" }
      headers { exact: "x-wasm: hello" }
      headers { regex: "[[:alpha:]-]+: [[:lower:]]{5}\\\\z" }
      headers { regex: "x-remove.*" invert: true }
      log { exact: "headers: request for  by -" }
    }
  }
  response_headers {
    input { content: "HTTP/1.1 404 Not Found\\nServer: up\\n" }
    result {
      has_header { key: ":status" value: "404" }
      has_header { key: "Server" value: "proxy-wasm" }
      log { regex: ".*request.*" invert: true }
    }
  }
  stream_destroy { log { regex: ".*done" invert: true } }
}
test {
  name: "headers in HTTP/1.1"
  request_headers {
    input { content: "GET https://example.com:8080/my/path?a HTTP/1.1\\r\\nHost: other\\r\\nMyHeader: a\\r\\nMyHeader: b\\r\\n" }
    result {
      has_header { key: ":authority" value: "example.com:8080" }
      has_header { key: ":scheme" value: "https" }
      has_header { key: ":path" value: "/my/path?a" }
      has_header { key: "myheader" value: "a, b" }
      no_header { key: "host" }
    }
  }
}
test {
  name: "origin form, from a file"
  request_headers {
    input { file: "head.txt" }
    result { headers { exact: ":authority: here" } headers { exact: ":method: PUT" } no_header { key: ":scheme" } }
  }
}
test {
  name: "a response alone"
  response_body { input { content: "as it is" } result { body { exact: "as it is" } log { regex: ".*" invert: true } } }
}
"""


def test_googles_suites(proxywasm, write, tmp_path):
    (tmp_path / "head.txt").write_text("PUT /x HTTP/1.1\nHost: here\n")
    suite = write(TEXT_PROTO, "tests.textpb")
    result = proxywasm("test", suite, "--filter", HEADERS, "--json")
    assert (result.code, result.err, failing(result)) == (0, "", {})
    assert [(test["name"], test["line"]) for test in result.json["tests"]] == [
        ("headers as a proto", 3),
        ("headers in HTTP/1.1", 29),
        ("origin form, from a file", 42),
        ("a response alone", 49),
    ]


def test_chunks_of_googles_suites(proxywasm, write, tmp_path):
    (tmp_path / "want.txt").write_text("foobarfo")
    suite = write(
        """\
env { wasm_path: "FILTER" }
test {
  name: "in five"
  num_chunks: 3
  response_body { input { content: "foofoofoXX" } result { body { exact: "barbarfoXX" } } }
}
test {
  name: "of two"
  chunk_size: 2
  request_body { input { content: "abcde" } result { body { exact: "ABCDE" } log { regex: ".* of 4 bytes so far.*" } } }
  response_body { input { content: "foobarfo" } result { body { file: "want.txt" } } }
}
test {
  name: "one by one"
  response_body { input { content: "foo" } result { body { exact: "bar" } } }
  response_body { input { content: "foofo" } result { body { exact: "barfo" } body { regex: "b.*" } } }
}
test {
  name: "a plan for two"
  chunk_size: 2
  request_body { input { content: "a" } }
  request_body { input { content: "b" } }
}
""",
        "tests.textpb",
        BODY,
    )
    assert failing(proxywasm("test", suite, "--json")) == {
        "a plan for two": ["request_body: chunk_size is for one request_body, and there are 2"]
    }


GOOGLES_YAML = """\
env: {wasm_path: FILTER, log_level: DEBUG, time_secs: 7}
test:
- name: a response in lower case
  benchmark: no
  request_headers:
    input:
      header: [{key: X-Remove-Me, value: please}, {key: a, value: 1}]
    result:
      has_header: [{key: x-wasm, value: hello}]
      no_header: [{key: x-remove-me}]
      headers:
      - regex: x-remove.*
        invert: 'true'
- name: not what was expected
  num_chunks: 2
  request_headers:
    input: {content: "GET /x HTTP/1.1\\n"}
    result:
      has_header: [{key: ":path", value: /y}]
"""


def test_googles_suites_in_yaml(proxywasm, write, tmp_path):
    """The names of the messages as keys; what is text in YAML is what the field says."""
    (tmp_path / "config").write_text("hello")
    suite = write(GOOGLES_YAML, "tests.yaml", HEADERS)
    result = proxywasm("test", suite, "--config", f"@{tmp_path / 'config'}", "--json")
    assert failing(result) == {
        "not what was expected": ["request_headers: header :path is '/x', expected '/y'"],
    }
    assert [test["line"] for test in result.json["tests"]] == [3, 14]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("test:\n- name: a\n  requests: {}\n", "3: Test has no field 'requests'"),
        ("test: {name: a}\n", "1: test is a list"),
        ("test:\n- request_headers: x\n", "2: Invocation is a mapping"),
        ("test:\n- name: [a]\n", "2: name is one value"),
        ("env:\n  time_secs: soon\ntest: []\n", "2: time_secs cannot be 'soon'"),
        ("env: {log_level: LOUD}\n", "1: log_level cannot be 'LOUD'"),
        ("test:\n- benchmark: perhaps\n", "2: benchmark cannot be 'perhaps'"),
    ],
)
def test_what_is_wrong_with_googles_yaml(command, write, text, said):
    suite = write(text, "tests.yaml")
    result = command("test", suite, "--filter", HEADERS)
    assert (result.code, result.err) == (2, f"error: {suite}:{said}\n")


def test_answers_of_googles_suites(proxywasm, write, tmp_path):
    (tmp_path / "token").write_text("t")
    suite = write(
        """\
env { wasm_path: "FILTER" config_path: "token" }
test {
  name: "denied"
  request_headers { result { immediate { http_status: 401 } body { exact: "unauthorized\\n" } no_header { key: ":path" } } }
  response_headers { input { header { key: "a" value: "b" } } }
}
test {
  name: "not what was expected"
  request_headers {
    input { header { key: "authorization" value: "Bearer t" } }
    result {
      immediate { http_status: 200 }
      has_header { key: "authorization" value: "x" }
      has_header { key: "b" value: "x" }
      no_header { key: "authorization" }
      headers { regex: "[" }
      headers { }
      log { exact: "no" }
    }
  }
}
test {
  name: "not expected"
  request_headers { }
}
test {
  name: "another status"
  request_headers { result { immediate { http_status: 403 grpc_status: 3 details: "why" } } }
}
""",
        "tests.textpb",
        AUTH,
    )
    assert failing(proxywasm("test", suite, "--json")) == {
        "not what was expected": [
            "request_headers: header authorization is 'Bearer t', expected 'x'",
            "request_headers: there is no header b; expected 'x'",
            "request_headers: header authorization is 'Bearer t', expected none",
            "request_headers: '[' is not a regular expression: unterminated character set at position 0",
            "request_headers: the matcher for a header is missing: exact, regex or file",
            "request_headers: the filter does not answer, but an immediate response is expected",
            "request_headers: a log line must be exact 'no'; there is 'auth: allowed'",
        ],
        "not expected": ["request_headers: the filter answers 401, which is not expected"],
        "another status": [
            "request_headers: http_status is 401, expected 403",
            "request_headers: grpc_status is None, expected 3",
            "request_headers: details is '', expected 'why'",
        ],
    }


def test_properties_of_googles_suites(proxywasm, write, tmp_path):
    (tmp_path / "paths").write_text("request.client_region\n")
    suite = write(
        """\
env { wasm_path: "FILTER" config_path: "paths" log_level: ERROR }
test {
  name: "info is not wanted"
  request_headers { result { log { regex: ".*" invert: true } } }
}
""",
        "silent.textpb",
        str(RUST / "properties.wasm"),
    )
    assert failing(proxywasm("test", suite, "--json")) == {}
    suite.write_text(
        suite.read_text().replace("log_level: ERROR", "").replace("request_headers {", 'properties { path: "request.client_region" value: "DE" } request_headers {').replace('regex: ".*" invert: true', 'regex: ".*client_region = 4445"')
    )  # fmt: skip
    assert failing(proxywasm("test", suite, "--json")) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('test {\n  nam: "x"\n}\n', ':2: Message type "service_extensions_samples.pb.Test" has no field named "nam".'),
        ('test { name: "x" }', "env.wasm_path is missing, and no filter is given: add --filter FILTER.wasm"),
        ('env { wasm_path: "a" config_path: "no" } test { name: "x" }', "env.config_path: cannot read no: No such file"),
        ('env { wasm_path: "FILTER" } test { name: "x" request_headers { input { content: "GET x" } } }', "'GET x' is not a first line of a request in HTTP/1.1"),
        ('env { wasm_path: "FILTER" } test { name: "x" request_headers { input { content: "GET x HTTP/1.1" } } }', "'x' is not a target of a request"),
        ('env { wasm_path: "FILTER" } test { name: "x" request_headers { input { file: "no" } } }', "x: cannot read no: No such file"),
    ],
)  # fmt: skip
def test_wrong_suites_of_googles(command, write, text, said):
    result = command("test", write(text, "tests.textpb", HEADERS))
    assert (result.code, said in result.complaint) == (2, True), result.complaint


def test_the_clock_of_googles_suites_stands_still():
    from proxywasm_host.suites.service_extensions import FrozenClock

    assert (FrozenClock(7).time_ns(), FrozenClock(7).monotonic_ns()) == (7, 7)
    assert (FrozenClock(0).time_ns(), FrozenClock(0).monotonic_ns()) == (0, 1_000_000_000)

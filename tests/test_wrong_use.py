"""What is used wrongly says what was wrong and what to write: each row is one mistake, and what it is answered."""

from __future__ import annotations

import logging

import pytest

from proxywasm_host import FailurePolicy, Host, ModuleCache, Services, UnknownEngine, open_engine
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.driver.threaded import ThreadDriver
from proxywasm_host.errors import not_among
from proxywasm_host.integrations import asgi, wsgi
from proxywasm_host.runtime.effects import (
    DownstreamData,
    HttpCall,
    HttpCallReply,
    RequestBody,
    ResponseBody,
    UpstreamData,
)
from proxywasm_host.testing import Message, Recorder, exchange
from tests.support import FILTERS

HEADERS = FILTERS / "rust/headers.wasm"


@pytest.fixture
def host():
    with Host() as host:
        yield host


@pytest.fixture
def plugin(host):
    return host.load_plugin(HEADERS)


def said(error, wrong) -> str:
    with pytest.raises(error) as raised:
        wrong()
    return str(raised.value)


CHAINS = [
    (["x.wasm"], "a plugin is what Host.load_plugin returned, not 'x.wasm': write [host.load_plugin('x.wasm')]"),
    ("x.wasm", "plugins are a list of what Host.load_plugin returned, not 'x.wasm'"),
    (None, "plugins are a list of what Host.load_plugin returned, not None"),
    ([None], "a plugin is what Host.load_plugin returned, not None"),
]


@pytest.mark.parametrize(("plugins", "sentence"), CHAINS)
@pytest.mark.parametrize("use", [Host.http_stream, Host.tcp_stream, exchange])
def test_a_chain_that_is_none(host, use, plugins, sentence):
    assert said(TypeError, lambda: use(host, plugins)).startswith(sentence)


@pytest.mark.parametrize("use", [Host.http_stream, Host.tcp_stream, exchange])
def test_a_plugin_that_is_not_in_a_list(host, plugin, use):
    told = "plugins are a list: write [plugin], not <Plugin 'headers' running>"
    assert said(TypeError, lambda: use(host, plugin)) == told


HOSTS = [
    ({"engine": 3}, TypeError, "an engine is a name (one of v8, wasmer, wasmtime), not 3"),
    (
        {"engine": "wasmtim"},
        UnknownEngine,
        "no engine is called 'wasmtim'. Did you mean 'wasmtime'? There are v8, wasmer, wasmtime.",
    ),
    ({"profile": "nginx"}, LookupError, "no profile is called 'nginx'. There are envoy, spec, wasmx."),
    ({"services": {"idp"}}, TypeError, "services are Services(…), not {'idp'}"),
    ({"limits": 64}, TypeError, "limits are Limits(memory=…, deadline=…), not 64"),
    ({"listener": print}, TypeError, "a listener has the methods callback, returned and hostcall, not <built-in"),
    ({"cache": "/x"}, TypeError, "a cache is a ModuleCache(Path(…)), not '/x'"),
    ({"wake": 1}, TypeError, "wake is a function, not 1"),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), HOSTS, ids=[next(iter(row[0])) for row in HOSTS])
def test_a_host(arguments, error, sentence):
    assert said(error, lambda: Host(**arguments)).startswith(sentence)


FILTER_ARGUMENTS = [
    (
        {"failure_policy": "open"},
        ValueError,
        "no failure policy is called 'open'. Did you mean 'fail_open'? There are fail_closed, fail_open, fail_reload.",
    ),
    ({"failure_policy": None}, ValueError, "no failure policy is called None. There are fail_closed, "),
    ({"isolation": "vm"}, ValueError, "isolation is 'none', 'stream' or 'filter', not 'vm'"),
    ({"unknown_imports": "ignore"}, ValueError, "unknown_imports is 'error' or 'stub', not 'ignore'"),
    ({"engine": "v9"}, UnknownEngine, "no engine is called 'v9'. Did you mean 'v8'?"),
    ({"engine": 3}, TypeError, "an engine is a name (one of v8, wasmer, wasmtime), not 3"),
    ({"profile": "nginx"}, LookupError, "no profile is called 'nginx'. There are envoy, spec, wasmx."),
    ({"limits": "64MiB"}, TypeError, "limits are Limits(memory=…, deadline=…), not '64MiB'"),
    (
        {"configuration": {"a": 1}},
        TypeError,
        "a configuration is text or bytes, not {'a': 1}: encode it, with json.dumps",
    ),
    ({"vm_configuration": 3}, TypeError, "a configuration is text or bytes, not 3"),
    ({"name": 3}, TypeError, "a name is text, not 3"),
    ({"root_id": 3}, TypeError, "a root_id is text, not 3"),
    ({"vm_id": b"x"}, TypeError, "a vm_id is text, not b'x'"),
    ({"environment": ["A=b"]}, TypeError, "an environment is a mapping of text to text, not ['A=b']"),
    ({"environment": {"A": 1}}, TypeError, "an environment is a mapping of text to text, not {'A': 1}"),
    (
        {"capabilities": "proxy_log"},
        TypeError,
        "capabilities are names of hostcalls and callbacks: write ['proxy_log']",
    ),
    ({"reload_interval": "1s"}, TypeError, "reload_interval is a number of seconds, 0 or more, not '1s'"),
    ({"reload_interval": -1}, TypeError, "reload_interval is a number of seconds, 0 or more, not -1"),
    ({"reload_interval": float("nan")}, TypeError, "reload_interval is a number of seconds, 0 or more, not nan"),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), FILTER_ARGUMENTS)
def test_a_filter(host, arguments, error, sentence):
    assert said(error, lambda: host.load_plugin(HEADERS, **arguments)).startswith(sentence)
    assert host.plugins == []


@pytest.mark.parametrize("code", [3, None, ["x.wasm"], HEADERS.open])
def test_code_that_is_none(host, code):
    assert (
        said(TypeError, lambda: host.load_plugin(code))
        == f"a filter is the path of its file, its URL, or its bytes, not {code!r}"
    )


def test_code_may_be_in_any_buffer(host):
    assert host.load_plugin(bytearray(HEADERS.read_bytes()), name="a").failure is None
    assert host.load_plugin(memoryview(HEADERS.read_bytes()), name="b").failure is None


def test_a_directory_of_compiled_modules_may_be_text(tmp_path):
    with Host("wasmtime", cache=ModuleCache(str(tmp_path / "cache"))) as host:
        host.load_plugin(HEADERS)
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("limit", ["1MiB", 1.5, -1, None])
@pytest.mark.parametrize("use", [Host.http_stream, Host.tcp_stream, exchange])
def test_how_much_filters_may_hold(host, use, limit):
    told = f"buffer_limit is a number of bytes, 0 or more, such as 1 << 20, not {limit!r}"
    assert said(TypeError, lambda: use(host, [], buffer_limit=limit)) == told


@pytest.mark.parametrize("limit", [0, 1 << 70, True])
def test_how_much_filters_may_hold_at_the_edges(host, limit):
    assert exchange(host, [], buffer_limit=limit).client_response.status == 200


CLUSTERS = [
    (
        lambda: Clusters("idp"),
        TypeError,
        "clusters are a mapping of names to URLs: {'idp': 'https://idp.example'}, not 'idp'",
    ),
    (
        lambda: Clusters(["idp"]),
        TypeError,
        "clusters are a mapping of names to URLs: {'idp': 'https://idp.example'}, not [",
    ),
    (lambda: Clusters({"idp": 3}), TypeError, "clusters are URLs or Clusters by name, not 'idp': 3"),
    (lambda: Cluster(3), TypeError, "a cluster's URL is text, https://idp.example for example, not 3"),
    (lambda: Cluster("idp"), ValueError, "a cluster's URL is http(s)://host[:port] without a path, not 'idp'"),
    (lambda: Cluster("http://x", timeout="1s"), TypeError, "timeout of a cluster is a number, not '1s'"),
    (lambda: Cluster("http://x", timeout=0), ValueError, "timeout of a cluster is more than 0, not 0"),
    (
        lambda: Cluster("http://x", connect_timeout=None),
        TypeError,
        "connect_timeout of a cluster is a number, not None",
    ),
    (lambda: Cluster("http://x", max_response=-1), ValueError, "max_response of a cluster is more than 0, not -1"),
]


@pytest.mark.parametrize(("wrong", "error", "sentence"), CLUSTERS)
def test_where_callouts_go(wrong, error, sentence):
    assert said(error, wrong).startswith(sentence)


@pytest.mark.parametrize("driver", [AsyncDriver, ThreadDriver])
def test_a_driver(host, driver):
    assert said(TypeError, lambda: driver("host")) == "a driver is for one host, not 'host'"
    for clients in ([print], {"HttpCall": print}, {HttpCall: "client"}):
        told = f"clients are functions by the type of callout, {{RedisCall: my_client}}, not {clients!r}"
        assert said(TypeError, lambda clients=clients: driver(host, clients)) == told


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"), [row for row in FILTER_ARGUMENTS if "engine" not in row[0]]
)
def test_a_filter_that_is_written_down(arguments, error, sentence):
    assert said(error, lambda: Filter(HEADERS, **arguments)).startswith(sentence)


@pytest.mark.parametrize("middleware", [asgi.ProxyWasmMiddleware, wsgi.ProxyWasmMiddleware])
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"), [row for row in HOSTS if {"profile", "listener"} & {*row[0]}]
)
def test_a_middleware(middleware, arguments, error, sentence):
    assert said(error, lambda: middleware(print, [HEADERS], **arguments)).startswith(sentence)


SERVICES = [
    ({"clusters": "idp"}, "clusters are names: write {'idp'}, a set, not 'idp'"),
    ({"log": print}, "log is StandardLogging(), or an object with log(line) and level, not <built-in"),
    ({"log": logging.getLogger("x")}, "log is StandardLogging(), or an object with log(line) and level, not <Logger x"),
    ({"clock": 3}, "clock is SystemClock(), not 3"),
    ({"metrics": {}}, "metrics is InMemoryMetrics(), not {}"),
    ({"shared_data": 3}, "shared_data is InMemorySharedData(), not 3"),
    ({"shared_queues": []}, "shared_queues is InMemorySharedQueues(), not []"),
]


@pytest.mark.parametrize(("arguments", "sentence"), SERVICES, ids=[next(iter(row[0])) for row in SERVICES])
def test_services(arguments, sentence):
    assert said(TypeError, lambda: Services(**arguments)).startswith(sentence)


def test_what_listens_and_what_serves_is_checked_later_too(host):
    assert (
        said(TypeError, lambda: host.listen(3)) == "a listener has the methods callback, returned and hostcall, not 3"
    )
    assert said(TypeError, lambda: host.use(3)) == "services are Services(…), not 3"
    assert said(TypeError, lambda: open_engine(3)).startswith("an engine is a name")
    assert said(ValueError, lambda: FailurePolicy("closed")).startswith(
        "no failure policy is called 'closed'. Did you mean"
    )


URL = "http://example.com/"
PAIRS = "headers are a list of (name, value) pairs"
REQUESTS = [
    ((URL, "GET"), ValueError, f"the method comes first: write Message.request('GET', '{URL}')"),
    ((URL,), ValueError, f"'{URL}' is not a method: those are GET, POST and the like; the URL comes after it"),
    (("",), ValueError, "'' is not a method"),
    ((b"GET",), TypeError, "a method is text, not b'GET': write Message.request('GET', 'http://example.com/')"),
    (("GET", 3), TypeError, "a URL is text, not 3: write Message.request('GET', 'http://example.com/')"),
    (("GET", ""), ValueError, "'' is not a URL: it is empty"),
    (
        ("GET", "ftp://x/"),
        ValueError,
        "'ftp://x/' is not a URL of HTTP: write it as http://HOST/PATH, https://HOST/PATH, or /PATH alone",
    ),
    (("GET", "http:///p"), ValueError, "'http:///p' is not a URL: it names no host"),
    (("GET", "http://[::1/"), ValueError, "'http://[::1/' is not a URL: Invalid IPv6 URL"),
    (("GET", "http://x:port/"), ValueError, "'http://x:port/' is not a URL: Port could not be cast"),
    (("GET", "http://x:70000/"), ValueError, "'http://x:70000/' is not a URL: Port out of range"),
    (("GET", URL, {"a": "b"}), TypeError, f"{PAIRS}, for a name may come twice: write list(….items()), not a mapping"),
    (("GET", URL, "a: b"), TypeError, f"{PAIRS}, not 'a: b'"),
    (("GET", URL, None), TypeError, f"{PAIRS}, not None"),
    (("GET", URL, ["a: b"]), TypeError, "headers are (name, value) pairs of text or bytes, not 'a: b': write ('x-"),
    (("GET", URL, [("a", 1)]), TypeError, "headers are (name, value) pairs of text or bytes, not ('a', 1)"),
    (("GET", URL, [("a",)]), TypeError, "headers are (name, value) pairs of text or bytes, not ('a',)"),
    (("GET", URL, [], b"body"), TypeError, "a body is a list of parts, not b'body': write [b'…'], even for one part"),
    (("GET", URL, [], "body"), TypeError, "a body is a list of parts, not 'body'"),
    (("GET", URL, [], ["body"]), TypeError, "a part of a body is bytes, not 'body': write b'…', or encode it"),
    (
        ("GET", URL, [], [], {"a": "b"}),
        TypeError,
        "trailers are a list of (name, value) pairs, for a name may come twice",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), REQUESTS)
def test_a_request(arguments, error, sentence):
    assert said(error, lambda: Message.request(*arguments)).startswith(sentence)


RESPONSES = [
    (("200",), TypeError, "a status is a number, not '200': write Message.response(200, …)"),
    (({"a": "b"},), TypeError, "a status is a number, not {'a': 'b'}"),
    ((99,), ValueError, "99 is not a status: those are from 100 to 999"),
    ((1000,), ValueError, "1000 is not a status"),
    ((200, {"a": "b"}), TypeError, f"{PAIRS}, for a name may come twice"),
    ((200, [], "body"), TypeError, "a body is a list of parts, not 'body'"),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), RESPONSES)
def test_a_response(arguments, error, sentence):
    assert said(error, lambda: Message.response(*arguments)).startswith(sentence)


GET, OK = Message.request(), Message.response()
EXCHANGES = [
    (
        (URL,),
        {},
        TypeError,
        f"the request is a Message, not '{URL}': write Message.request('GET', 'http://example.com/')",
    ),
    ((GET, 200), {}, TypeError, "the response is a Message, not 200: write Message.response(200)"),
    ((OK,), {}, ValueError, "the request has :status: the request comes before the response"),
    ((GET, GET), {}, ValueError, "the response has :method: the request comes before the response"),
    ((), {"recorder": print}, TypeError, "a recorder is a Recorder(), not <built-in"),
    (
        (),
        {"callouts": {"idp"}},
        TypeError,
        "callouts are replies by cluster, not {'idp'}: write {'cluster': HttpCallReply",
    ),
    (
        (),
        {"callouts": {"idp": 200}},
        TypeError,
        (
            "cluster 'idp' answers with a reply, a list of them, or a function that makes them, not 200: "
            "write HttpCallReply([(b':status', b'200')], b'body')"
        ),
    ),
    ((), {"callouts": {"idp": ["no"]}}, TypeError, "cluster 'idp' answers with a reply, a list of them"),
    ((), {"ticks": "1"}, TypeError, "ticks are a number, not '1'"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "sentence"), EXCHANGES)
def test_an_exchange(host, arguments, options, error, sentence):
    assert said(error, lambda: exchange(host, [], *arguments, **options)).startswith(sentence)


def test_an_exchange_without_its_host(plugin):
    told = "the host comes first, not <Plugin 'headers' running>: write exchange(host, [plugin], …)"
    assert said(TypeError, lambda: exchange(plugin, [])) == told


@pytest.mark.parametrize("headers", [None, 3])
def test_headers_that_are_none(host, headers):
    told = f"headers are a list of (name, value) pairs of bytes, not {headers!r}"
    assert said(TypeError, lambda: host.http_stream([]).request_headers(headers)) == told


@pytest.mark.parametrize("callout", [3, None, "idp"])
def test_a_reply_to_nothing(host, callout):
    told = f"deliver accepts a callout (HttpCall, …) and then its reply, not {callout!r}"
    assert said(TypeError, lambda: host.deliver(callout, HttpCallReply([]))) == told


def test_a_reply_that_comes_first(host):
    told = "deliver accepts a callout (HttpCall, …) and then its reply, not HttpCallReply("
    assert said(TypeError, lambda: host.deliver(HttpCallReply([]), None)).startswith(told)


def test_a_recorder():
    assert (
        said(TypeError, lambda: Recorder("info")) == "a level is a LogLevel, not 'info': write Recorder(LogLevel.INFO)"
    )


# -- What a reader sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [RequestBody, ResponseBody, DownstreamData, UpstreamData])
def test_a_body_is_shown_in_part(effect):
    assert repr(effect(b"abc", True, None)) == f"{effect.__name__}(data=b'abc', end_stream=True)"
    assert (
        repr(effect(b"x" * 100_000, False, None))
        == f"{effect.__name__}(data={b'x' * 80!r}… (100000 bytes), end_stream=False)"
    )


def test_streams_tell_their_filters(host, plugin):
    streams = [make([plugin]) for make in (host.http_stream, host.tcp_stream)]
    assert list(map(repr, streams)) == ["<HttpStream open, through 'headers'>", "<TcpStream open, through 'headers'>"]
    for stream in streams:
        stream.close()
    assert list(map(repr, streams)) == [
        "<HttpStream closed, through 'headers'>",
        "<TcpStream closed, through 'headers'>",
    ]
    assert repr(host.http_stream([])) == "<HttpStream open, through no filter>"


def test_a_cache_tells_where_it_is(tmp_path):
    assert repr(ModuleCache(tmp_path)) == f"<ModuleCache in {tmp_path}>"
    assert repr(ModuleCache(None)) == "<ModuleCache in no directory>"


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ([], "no upstream is called 'wbe'. There is none."),
        (["web"], "no upstream is called 'wbe'. Did you mean 'web'? There is web."),
        (["web", "api"], "no upstream is called 'wbe'. Did you mean 'web'? There are web, api."),
    ],
)
def test_a_name_that_is_not_known(known, sentence):
    assert not_among("upstream", "wbe", known) == sentence

"""The stream of a gateway: plugins in their phases, then filters, on every engine. The plugins are Python's own."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from proxywasm_host import Host, Services
from proxywasm_host.kong.config import read
from proxywasm_host.kong.context import Exit
from proxywasm_host.kong.exchange import through
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.plugin import (
    PHASES,
    EffectFailed,
    HttpRequest,
    PluginFailed,
    ReadRequestBody,
    Sleep,
    StartTimer,
)
from proxywasm_host.kong.stream import ROUTING_HEADER, KongStream
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import CalloutFailed, CancelCallout, HttpCallReply
from proxywasm_host.testing import Message
from tests.support import code

REQUEST = [(b":authority", b"example.com"), (b":path", b"/api/x?q=1"), (b":method", b"GET"), (b":scheme", b"http"), (b"user-agent", b"t")]
RESPONSE = [(b":status", b"200"), (b"server", b"up")]
FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example:8080/base
  plugins: [{name: one}, {name: two, config: {here: true}}]
  filter_chains: [{filters: [{name: f}]}]
  routes:
  - {name: api, paths: [/api]}
- {name: pool, host: pool.internal}
routes:
- {name: alone, paths: [/alone], plugins: [{name: one}]}
- {name: secret, paths: [/secret], service: api, protocols: [https]}
- {name: moved, paths: [/moved], service: api, protocols: [https], https_redirect_status_code: 308}
- {name: pool, paths: [/pool], service: pool}
- {name: pool as it is, paths: [/pool/as/it/is], service: pool, preserve_host: true}
upstreams: [{name: pool.internal, host_header: 'named.example:81', targets: [{target: 10.0.0.9}]}]
plugins: [{name: everywhere}]
"""


class PythonPlugin:
    """A plugin whose phases are functions, generators or not; `seen` has what runs, in order."""

    version = "1"

    def __init__(self, name, priority, seen, **functions):
        self.name, self.priority, self._seen, self._functions = name, priority, seen, functions
        self.phases = frozenset(functions) & set(PHASES)

    def check(self, config):
        return dict(config)

    def run(self, phase, context, config):
        self._seen.append(f"{self.name}: {phase}")
        result = self._functions[phase](context, config)
        if result is not None:
            yield from result


def note(*_):
    return None


@pytest.fixture
def seen():
    return []


@pytest.fixture
def gateway(engine, tmp_path, log, seen):
    """Make a gateway: plugins by name, as keyword arguments of phases; `script` is that of its filter."""
    file = tmp_path / "kong.yaml"
    file.write_text(FILE)
    hosts = []

    def make(script="", **functions):
        host = Host(engine, profile="wasmx", services=Services(log=log))
        hosts.append(host.__enter__())
        configuration = read(file)
        given = {"everywhere": {"log": note}, "one": {"access": note}, "two": {"access": note}, **functions}
        priorities = {"everywhere": 1, "one": 1000, "two": 10}
        plugins = {name: PythonPlugin(name, priorities[name], seen, **phases) for name, phases in given.items()}
        f = host.load_plugin(code("c/probe_0_2_1"), configuration=script, name="f")
        service = configuration.of("services")[0]["id"]
        return Gateway(host, configuration, plugins, {service: [f]})

    yield make
    for host in hosts:
        host.__exit__(None, None, None)


def stream(gateway):
    return KongStream(gateway, properties={"source.address": "10.0.0.1:4000"})


def parts(effects):
    return [(e.data if hasattr(e, "data") else dict(e.headers)[b":status" if b":status" in dict(e.headers) else b":path"], e.end_stream) for e in effects if hasattr(e, "end_stream")]


def test_plugins_by_priority_then_filters_then_upstream(gateway, seen, log):
    phases = dict.fromkeys(("rewrite", "access", "header_filter", "body_filter", "log"), note)
    made = gateway("@on_request_headers\nsay filter, request\n@on_response_headers\nsay filter, response", one=phases, two=phases, everywhere=phases)
    with stream(made) as request:
        [head] = request.request_headers(REQUEST, True)
        assert dict(head.headers)[b":path"] == b"/base/x?q=1"
        assert dict(head.headers)[b":authority"] == b"up.example:8080"
        assert dict(head.headers)[ROUTING_HEADER] == made.configuration.of("services")[0]["id"].encode()
        assert parts(request.response_headers(RESPONSE)) == [(b"200", False)]
        assert parts(request.response_body(b"hi", True)) == [(b"hi", True)]
    assert seen == [
        "everywhere: rewrite",
        *(f"{name}: {phase}" for phase in ("access", "header_filter", "body_filter", "log") for name in ("one", "two", "everywhere")),
    ]
    assert log.messages == ["filter, request", "filter, response"]


def test_what_upstream_is_told_of_the_client(gateway):
    with stream(gateway()) as request:
        [head] = request.request_headers([*REQUEST, (b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-host", b"evil")], True)
    told = {name: value for name, value in head.headers if name.startswith((b"x-forwarded", b"x-real"))}
    assert told == {
        b"x-forwarded-for": b"1.2.3.4, 10.0.0.1",
        b"x-real-ip": b"10.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"example.com",
        b"x-forwarded-port": b"80",
        b"x-forwarded-path": b"/api/x",
        b"x-forwarded-prefix": b"/api",
    }


def test_an_exit_in_access_ends_the_request_before_any_filter(gateway, seen, log):
    def exit(context, config):
        context.exit = Exit(403, [(b"x", b"y")], b"no")

    def header_filter(context, config):
        context.response.headers.set("x-by", f"{context.response.source} {context.response.status}")

    made = gateway("@on_request_headers\nsay filter\n@on_response_headers\nsay filter", one={"access": exit}, everywhere={"header_filter": header_filter})
    with stream(made) as request:
        out = request.request_headers(REQUEST, True)
    assert parts(out) == [(b"403", False), (b"no", True)]
    assert {(b"x", b"y"), (b"x-by", b"exit 403")} <= set(out[0].headers)
    assert seen == ["one: access", "everywhere: header_filter"]
    assert log.messages == []


@pytest.mark.parametrize(("path", "status", "message"), [(b"/none", b"404", b"no Route matched"), (b"/alone", b"503", b"no Service found"), (b"/secret", b"426", b"Please use HTTPS")])
def test_what_the_gateway_answers_itself(gateway, path, status, message):
    with stream(gateway()) as request:
        head, body = request.request_headers([REQUEST[0], (b":path", path), *REQUEST[2:]], True)
    assert parts([head]) == [(status, False)]
    assert message in body.data
    assert (b"content-type", b"application/json; charset=utf-8") in head.headers


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)], ids=["client", "trusted proxy"])
def test_http_on_a_route_of_https_is_redirected_unless_a_proxy_has_ended_tls(gateway, trusted):
    made = gateway()
    made._trusted = [ip_network(each) for each in trusted]
    request = [REQUEST[0], (b":path", b"/moved/a%20b?q=1"), *REQUEST[2:], (b"x-forwarded-proto", b"https")]
    with stream(made) as moved:
        [head] = moved.request_headers(request, True)
    if trusted:
        assert (b":path", b"/base/a%20b?q=1") in head.headers
    else:
        assert dict(head.headers).items() >= {b":status": b"308", b"location": b"https://example.com/moved/a%20b?q=1"}.items()


@pytest.mark.parametrize(("path", "host"), [(b"/pool", b"named.example:81"), (b"/pool/as/it/is", b"example.com")])
def test_the_host_that_an_upstream_is_told(gateway, path, host):
    with stream(gateway()) as request:
        [head] = request.request_headers([REQUEST[0], (b":path", path), *REQUEST[2:]], True)
    assert dict(head.headers)[b":authority"] == host


def test_one_whole_request_whose_plugins_are_answered(gateway):
    def ask(context, config):
        yield Sleep(3600)
        for name in ("idp.example:81", "none.example"):
            try:
                reply = yield HttpRequest("GET", f"http://{name}/check")
                context.request.headers.set(f"x-{name[:3]}", f"{reply.status} {dict(reply.headers)[b'x'].decode()} {reply.body.decode()}")
            except EffectFailed as failure:
                context.request.headers.set(f"x-{name[:3]}", str(failure))

    made = gateway("@on_request_headers\nadd_header_map_value 0 x-filter yes", one={"access": ask})
    idp = HttpCallReply([(b":status", b"203"), (b"x", b"y")], b"ok")
    result = through(made, Message.request("GET", "http://example.com/api/x"), Message.response(201, chunks=[b"hi"]), callouts={"idp.example:81": idp})
    came = dict(result.upstream_request.headers)
    assert [came[name] for name in (b":path", b"x-idp", b"x-non", b"x-filter")] == [b"/base/x", b"203 y ok", b"connection refused", b"yes"]
    assert (result.client_response.first(b":status"), result.client_response.body) == (b"201", b"hi")


def test_a_plugin_that_fails_is_500_and_its_error_is_logged(gateway, caplog):
    def fail(context, config):
        raise PluginFailed("handler.lua:3: attempt to index a nil value")

    with stream(gateway(one={"access": fail})) as request:
        head, body = request.request_headers(REQUEST, True)
    assert (parts([head]), b"An unexpected error occurred" in body.data) == ([(b"500", False)], True)
    assert caplog.messages == ["plugin one failed in access: handler.lua:3: attempt to index a nil value"]


def test_a_plugin_that_fails_on_a_response_is_left_out(gateway, caplog):
    def fail(context, config):
        raise PluginFailed("no")

    with stream(gateway(one={"header_filter": fail})) as request:
        request.request_headers(REQUEST, True)
        assert parts(request.response_headers(RESPONSE, True)) == [(b"200", True)]
    assert caplog.messages == ["plugin one failed in header_filter: no"]


def test_a_plugin_that_waits_is_resumed_with_the_reply(gateway):
    got = []

    def wait(context, config):
        got.append((yield Sleep(1.0)))
        try:
            yield Sleep(2.0)
        except EffectFailed as failure:
            got.append(str(failure))

    made = gateway(one={"access": wait})
    with stream(made) as request:
        [callout] = request.request_headers(REQUEST, True)
        assert (type(callout), callout.effect) == (PluginCallout, Sleep(1.0))
        assert request.waiting_for == "plugin 'one' in access"
        [again] = made.host.deliver(callout, Answer("now"))
        assert parts(made.host.deliver(again, CalloutFailed("timeout"))) == [(b"/base/x?q=1", True)]
    assert got == ["now", "timeout"]


def test_a_client_that_leaves_cancels_what_its_plugin_waits_for(gateway):
    def wait(context, config):
        yield Sleep(1.0)

    made = gateway(one={"access": wait})
    request = stream(made)
    [callout] = request.request_headers(REQUEST, True)
    [cancelled] = request.close("downstream_remote_disconnect")
    assert (type(cancelled), cancelled.token) == (CancelCallout, callout.token)
    assert made.host.deliver(callout, Answer()) == []


def test_a_plugin_reads_and_replaces_the_body(gateway):
    def body(context, config):
        text = yield ReadRequestBody()
        context.request.body = text.upper() + b"!"

    with stream(gateway(one={"access": body})) as request:
        assert request.request_headers([*REQUEST[:2], (b":method", b"POST"), REQUEST[3], (b"content-length", b"4")]) == []
        assert request.request_body(b"ab") == []
        out = request.request_body(b"cd", True)
    assert parts(out) == [(b"/base/x?q=1", False), (b"ABCD!", True)]
    assert dict(out[0].headers)[b"content-length"] == b"5"


def test_response_gets_the_whole_body_and_may_exit(gateway, seen):
    def respond(context, config):
        assert context.service_response.status == 200
        context.exit = Exit(502, [], context.response.body[::-1])

    with stream(gateway(two={"response": respond})) as request:
        request.request_headers(REQUEST, True)
        assert request.response_headers(RESPONSE) == []
        assert request.response_body(b"ab") == []
        assert parts(request.response_body(b"cd", True)) == [(b"502", False), (b"dcba", True)]


def test_one_shared_context_for_plugins_and_filters(gateway, log):
    def share(context, config):
        context.shared["who"] = "plugin"

    def read_back(context, config):
        context.response.headers.set("x-shared", context.shared["back"])

    script = "@on_request_headers\nget_property kong%00ctx%00shared%00who\nset_property kong.ctx.shared.back filter\nget_property kong.router.route%00x\nget_property kong.route_name\nget_property ngx.uri"
    with stream(gateway(script, one={"access": share, "header_filter": read_back})) as request:
        request.request_headers(REQUEST, True)
        [head] = request.response_headers(RESPONSE, True)
    assert (b"x-shared", b"filter") in head.headers
    assert [line.partition(" = ")[2] for line in log.messages] == ['0 "plugin"', "0", "1", '0 "api"', '0 "/api/x"']


def test_a_filter_chooses_the_target_and_the_status(gateway):
    script = "@on_request_headers\nset_property kong.service.target other:9000\nset_property kong.service.request.scheme https\n@on_response_headers\nset_property kong.response.status 418"
    with stream(gateway(script)) as request:
        [head] = request.request_headers(REQUEST, True)
        assert dict(head.headers)[ROUTING_HEADER] == b"https://other:9000"
        assert parts(request.response_headers(RESPONSE, True)) == [(b"418", True)]


def test_a_filters_local_response_passes_the_plugins(gateway, seen):
    made = gateway('@on_request_headers\nsend_local_response 401 "" who "" -1\nreturn 1', one={"header_filter": note, "body_filter": note})
    with stream(made) as request:
        assert parts(request.request_headers(REQUEST, True)) == [(b"401", False), (b"who\n", True)]
    assert seen == ["two: access", "one: header_filter", "one: body_filter", "everywhere: log"]


def test_a_body_filter_changes_each_part(gateway):
    def upper(context, config):
        context.response.body = context.response.body.upper()

    with stream(gateway(one={"body_filter": upper})) as request:
        request.request_headers(REQUEST, True)
        [head] = request.response_headers([*RESPONSE, (b"content-length", b"3")])
        assert b"content-length" not in dict(head.headers)
        assert parts(request.response_body(b"ab")) == [(b"AB", False)]
        assert parts(request.response_body(b"c", True)) == [(b"C", True)]


def test_a_timer_outlives_its_request(gateway):
    ran = []

    def later():
        yield Sleep(0.0)
        ran.append("timer")

    def start(context, config):
        yield StartTimer(5.0, later())

    made = gateway(everywhere={"log": start})
    request = stream(made)
    request.request_headers(REQUEST, True)
    request.response_headers(RESPONSE, True)
    [first] = request.close()
    assert first.effect == Sleep(5.0)
    [second] = made.host.deliver(first, Answer())
    made.host.deliver(second, Answer())
    assert ran == ["timer"]


def test_the_consumer_that_a_plugin_finds_chooses_configurations(gateway, tmp_path):
    file = Path(tmp_path / "kong.yaml")
    file.write_text(FILE + "consumers:\n- {username: bob, plugins: [{name: two, config: {for: bob}}]}\n")
    got = []

    def who(context, config):
        context.consumer = next(each for each in context.entities["consumers"] if each["username"] == "bob")

    made = gateway(one={"access": who}, two={"access": lambda _, config: got.append(config)})
    with stream(made) as request:
        request.request_headers(REQUEST, True)
    assert got == [{"for": "bob"}]

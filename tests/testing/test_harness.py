"""Filters under test: what a test says of the world, and what it then sees, on every engine."""

from __future__ import annotations

import pytest

from proxywasm_host import PluginError
from proxywasm_host.testing import (
    FAIL,
    NEVER,
    GrpcStatus,
    Harness,
    Headers,
    RedisError,
    RedisStatus,
    Request,
    Response,
    fake_redis,
    later,
    sse,
)
from proxywasm_host.testing.callouts import resp
from tests.support import FILTERS

AUTH, GRPC = FILTERS / "rust" / "auth.wasm", FILTERS / "rust" / "grpc.wasm"
SECRET = {"authorization": "Bearer secret"}


def probe(harness, script, **options):
    return harness(FILTERS / "c" / "probe_0_2_1.wasm", script, **options)


@pytest.fixture
def harness(engine):
    with Harness(engine) as harness:
        yield harness


# -- One request -------------------------------------------------------------------------------------------------------


def test_a_filter_answers_itself(harness):
    auth = harness(AUTH, "secret")
    outcome = auth.get("/x")
    assert outcome.upstream is None
    assert outcome.response == Response(
        401,
        {"www-authenticate": 'Bearer realm="proxy-wasm"', "content-type": "text/plain", "content-length": "13"},
        "unauthorized\n",
    )
    assert outcome.logs.info == ["auth: denied with 401"]
    assert harness.metrics == {"auth.allowed": 0, "auth.denied": 1}


def test_a_request_reaches_upstream_and_is_answered(harness):
    auth = harness(AUTH, "secret")
    auth.upstream = lambda request: Response(201, {"x-path": request.path}, "made")
    outcome = auth.post("/x?y", SECRET, "body")
    assert outcome.upstream == Request("POST", "/x?y", SECRET, "body")
    assert outcome.response == Response(201, {"x-path": "/x?y"}, "made")
    assert (outcome.status, outcome.local_response, outcome.paused) == (201, None, {})


def test_upstream_answers_in_turn_and_no_more(harness):
    auth = harness(AUTH, "secret")
    auth.upstream = [200, Response(404)]
    assert [auth.get("/", SECRET).status for _ in range(2)] == [200, 404]
    with pytest.raises(AssertionError, match="upstream has 2 answers, and was asked once more"):
        auth.get("/", SECRET)


def test_upstream_breaks_off_or_never_answers(harness):
    auth = harness(AUTH, "secret")
    auth.upstream = FAIL
    assert auth.get("/", SECRET).status == 503
    auth.upstream = NEVER
    assert auth.get("/", SECRET).response is None
    auth.upstream = later(5, 204)
    outcome = auth.get("/", SECRET)
    assert (outcome.status, outcome.took) == (204, 5.0)


@pytest.mark.parametrize("parts", [{"chunks": [b"ab", b"c"]}, {"body": "abc", "chunk_size": 2}])
def test_a_body_comes_in_chosen_chunks(harness, parts):
    filter = probe(harness, "@on_request_body\nget_buffer_bytes 0 0 100")
    outcome = filter.request("POST", trailers={"x-sum": "3"}, **parts)
    assert outcome.logs.info == ['get_buffer_bytes(0, 0, 100) = 0 "ab"', 'get_buffer_bytes(0, 0, 100) = 0 "c"']
    assert outcome.upstream.chunks == [b"ab", b"c"]
    assert outcome.upstream.trailers == {"x-sum": "3"}


def test_a_stream_of_events_is_cut_anywhere(harness):
    filter = probe(harness, "@on_response_body\nget_buffer_status 1")
    filter.upstream = sse({"delta": "Hé"}, {"delta": "llo"}, chunk_size=7)
    outcome = filter.get()
    assert outcome.response.text == 'data: {"delta": "H\\u00e9"}\n\ndata: {"delta": "llo"}\n\ndata: [DONE]\n\n'
    assert [len(chunk) for chunk in outcome.response.chunks][:3] == [7, 7, 7]
    assert outcome.response.headers["content-type"] == "text/event-stream"


def test_events_are_read_as_they_are_written():
    events = ["one", {"two": 2}, [3]]
    assert sse(*events, chunk_size=5).events() == [*events, "[DONE]"]
    assert Response(body=b"event: x\r\ndata:one\r\ndata: two\r\n\r\n: nothing\n\n").events() == ["one\ntwo"]


def test_a_body_of_json(harness):
    auth = harness(AUTH, "secret")
    auth.upstream = Response(json={"b": 2})
    outcome = auth.post("/", SECRET, json={"a": 1}, chunk_size=4)
    assert outcome.upstream == Request("POST", "/", {**SECRET, "content-type": "application/json"}, '{"a": 1}')
    assert [len(chunk) for chunk in outcome.upstream.chunks] == [4, 4]
    assert outcome.response.json() == {"b": 2}
    assert Request("POST", headers={"content-type": "text/json"}, json=[]).headers == {"content-type": "text/json"}
    with pytest.raises(TypeError, match="give a body only once, as body=, chunks= or json="):
        Response(200, body="a", json=1)


def test_properties_are_given_and_are_set(harness):
    filter = probe(harness, "@on_request_headers\nget_property source%00address\nset_property mine yours")
    outcome = filter.get(properties={"source.address": "10.0.0.1:99"})
    assert outcome.logs.info[0] == 'get_property(source%00address) = 0 "10.0.0.1:99"'
    assert outcome.properties == {"mine": b"yours"}


def test_a_configuration_is_json_unless_it_is_text(harness):
    filter = probe(harness, "@on_configure\nget_buffer_bytes 7 0 9")
    assert filter.logs.info == ['get_buffer_bytes(7, 0, 9) = 0 "@on_confi"']
    with pytest.raises(PluginError, match="refused its configuration"):
        harness(AUTH, "")
    assert harness(AUTH, {"a": 1}).get("/", {"authorization": 'Bearer {"a": 1}'}).status == 200


def test_a_guest_that_fails(harness):
    filter = probe(harness, "@on_request_headers\ntrap")
    outcome = filter.get()
    assert (outcome.status, outcome.failure.callback) == (503, "proxy_on_request_headers")
    assert harness.failures == [filter.failure]


# -- Callouts ----------------------------------------------------------------------------------------------------------


def test_a_callout_is_answered_by_a_function(harness):
    auth = harness(AUTH, "callout:idp")
    auth.http["idp"] = lambda call: 200 if call.request.headers.get("authorization") == "Bearer secret" else 403
    assert [auth.get("/", headers).status for headers in (SECRET, {})] == [200, 403]
    (asked, _) = auth.callouts
    assert asked.request == Request("GET", "http://idp/check", SECRET)
    assert (asked.kind, asked.cluster, asked.timeout, asked.answered) == ("http", "idp", 1.0, True)


@pytest.mark.parametrize(
    ("answer", "status", "took", "message"),
    [
        (Response(200, body="yes"), 200, 0.0, "answered 200 yes"),
        (later(0.5, 200), 200, 0.5, "answered 200"),
        (later(2, 200), 403, 1.0, "no answer"),
        (NEVER, 403, 1.0, "no answer"),
        (FAIL, 403, 0.0, "no answer"),
        ([200], 200, 0.0, "answered 200"),
    ],
)
def test_answers_of_all_kinds(harness, answer, status, took, message):
    auth = harness(AUTH, "callout:idp")
    auth.http["idp"] = answer
    outcome = auth.get()
    assert (outcome.status, outcome.took) == (status, took)
    assert message in outcome.logs


def test_a_cluster_that_nobody_answers_for_is_refused(harness):
    outcome = harness(AUTH, "callout:idp").get()
    assert outcome.status == 403
    assert "cannot ask idp" in outcome.logs
    assert "BAD_ARGUMENT" in outcome.refused[0]


def test_callouts_are_answered_by_hand_in_another_order(harness):
    auth = harness(AUTH, "callout:idp")
    auth.http["idp"] = NEVER
    with auth.stream("GET", "/a") as a, auth.stream("GET", "/b") as b:
        a.request_headers(end_stream=True)
        b.request_headers(end_stream=True)
        assert a.result.paused == {"request": "auth"}
        first, second = auth.callouts
        second.reply(200)
        assert (a.request_is_out, b.request_is_out) == (False, True)
        first.reply(403)
        b.respond(Response(200, body="b"))
    assert (a.result.status, b.result.status) == (403, 200)
    assert (a.result.callouts, b.result.callouts) == ([first], [second])
    assert "denied" in a.result.logs
    assert "denied" not in b.result.logs


def test_grpc_is_answered_by_service_and_method(harness):
    filter = harness(GRPC, "limits,rate.Limit,Check,hello")
    filter.grpc["limits"] = GrpcStatus(12, "another")
    filter.grpc["limits", "rate.Limit", "Check"] = lambda call: b"to " + call.message
    outcome = filter.get()
    assert outcome.upstream.headers["x-grpc-status"] == "0"
    assert "to hello" in outcome.logs
    del filter.grpc["limits", "rate.Limit", "Check"]
    assert filter.get().upstream.headers["x-grpc-status"] == "12"


def test_a_grpc_stream_is_a_conversation(harness):
    filter = harness(GRPC, "stream:limits,rate.Limit,Watch,hello")
    filter.grpc["limits"] = [b"one", [b"two", GrpcStatus(0)]]
    outcome = filter.get()
    assert outcome.upstream.headers["x-grpc-status"] == "0"
    assert [callout.kind for callout in outcome.callouts] == ["grpc stream"]


def test_values_of_redis_as_the_filter_gets_them():
    assert resp(["a", 1, None, RedisStatus("OK"), RedisError("ERR no")]) == b"*5\r\n$1\r\na\r\n:1\r\n$-1\r\n+OK\r\n-ERR no\r\n"


def test_redis_is_answered(harness):
    script = """@on_request_headers
redis_init cache "" "" 1000
redis_call cache *2%0d%0a$3%0d%0aGET%0d%0a$1%0d%0ak%0d%0a
@on_redis_call_response
get_buffer_bytes 9 0 100"""
    filter = harness(FILTERS / "c" / "probe_0_2_100.wasm", script)
    filter.redis["cache"] = lambda call: {b"k": "value"}[call.command[1]]
    outcome = filter.get()
    (call,) = filter.callouts
    assert (call.kind, call.command) == ("redis", [b"GET", b"k"])
    assert '"$5%0d%0avalue%0d%0a"' in outcome.logs


def commands(*commands):
    """A script for the probe that sends these commands to Redis, one after the other."""
    calls = ["redis_call cache " + resp(command.split()).decode().replace("\r\n", "%0d%0a") for command in commands]
    return "\n".join(["@on_request_headers", 'redis_init cache "" "" 1000', *calls, "@on_redis_call_response", "get_buffer_bytes 9 0 100"])


def answers(outcome):
    return [line.split(" = 0 ")[1].strip('"').replace("%0d%0a", " ").strip() for line in outcome.logs.info if "get_buffer" in line]


def test_a_redis_that_remembers(harness):
    lines = commands("SET k v EX 10", "GET k", "INCR n", "INCRBY n 5", "EVAL return{KEYS[1],7} 1 k", "LPUSH n 1", "HGETALL none", "GET none")
    filter = harness(FILTERS / "c" / "probe_0_2_100.wasm", lines)
    filter.redis["cache"] = fake_redis(harness.clock)
    told = answers(filter.get())
    assert told[:4] == ["+OK", "$1 v", ":1", ":6"]
    assert told[4:] == ["*2 $1 k :7", "-WRONGTYPE Operation against a key holding the wrong kind of value", "*0", "$-1"]


def test_keys_expire_by_the_clock_of_the_test(harness):
    cache = fake_redis(harness.clock)
    for script, wait, told in (("SET k v EX 10", 9, ["+OK"]), ("GET k", 2, ["$1 v"]), ("GET k", 0, ["$-1"])):
        filter = harness(FILTERS / "c" / "probe_0_2_100.wasm", commands(script))
        filter.redis["cache"] = cache
        assert answers(filter.get()) == told
        harness.clock.advance(wait)


def test_a_filter_that_asks_without_end_is_an_error(harness):
    script = "@on_tick\nhttp_call up :method=GET&:path=/&:authority=x \"\" \"\" 0\n@on_http_call_response\nhttp_call up :method=GET&:path=/&:authority=x \"\" \"\" 0"
    filter = probe(harness, f"@on_configure\nset_tick_period_milliseconds 1000\n{script}")
    filter.http["up"] = 200
    with pytest.raises(AssertionError, match="asks again whenever it is answered: 1000 times"):
        filter.clock.advance(1)


# -- Time --------------------------------------------------------------------------------------------------------------


def test_ticks_come_as_time_passes(harness):
    ticker = harness(FILTERS / "rust" / "ticker.wasm", vm_configuration="500")
    assert ticker.get().response.headers.get("x-ticks") in (None, "0")
    ticker.clock.advance(1.6)
    assert harness.metrics["ticker.ticks"] == 3
    assert ticker.get().response.headers["x-ticks"] == "3"
    assert harness.get_shared_data("ticks") == b"3"


def test_a_guest_is_reloaded_once_the_back_off_is_over(harness):
    filter = probe(harness, "@on_request_headers/2\nsay never\n@on_request_headers\nif_status 0\ntrap", failure_policy="fail_reload")
    assert [filter.get().status for _ in range(2)] == [503, 503]
    assert filter.plugins[0].reloads == 0
    filter.clock.advance(1)
    filter.get()
    assert filter.plugins[0].reloads == 1


def test_random_numbers_are_the_same_each_time(engine):
    seen = []
    for seed in (1, 1, 2):
        with Harness(engine, seed=seed) as harness:
            seen.append(harness.host.services.random(8))
    assert seen[0] == seen[1] != seen[2]


# -- What filters share ------------------------------------------------------------------------------------------------


def test_two_filters_share_data_and_queues(harness):
    reader = probe(harness, "@on_configure\nregister_shared_queue mail\n@on_queue_ready\ndequeue_shared_queue $token", vm_id="v")
    writer = probe(harness, "@on_request_headers\nset_shared_data key value 0\nresolve_shared_queue v mail\nenqueue_shared_queue $token hello", vm_id="v")
    writer.get()
    assert '"hello"' in harness.logs
    assert harness.get_shared_data("key", "v") == b"value"
    harness.enqueue("mail", "more", "v")
    assert '"more"' in reader.logs
    with pytest.raises(LookupError, match="no filter has registered the queue 'post'"):
        harness.enqueue("post", "x")


def test_a_chain(harness):
    first, second = ("@on_request_headers\nadd_header_map_value 0 x-by " + name for name in ("first", "second"))
    from proxywasm_host import FilterConfig

    code = FILTERS / "c" / "probe_0_2_1.wasm"
    chain = harness([FilterConfig(code, "a", first), FilterConfig(code, "b", second)])
    assert chain.get().upstream.headers.get_all("x-by") == ["first", "second"]


# -- TCP ---------------------------------------------------------------------------------------------------------------


def test_a_connection(harness):
    with harness(FILTERS / "rust" / "tcp.wasm").tcp() as connection:
        connection.downstream(b"hello").upstream(b"Hi")
    assert (connection.to_upstream, connection.to_downstream, connection.closed) == (b"HELLO", b"Hi", False)
    with harness(FILTERS / "rust" / "tcp.wasm", "deny").tcp() as connection:
        connection.downstream(b"hello")
    assert (connection.to_upstream, connection.closed) == (b"", True)


# -- Profiles ----------------------------------------------------------------------------------------------------------


def test_gcp_has_few_hostcalls_and_says_which_was_missed(engine):
    with Harness(engine, profile="gcp") as harness, pytest.raises(PluginError, match="is not allowed to use the capability proxy_define_metric"):
        harness(AUTH, "secret")


def test_gcp_shows_one_property_and_its_clock_stands_still(engine):
    script = "@on_request_headers\nget_property request%00path\nget_property plugin_root_id"
    with Harness(engine, profile="gcp") as harness:
        filter = probe(harness, script, root_id="mine")
        with filter.stream() as stream:
            before = harness.clock.time_ns()
            harness.clock.advance(5)
            assert harness.clock.time_ns() == before
            stream.request_headers(end_stream=True)
        assert stream.result.logs.info == ["get_property(request%00path) = 1", 'get_property(plugin_root_id) = 0 "mine"']
        assert harness.withheld == ["request.path"]
        assert "the profile 'gcp' does not show: request.path" in harness.report()
        with filter.stream():
            assert harness.clock.time_ns() == before + 5_000_000_000


def test_gcore_shows_what_its_permissions_say(engine):
    with Harness(engine, profile="gcore") as harness:
        filter = probe(harness, "@on_request_headers\nget_property request%00path\nget_property source%00address")
        outcome = filter.get("/x", properties={"source.address": "10.0.0.1:9"})
    assert outcome.logs.info == ['get_property(request%00path) = 0 "/x"', "get_property(source%00address) = 1"]


def test_there_is_no_such_profile(engine):
    with pytest.raises(LookupError, match="envoy"):
        Harness(engine, profile="envoi")


# -- Requests and responses --------------------------------------------------------------------------------------------


def test_headers_are_found_in_any_case_and_compared_in_any_order():
    headers = Headers([("X-A", "1"), ("b", "2"), ("x-a", "3")])
    assert (headers["x-A"], headers.get_all("x-a"), "X-B" in headers) == ("1, 3", ["1", "3"], False)
    assert headers == [("b", "2"), ("x-a", "1"), ("x-a", "3")]
    assert headers != [("b", "2"), ("x-a", "3"), ("x-a", "1")]
    assert Headers({"a": "1"}) == {"A": "1"}
    with pytest.raises(KeyError, match="no header 'c'; there is x-a, b"):
        headers["c"]


def test_what_is_given_wrongly_says_what_to_write(harness):
    auth = harness(AUTH, "callout:idp")
    auth.http["idp"] = {"status": 200}
    with pytest.raises(TypeError, match=r"answers with a Response, a status or a body.*Response\(200"):
        auth.get()
    with pytest.raises(TypeError, match="a body is bytes or text"):
        auth.post("/", body={"a": 1})
    with pytest.raises(TypeError, match="pairs of text"):
        auth.get("/", [("a", b"1")])


def test_what_is_told(harness):
    auth = harness(AUTH, "callout:idp")
    auth.http["idp"] = 403
    outcome = auth.get("/x", SECRET)
    assert repr(outcome).startswith("<Outcome nothing reached upstream; client got <Response status 403; content-type: text/plain;")
    assert repr(auth.callouts) == "[<Callout http idp: GET /check; answered 403>]"
    assert repr(auth) == "<FilterUnderTest auth>"
    report = harness.report()
    assert "info auth: auth: denied with 403" in report
    assert "auth proxy_on_request_headers: proxy_http_call(cluster='idp'," in report


def test_names_that_a_filter_looks_for(engine):
    script = "@on_request_headers\ncall_foreign_function resolve_lua idp.example\nreturn 1\n@on_foreign_function\nget_buffer_bytes 8 0 9"
    with Harness(engine, profile="wasmx") as harness:
        filter = probe(harness, script)
        filter.names["idp.example"] = "10.0.0.1"
        outcome = filter.get()
        assert outcome.upstream is not None
        assert 'get_buffer_bytes(8, 0, 9) = 0 "%04%0a%00%00%01idp."' in outcome.logs
        assert repr(filter.callouts[0]) == "<Callout name idp.example: its address; answered '10.0.0.1'>"

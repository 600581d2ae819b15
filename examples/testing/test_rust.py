"""Tests of a Rust filter that asks a service whether a request may pass.

python -m pytest examples/testing
"""

from proxywasm_host.testing import NEVER, Response, later

AUTH = "../../tests/filters/rust/auth.wasm"


def test_who_is_known_may_pass(proxywasm):
    auth = proxywasm(AUTH, "callout:idp")
    auth.http["idp"] = lambda call: 200 if call.request.headers.get("authorization") == "Bearer good" else 403
    auth.upstream = Response(200, {"content-type": "text/plain"}, "Hello.")
    assert auth.get("/x", {"authorization": "Bearer good"}).response.text == "Hello."
    assert auth.get("/x", {"authorization": "Bearer bad"}).status == 403
    assert auth.metrics == {"auth.allowed": 1, "auth.denied": 1}


def test_the_service_may_take_a_second(proxywasm):
    auth = proxywasm(AUTH, "callout:idp")
    auth.http["idp"] = [later(0.9, 200), later(1.1, 200), NEVER]
    outcomes = [auth.get("/") for _ in range(3)]
    assert [(outcome.status, outcome.took) for outcome in outcomes] == [(200, 0.9), (403, 1.0), (403, 1.0)]


def test_two_requests_wait_at_a_time(proxywasm):
    auth = proxywasm(AUTH, "callout:idp")
    auth.http["idp"] = NEVER
    with auth.stream("GET", "/a") as a, auth.stream("GET", "/b") as b:
        a.request_headers(end_stream=True)
        b.request_headers(end_stream=True)
        auth.callouts[1].reply(200)
        assert (a.request_is_out, b.request_is_out) == (False, True)

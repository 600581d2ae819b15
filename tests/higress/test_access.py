"""Who may come in: gpustack-ext-auth asks a service, gpustack-ip-acl looks at the address."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from proxywasm_host.effects import ClearRouteCache
from proxywasm_host.testing import FAIL, NEVER, Response

SERVICE = "outbound|80||auth.static"
ROUTE = {"route_name": "ai-route-route-1.internal", "source.address": "192.0.2.9:40000"}
JSON = {"content-type": "application/json"}
BODY = json.dumps({"model": "large"})
DIGEST = sha256(b"salt" + b"secret").hexdigest()
INVALID = "Invalid authentication credentials"
KNOWN = {"authorization": "Bearer gpustack_alice_secret", "x-higress-llm-model": "large"}
"""Headers of a client whose key the gateway knows."""


AUTH = {
    "route_match_regexes": ["^ai-route-route-"],
    "local_auth": {
        "enabled": True,
        "keys": {"alice": {"digest": f"sha256$salt${DIGEST}", "user_id": 7}},
        "refs": {"58": {"exp": None}},
    },
    "authz": {
        "endpoint": {"path": "/token-auth", "service_name": "auth.static", "service_port": 80},
        "timeout": 3000,
        "authorization_request": {"allowed_headers": [{"exact": "x-real-ip"}], "headers_to_add": {"x-gateway": "g"}},
    },
    "upstream_request": {"headers_to_remove": ["cookie"]},
    "auth_cache": {"header": "x-gpustack-auth-cache", "signing_key": "0" * 64},
    "status_on_error": 503,
}


@pytest.fixture
def auth(filter):
    auth = filter("gpustack-ext-auth", **AUTH)
    auth.http[SERVICE] = 200
    return auth


def ask(auth, headers=(), path="/", **properties):
    """A request on the route that is guarded: what came of it."""
    return auth.post(path, {**JSON, **dict(headers)}, BODY, properties={**ROUTE, **properties})


def asked(outcome):
    """The request to the service, which was made once."""
    (callout,) = outcome.callouts
    return callout.request


def test_other_routes_are_not_touched(auth):
    outcome = ask(auth, route_name="status")
    assert outcome.upstream.text == BODY
    assert outcome.callouts == []


def test_a_service_names_the_consumer(auth):
    auth.http[SERVICE] = Response(200, {"x-mse-consumer": "carol.gpustack-7"})
    headers = {
        "authorization": "Bearer custom",
        "cookie": "session=1",
        "x-mse-consumer": "somebody else",
        "x-real-ip": "198.51.100.7",
    }
    outcome = ask(auth, headers, "/v1/chat/completions")

    (callout,) = outcome.callouts
    assert (callout.cluster, callout.timeout) == (SERVICE, 3.0)
    request = callout.request
    assert (request.method, request.path) == ("GET", "/token-auth")
    assert {name: request.headers[name] for name in ("authorization", "x-original-uri", "x-real-ip", "x-gateway")} == {
        "authorization": "Bearer custom",
        "x-original-uri": "/v1/chat/completions",
        "x-real-ip": "198.51.100.7",
        "x-gateway": "g",
    }
    assert outcome.upstream.text == BODY
    assert outcome.upstream.headers["x-mse-consumer"] == "carol.gpustack-7"
    assert "cookie" not in outcome.upstream.headers
    assert not any(isinstance(entry, ClearRouteCache) for entry in auth.harness.recorder.timeline)


def test_nothing_goes_on_before_the_service_has_answered(auth):
    auth.http[SERVICE] = NEVER
    with auth.stream("POST", "/", JSON, properties=ROUTE) as stream:
        stream.request_headers().request_body(BODY.encode(), True)
        assert stream.result.upstream is None
        auth.callouts[0].reply(200)
        assert stream.result.upstream.text == BODY


def test_what_a_service_said_of_a_credential_is_remembered(auth):
    auth.http[SERVICE] = Response(200, {"x-mse-consumer": "carol.gpustack-7", "x-gpustack-key-ref": "58"})
    ask(auth, {"authorization": "Bearer custom"})
    second = asked(ask(auth, {"authorization": "Bearer custom"}))
    assert second.headers["x-gpustack-key-ref"] == "58"
    assert "authorization" not in second.headers


@pytest.fixture
def marker(auth):
    """What a client whose key is known is given for the next five minutes."""
    auth.http[SERVICE] = Response(200, {"x-mse-consumer": "alice.gpustack-7"})
    return ask(auth, KNOWN).upstream.headers["x-gpustack-auth-cache"]


def access_key(auth, marker, **properties):
    """What the service is told of a client that has only the marker."""
    headers = {"x-gpustack-auth-cache": marker, "x-higress-llm-model": "large"}
    return asked(ask(auth, headers, **properties)).headers.get("x-gpustack-access-key")


def test_a_marker_of_its_own_stands_for_the_credential(auth, marker):
    assert access_key(auth, marker) == "alice"
    assert access_key(auth, marker[:-4] + "AAAA") is None, "forged"
    assert access_key(auth, marker, **{"source.address": "203.0.113.1:1"}) is None, "stolen"


def test_a_marker_ends_after_five_minutes(auth, marker):
    auth.clock.advance(301)
    assert access_key(auth, marker) is None


def test_a_key_that_is_known_is_checked_in_the_gateway(auth):
    request = asked(ask(auth, {"authorization": "Bearer gpustack_alice_secret"}))
    assert request.headers["x-gpustack-access-key"] == "alice"
    assert "authorization" not in request.headers


def test_a_wrong_secret_is_refused_at_once(auth):
    outcome = ask(auth, {"authorization": "Bearer gpustack_alice_guessed"})
    assert (outcome.status, outcome.details) == (401, "gpustack-ext-auth.local_secret_mismatch")
    assert outcome.response.json()["error"]["message"] == INVALID
    assert outcome.callouts == []
    assert outcome.upstream is None


def test_a_refusal_of_the_service_reaches_the_client(auth):
    auth.http[SERVICE] = Response(401, {"www-authenticate": "Bearer"}, '{"error": "who are you?"}')
    outcome = ask(auth)
    assert (outcome.status, outcome.details) == (401, "gpustack-ext-auth.unauthorized")
    assert outcome.response.headers["www-authenticate"] == "Bearer"
    assert outcome.response.json() == {"error": "who are you?"}


@pytest.mark.parametrize("answer", [500, FAIL])
def test_a_broken_service_lets_nobody_in(auth, errors, answer):
    auth.http[SERVICE] = answer
    outcome = ask(auth)
    assert outcome.status == 503
    assert outcome.response.json()["error"]["message"] == INVALID
    if answer is FAIL:
        errors.append("failed to get response headers: error status returned by host: not found")


@pytest.mark.parametrize("body", [BODY, ""])
def test_a_public_route_asks_nobody(filter, body):
    rule = {"_match_route_": ["ai-route-route-1.internal"], "access_policy": "public"}
    auth = filter("gpustack-ext-auth", **AUTH, _rules_=[rule])
    auth.http[SERVICE] = 200
    public = auth.request("POST" if body else "GET", "/", JSON, body, properties=ROUTE)
    private = auth.get("/", properties={**ROUTE, "route_name": "ai-route-route-2.internal"})
    assert public.upstream.headers["x-mse-consumer"] == "none"
    assert public.callouts == []
    assert len(private.callouts) == 1


# -- gpustack-ip-acl ---------------------------------------------------------------------------------------------------


@pytest.fixture
def acl(filter):
    return filter(
        "gpustack-ip-acl",
        consumers={
            "alice": {"allowedCidrs": ["192.168.1.0/24", "2001:db8::/32"], "deniedCidrs": ["192.168.1.66"]},
            "ci-*": {"deniedCidrs": ["203.0.113.0/24"]},
        },
    )


@pytest.mark.parametrize(
    ("consumer", "address"),
    [
        ("alice", "192.168.1.5:1234"),
        ("alice", "[2001:db8::7]:1234"),
        ("ci-7", "198.51.100.1:80"),
        ("bob", "203.0.113.1:80"),
    ],
)
def test_an_address_that_may_come_in(acl, consumer, address):
    outcome = acl.get("/v1/models", {"x-mse-consumer": consumer}, properties={"source.address": address})
    assert outcome.upstream is not None
    assert outcome.local_response is None


@pytest.mark.parametrize(
    ("consumer", "address", "message"),
    [
        ("alice", "192.168.1.66:1234", "Client IP denied for this API key"),
        ("alice", "198.51.100.1:80", "Client IP not in API key whitelist"),
        ("ci-7", "203.0.113.9:80", "Client IP denied for this API key"),
    ],
)
def test_an_address_that_may_not(acl, consumer, address, message):
    outcome = acl.get("/v1/models", {"x-mse-consumer": consumer}, properties={"source.address": address})
    assert (outcome.status, outcome.details) == (403, "gpustack.ip.acl.rejected")
    assert outcome.response.json() == {"message": message}
    assert outcome.response.headers["content-type"] == "application/json"
    assert outcome.upstream is None


def test_without_an_address_nobody_with_a_rule_comes_in(acl):
    assert acl.get("/", {"x-mse-consumer": "alice"}).status == 403
    assert acl.get("/").upstream is not None


def test_a_trusted_header_holds_the_address(filter):
    acl = filter("gpustack-ip-acl", realIPHeader="x-real-ip", consumers={"*": {"deniedCidrs": ["203.0.113.0/24"]}})
    headers = {"x-mse-consumer": "bob", "x-real-ip": "203.0.113.5"}
    assert acl.get("/", headers, properties={"source.address": "10.0.0.1:80"}).status == 403

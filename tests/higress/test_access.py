"""Who may come in: gpustack-ext-auth asks a service, gpustack-ip-acl looks at the address."""

from __future__ import annotations

from hashlib import sha256

import pytest

from .transcript import sent

ROUTE = {"route_name": "ai-route-route-1.internal", "source__address": "192.0.2.9:40000"}
BODY = {"model": "large"}
DIGEST = sha256(b"salt" + b"secret").hexdigest()
INVALID = "Invalid authentication credentials"


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
def auth(load):
    return load("gpustack-ext-auth", **AUTH)


def test_other_routes_are_not_touched(auth, exchange):
    seen = exchange(auth, route_name="status").request("/v1/chat/completions", BODY)

    assert seen.upstream.json == BODY
    assert not seen.callouts


def test_a_service_names_the_consumer(auth, exchange):
    seen = exchange(auth, **ROUTE).request(
        "/v1/chat/completions",
        BODY,
        authorization="Bearer custom",
        cookie="session=1",
        x_mse_consumer="somebody else",
        x_real_ip="198.51.100.7",
    )
    assert not seen.forwarded
    assert seen.callout.cluster == "outbound|80||auth.static"
    assert seen.callout.timeout == 3000
    asked = sent(seen.callout)
    assert (asked[":method"], asked[":path"]) == ("GET", "/token-auth")
    assert asked["authorization"] == "Bearer custom"
    assert asked["x-original-uri"] == "/v1/chat/completions"
    assert asked["x-real-ip"] == "198.51.100.7"
    assert asked["x-gateway"] == "g"

    seen.reply(x_mse_consumer="carol.gpustack-7")
    assert seen.upstream.json == BODY
    assert seen.upstream.headers["x-mse-consumer"] == "carol.gpustack-7"
    assert "cookie" not in seen.upstream.headers
    assert not seen.rerouted


def test_what_a_service_said_of_a_credential_is_remembered(auth, exchange):
    first = exchange(auth, **ROUTE).request("/", BODY, authorization="Bearer custom")
    first.reply(x_mse_consumer="carol.gpustack-7", x_gpustack_key_ref="58")

    second = exchange(auth, **ROUTE).request("/", BODY, authorization="Bearer custom")

    asked = sent(second.callout)
    assert asked["x-gpustack-key-ref"] == "58"
    assert "authorization" not in asked


def test_a_marker_of_its_own_stands_for_the_credential(auth, exchange):
    first = exchange(auth, **ROUTE)
    first.request("/", BODY, authorization="Bearer gpustack_alice_secret", x_higress_llm_model="large")
    first.reply(x_mse_consumer="alice.gpustack-7")
    marker = first.upstream.headers["x-gpustack-auth-cache"]

    def asked(marker, **route):
        seen = exchange(auth, **{**ROUTE, **route})
        return sent(seen.request("/", BODY, x_gpustack_auth_cache=marker, x_higress_llm_model="large").callout)

    assert asked(marker)["x-gpustack-access-key"] == "alice"
    assert "x-gpustack-access-key" not in asked(marker[:-4] + "AAAA"), "forged"
    assert "x-gpustack-access-key" not in asked(marker, source__address="203.0.113.1:1"), "stolen"


def test_a_marker_ends_after_five_minutes(auth, exchange, clock):
    seen = exchange(auth, **ROUTE)
    seen.request("/", BODY, authorization="Bearer gpustack_alice_secret", x_higress_llm_model="large")
    seen.reply(x_mse_consumer="alice.gpustack-7")
    marker = seen.upstream.headers["x-gpustack-auth-cache"]

    clock.advance(301)

    late = exchange(auth, **ROUTE).request("/", BODY, x_gpustack_auth_cache=marker, x_higress_llm_model="large")
    assert "x-gpustack-access-key" not in sent(late.callout)


def test_a_key_that_is_known_is_checked_in_the_gateway(auth, exchange):
    seen = exchange(auth, **ROUTE).request("/", BODY, authorization="Bearer gpustack_alice_secret")

    asked = sent(seen.callout)
    assert asked["x-gpustack-access-key"] == "alice"
    assert "authorization" not in asked


def test_a_wrong_secret_is_refused_at_once(auth, exchange):
    seen = exchange(auth, **ROUTE).request("/", BODY, authorization="Bearer gpustack_alice_guessed")

    assert seen.client.status == 401
    assert seen.client.json["error"]["message"] == INVALID
    assert seen.stream.details == "gpustack-ext-auth.local_secret_mismatch"
    assert not seen.callouts
    assert not seen.forwarded


def test_a_refusal_of_the_service_reaches_the_client(auth, exchange):
    seen = exchange(auth, **ROUTE).request("/", BODY)

    seen.reply({"error": "who are you?"}, status=401, www_authenticate="Bearer")

    assert seen.client.status == 401
    assert seen.client.headers["www-authenticate"] == "Bearer"
    assert seen.client.json == {"error": "who are you?"}
    assert seen.stream.details == "gpustack-ext-auth.unauthorized"


@pytest.mark.parametrize("how", ["500", "reset"])
def test_a_broken_service_lets_nobody_in(auth, exchange, log, how):
    seen = exchange(auth, **ROUTE).request("/", BODY)

    if how == "500":
        seen.reply(status=500)
    else:
        seen.fail()
        errors = [line for line in log.take() if line.startswith("failed to get response headers")]
        assert errors == ["failed to get response headers: error status returned by host: not found"]

    assert seen.client.status == 503
    assert seen.client.json["error"]["message"] == INVALID


@pytest.mark.parametrize("body", [BODY, None])
def test_a_public_route_asks_nobody(load, exchange, body):
    rule = {"_match_route_": ["ai-route-route-1.internal"], "access_policy": "public"}
    auth = load("gpustack-ext-auth", **AUTH, _rules_=[rule])

    public = exchange(auth, **ROUTE).request("/", body)
    private = exchange(auth, **{**ROUTE, "route_name": "ai-route-route-2.internal"}).request("/", body)

    assert public.upstream.headers["x-mse-consumer"] == "none"
    assert private.callout


# -- gpustack-ip-acl ---------------------------------------------------------------------------------------------------


@pytest.fixture
def acl(load):
    return load(
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
def test_an_address_that_may_come_in(acl, exchange, consumer, address):
    seen = exchange(acl, source__address=address).request("/v1/models", x_mse_consumer=consumer)

    assert seen.forwarded
    assert seen.stream.local is None


@pytest.mark.parametrize(
    ("consumer", "address", "message"),
    [
        ("alice", "192.168.1.66:1234", "Client IP denied for this API key"),
        ("alice", "198.51.100.1:80", "Client IP not in API key whitelist"),
        ("ci-7", "203.0.113.9:80", "Client IP denied for this API key"),
    ],
)
def test_an_address_that_may_not(acl, exchange, consumer, address, message):
    seen = exchange(acl, source__address=address).request("/v1/models", x_mse_consumer=consumer)

    assert seen.client.status == 403
    assert seen.client.json == {"message": message}
    assert seen.client.headers["content-type"] == "application/json"
    assert seen.stream.details == "gpustack.ip.acl.rejected"
    assert not seen.forwarded


def test_without_an_address_nobody_with_a_rule_comes_in(acl, exchange):
    assert exchange(acl).request("/", x_mse_consumer="alice").client.status == 403
    assert exchange(acl).request("/").forwarded


def test_a_trusted_header_holds_the_address(load, exchange):
    acl = load("gpustack-ip-acl", realIPHeader="x-real-ip", consumers={"*": {"deniedCidrs": ["203.0.113.0/24"]}})

    seen = exchange(acl, source__address="10.0.0.1:80").request("/", x_mse_consumer="bob", x_real_ip="203.0.113.5")

    assert seen.client.status == 403

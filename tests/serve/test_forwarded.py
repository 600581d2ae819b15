"""What upstream is told of the client: as ``ConnectionManagerUtility`` of Envoy has it."""

from __future__ import annotations

import re

import pytest

from proxywasm_host.serve.config import Forwarded
from proxywasm_host.serve.forwarded import forward
from tests.integrations.asgi import scope


def told(headers=(), client=("192.0.2.1", 4711), **settings):
    asked = scope(headers=headers, client=client)
    forward(asked, Forwarded(**settings))
    return {name.decode(): value.decode() for name, value in asked["headers"]}, asked


@pytest.mark.parametrize(
    ("settings", "headers", "forwarded_for", "proto", "client"),
    [
        ({}, [], "192.0.2.1", "http", "192.0.2.1"),
        ({}, [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")], "1.1.1.1,192.0.2.1", "http", "192.0.2.1"),
        ({}, [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")], "1.1.1.1,2.2.2.2,192.0.2.1", "http", "192.0.2.1"),
        ({"xff_num_trusted_hops": 1}, [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https")], "1.1.1.1, 2.2.2.2,192.0.2.1", "https", "2.2.2.2"),
        ({"xff_num_trusted_hops": 2}, [("x-forwarded-for", "1.1.1.1, 2.2.2.2")], "1.1.1.1, 2.2.2.2,192.0.2.1", "http", "1.1.1.1"),
        ({"xff_num_trusted_hops": 3}, [("x-forwarded-for", "1.1.1.1")], "1.1.1.1,192.0.2.1", "http", "192.0.2.1"),
        ({"use_remote_address": False}, [], None, "http", "192.0.2.1"),
        ({"use_remote_address": False}, [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https")], "1.1.1.1, 2.2.2.2", "https", "2.2.2.2"),
        ({"use_remote_address": False, "xff_num_trusted_hops": 1}, [("x-forwarded-for", "1.1.1.1, 2.2.2.2")], "1.1.1.1, 2.2.2.2", "http", "1.1.1.1"),
        ({"use_remote_address": False}, [("x-forwarded-for", "nonsense")], "nonsense", "http", "192.0.2.1"),
        ({"use_remote_address": False}, [("x-forwarded-for", "[2001:db8::1]:80")], "[2001:db8::1]:80", "http", "2001:db8::1"),
    ],
)  # fmt: skip
def test_x_forwarded(settings, headers, forwarded_for, proto, client):
    seen, asked = told(headers, **settings)
    assert (seen.get("x-forwarded-for"), seen["x-forwarded-proto"]) == (forwarded_for, proto)
    assert (asked["client"][0], asked["scheme"]) == (client, proto)


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        ("x-forwarded-for", []),
        ("close, X-Secret , authorization", ["x-secret", "authorization"]),
        ("X-Request-Id,x-forwarded-proto", []),
        ("Host, content-length, transfer-encoding", []),
        (",", []),
    ],
)
def test_what_connection_names_is_gone_before_ours_is_set(connection, gone):
    """A client that names our headers there would take them away from upstream."""
    sent = [("connection", connection), ("x-secret", "1"), ("authorization", "t"), ("content-length", "5"), ("x-request-id", "old")]
    seen, _ = told(sent)
    ours = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "http", "host": "example.com", "content-length": "5"}
    assert seen.items() >= ours.items()
    assert seen["x-request-id"]
    assert {"connection", *gone}.isdisjoint(seen)
    assert {"x-secret", "authorization"} - set(gone) <= set(seen)


def test_a_scheme_that_is_none_is_not_believed():
    assert told([("x-forwarded-proto", "gopher")], use_remote_address=False)[1]["scheme"] == "http"


def test_a_request_without_an_id_gets_one():
    seen, _ = told()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", seen["x-request-id"])
    assert told([("x-request-id", "mine")])[0]["x-request-id"] == "mine"
    assert "x-request-id" not in told(generate_request_id=False)[0]


def test_the_header_of_rfc_7239():
    assert told(rfc7239=True)[0]["forwarded"] == 'for=192.0.2.1;host="example.com";proto=http'
    both = told([("forwarded", "for=1.1.1.1")], client=("2001:db8::1", 1), rfc7239=True)[0]["forwarded"]
    assert both == 'for=1.1.1.1, for="[2001:db8::1]";host="example.com";proto=http'
    assert told(client=None, rfc7239=True)[0]["forwarded"].startswith("for=unknown;")

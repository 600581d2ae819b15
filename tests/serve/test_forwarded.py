"""What upstream is told of the client: as ``ConnectionManagerUtility`` of Envoy has it."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.serve.in_process import beside


def told(origin, tmp_path: Path, headers: bytes = b"", sock: socket.socket | None = None, **forwarded):
    """The headers that upstream gets, and client and scheme as the access log has them."""
    log = tmp_path / "access"
    settings = {
        "filters": [],
        "upstream": origin.url,
        "forwarded": forwarded,
        "access_log": {"format": "json", "file": str(log)},
    }
    with beside(settings, sock) as served:
        assert served.answer(b"GET / HTTP/1.1\r\nHost: example.com\r\n%b\r\n" % headers).status == 200
    line = json.loads(log.read_text())
    return dict(origin.requests[-1].headers), (line["client"], line["scheme"])


def xff(*values: str, proto: str = "") -> bytes:
    lines = [f"X-Forwarded-For: {value}\r\n" for value in values]
    return "".join([*lines, f"X-Forwarded-Proto: {proto}\r\n" if proto else ""]).encode()


HERE = "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "headers", "forwarded_for", "proto", "client"),
    [
        ({}, b"", HERE, "http", HERE),
        ({}, xff("1.1.1.1", proto="https"), f"1.1.1.1,{HERE}", "http", HERE),
        ({}, xff("1.1.1.1", "2.2.2.2"), f"1.1.1.1,2.2.2.2,{HERE}", "http", HERE),
        ({"xff_num_trusted_hops": 1}, xff("1.1.1.1, 2.2.2.2", proto="https"), f"1.1.1.1, 2.2.2.2,{HERE}", "https", "2.2.2.2"),
        ({"xff_num_trusted_hops": 2}, xff("1.1.1.1, 2.2.2.2"), f"1.1.1.1, 2.2.2.2,{HERE}", "http", "1.1.1.1"),
        ({"xff_num_trusted_hops": 3}, xff("1.1.1.1"), f"1.1.1.1,{HERE}", "http", HERE),
        ({"use_remote_address": False}, b"", None, "http", HERE),
        ({"use_remote_address": False}, xff("1.1.1.1, 2.2.2.2", proto="https"), "1.1.1.1, 2.2.2.2", "https", "2.2.2.2"),
        ({"use_remote_address": False, "xff_num_trusted_hops": 1}, xff("1.1.1.1, 2.2.2.2"), "1.1.1.1, 2.2.2.2", "http", "1.1.1.1"),
        ({"use_remote_address": False}, xff("nonsense"), "nonsense", "http", HERE),
        ({"use_remote_address": False}, xff("[2001:db8::1]:80"), "[2001:db8::1]:80", "http", "2001:db8::1"),
        ({"use_remote_address": False}, xff("10.0.0.2:80"), "10.0.0.2:80", "http", "10.0.0.2"),
    ],
)  # fmt: skip
def test_x_forwarded(origin, tmp_path, settings, headers, forwarded_for, proto, client):
    seen, logged = told(origin, tmp_path, headers, **settings)
    assert (seen.get("x-forwarded-for"), seen["x-forwarded-proto"]) == (forwarded_for, proto)
    assert logged == (client, proto)


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        (b"x-forwarded-for", []),
        (b"close, X-Secret , authorization", ["x-secret", "authorization"]),
        (b"X-Request-Id,x-forwarded-proto", []),
        (b"Host, transfer-encoding", []),
        (b",", []),
    ],
)
def test_what_connection_names_is_gone_before_ours_is_set(origin, tmp_path, connection, gone):
    """A client that names our headers there would take them away from upstream."""
    sent = b"Connection: %b\r\nX-Secret: 1\r\nAuthorization: t\r\nX-Request-Id: old\r\n" % connection
    seen, _ = told(origin, tmp_path, sent)
    assert seen.items() >= {"x-forwarded-for": HERE, "x-forwarded-proto": "http", "host": "example.com"}.items()
    assert seen["x-request-id"]
    assert {"connection", *gone}.isdisjoint(seen)
    assert {"x-secret", "authorization"} - set(gone) <= set(seen)


def test_a_scheme_that_is_none_is_not_believed(origin, tmp_path):
    assert told(origin, tmp_path, xff(proto="gopher"), use_remote_address=False)[1][1] == "http"


def test_a_request_without_an_id_gets_one(origin, tmp_path):
    seen, _ = told(origin, tmp_path)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", seen["x-request-id"])


def test_an_id_that_a_request_has_stays(origin, tmp_path):
    assert told(origin, tmp_path, b"X-Request-Id: mine\r\n")[0]["x-request-id"] == "mine"
    (tmp_path / "access").unlink()
    assert "x-request-id" not in told(origin, tmp_path, generate_request_id=False)[0]


def test_the_header_of_rfc_7239(origin, tmp_path):
    seen, _ = told(origin, tmp_path, b"Forwarded: for=1.1.1.1\r\nForwarded: for=2.2.2.2\r\n", rfc7239=True)
    assert seen["forwarded"] == f'for=1.1.1.1, for=2.2.2.2, for={HERE};host="example.com";proto=http'
    (tmp_path / "access").unlink()
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    assert told(origin, tmp_path, sock=six, rfc7239=True)[0]["forwarded"] == 'for="[::1]";host="example.com";proto=http'

"""Real servers, frameworks and clients: four filters in front of the application, one of which asks a service."""

from __future__ import annotations

import socket
from urllib.parse import unquote

import h2.connection
import h2.events
import httpx2
import pytest

from tests.servers.frameworks import PART

VALUES = ["Go", "AssemblyScript"]


def test_who_may_not_come_in(server):
    with server.client() as client:
        response = client.get("/told", headers={"authorization": "Bearer bad"})
    assert (response.status_code, response.text) == (403, "forbidden\n")


@pytest.mark.parametrize("http2", [False, True])
def test_the_application_gets_what_the_filters_let_through(server, http2):
    http2 = http2 and server.kind.http2
    with server.client(http1=not http2, http2=http2) as client:
        headers = [
            ("x-remove-me", "1"),
            ("x-two", "a"),
            ("x-two", "b"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
        ]
        response = client.get("/a%20b?c=%20d", headers=headers if not http2 else headers[:3])
        told = response.json()
    assert (told["method"], unquote(told["path"]), told["query"]) == ("GET", "/a b", "c=%20d")
    got = dict(told["headers"])
    values = [part.strip() for name, value in told["headers"] if name == "x-wasm" for part in value.split(",")]
    assert values == VALUES
    assert [part for name, value in told["headers"] if name == "x-two" for part in value.split(",")] == ["a", "b"]
    assert not {"x-remove-me", "x-hop", "connection"} & set(got)
    assert got["host"] == server.url.removeprefix("http://")
    assert response.headers.get_list("x-wasm", split_commas=True) == VALUES[::-1]
    assert "proxy-wasm" in response.headers.get_list("server")


@pytest.mark.parametrize("http2", [False, True])
def test_a_body_of_a_megabyte_comes_back(server, http2):
    body = bytes(range(256)) * 4096
    http2 = http2 and server.kind.http2
    with server.client(http1=not http2, http2=http2) as client:
        whole = client.post("/echo", content=body)
        assert (len(whole.content), whole.content == body) == (len(body), True)
        chunked = client.post("/echo", content=(body[at : at + 50_000] for at in range(0, len(body), 50_000)))
    assert (len(chunked.content), chunked.content == body) == (len(body), True)


def test_a_response_in_parts(server):
    with server.client() as client:
        response = client.get("/stream?parts=50")
    assert response.content == PART * 50


def test_head(server):
    with server.client() as client:
        response = client.head("/told")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers.get_list("x-wasm", split_commas=True) == VALUES[::-1]


def test_a_response_that_a_filter_breaks_off_is_cut(server):
    """The client can tell that it has not got all."""
    with server.client() as client, pytest.raises(httpx2.RemoteProtocolError):
        client.get("/stream?parts=50", headers={"x-cut": "1"})
    server.until_nothing_is_open()


def trailers_over_http2(server, path: str) -> list[tuple[bytes, bytes]]:
    """Trailers of a response: httpx2 does not tell them."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    pseudo = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "x")]
    connection.send_headers(1, [*pseudo, ("authorization", "Bearer good"), ("te", "trailers")], end_stream=True)
    trailers: list[tuple[bytes, bytes]] = []
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        while True:
            wire.sendall(connection.data_to_send())
            data = wire.recv(65536)
            assert data, "the connection was closed"
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived):
                    trailers += event.headers
                elif isinstance(event, h2.events.StreamEnded):
                    return trailers


def test_trailers_where_the_server_has_them(server):
    with server.client() as client:
        assert client.get("/trailers", headers={"te": "trailers"}).content == b"body"
    if server.kind.http2 and server.kind.server == "hypercorn":
        assert trailers_over_http2(server, "/trailers") == [(b"x-app", b"1"), (b"x-trailer", b"at the end")]


def test_a_client_that_leaves_frees_what_it_had(server):
    with server.client() as client:
        for parts in (1, 5, 10_000):
            with client.stream("GET", f"/stream?parts={parts}") as response:
                assert next(response.iter_raw())
    told = server.until_nothing_is_open()
    assert told["failed"] == []
    assert told["engines"] == [server.engine]

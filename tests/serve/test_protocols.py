"""Protocols beside HTTP/1.1: HTTP/2, what connections are upgraded to, gRPC, TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.serve.conftest import BODY, HEADERS
from tests.serve.origin import raw
from tests.serve.test_serve import certificate, signed
from tests.support import FILTERS


def curl(served, path: str, *options: str) -> str:
    """What curl gets over HTTP/2: status line, headers and body."""
    command = ["curl", "--silent", "--include", "--http2-prior-knowledge", *options, served.url + path]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout.decode().replace("\r\n", "\n")


def connected(served) -> socket.socket:
    host, _, port = served.url.partition("://")[2].partition(":")
    return socket.create_connection((host, int(port)), 10)


def test_http2_with_and_without_filters(serve, origin):
    for filters in ([], [HEADERS], [BODY]):
        served = serve(*filters, access_log="json", **({} if filters else {"settings": {"filters": []}}))
        head, _, body = curl(served, "/a?b", "--data", "hello", "--header", "cookie: a=1; b=2").partition("\n\n")
        assert head.startswith("HTTP/2 200 ")
        assert "transfer-encoding" not in head
        asked = origin.requests[-1]
        assert (asked.method, asked.target, asked["host"]) == ("POST", "/a?b", served.url.partition("://")[2])
        assert ("hello" if filters != [BODY] else "HELLO") in body
        assert served.stop() == 0
        assert '"protocol":"HTTP/2"' in served.access_log[-1].replace(" ", "")


def test_http2_by_alpn(serve, tmp_path):
    cert, key = certificate(tmp_path)
    served = serve(HEADERS, settings={"tls": {"certificate": cert, "key": key}})
    command = ["curl", "--silent", "--include", "--http2", "--cacert", cert, served.url]
    assert subprocess.run(command, check=True, capture_output=True, timeout=30).stdout.startswith(b"HTTP/2 200 ")
    command[3] = "--http1.1"
    assert subprocess.run(command, check=True, capture_output=True, timeout=30).stdout.startswith(b"HTTP/1.1 200 ")


def test_many_streams_of_one_connection(serve, origin):
    served = serve(HEADERS, access_log="off", log_level="error")
    command = ["h2load", "-n", "400", "-c", "2", "-m", "32", served.url]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "400 succeeded, 0 failed, 0 errored" in told
    assert served.metrics()['proxywasm_requests_total{code="200"}'] == 400


UPGRADE = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
SEES = """
@on_request_headers
get_header_map_value 0 upgrade
add_header_map_value 0 x-added 1
@on_request_body
set_buffer_bytes 0 0 0 >
@on_response_headers
get_header_map_value 2 :status
add_header_map_value 2 x-added 2
@on_response_body
set_buffer_bytes 1 0 0 <
"""


def contexts(served) -> int:
    return served.live()["workers"][0]["chain"][0]["contexts"]


async def echoes(request, reader, writer) -> bool:
    """Goes over to another protocol, and answers in capitals."""
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi")
    while data := await reader.read(1000):
        writer.write(data.upper())
    return False


def probing(script: str) -> dict[str, object]:
    return {"filters": [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script}]}


def until(client: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        data = client.recv(1000)
        assert data, got
        got += data
    return got


def test_a_websocket_passes_where_there_are_no_filters(serve, origin):
    origin.answers["/ws"] = echoes
    served = serve(settings={"filters": []})
    with connected(served) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n"
        )
        got = b""
        while not got.endswith(b"\r\n\r\nhi"):
            got += client.recv(1000)
        assert got.startswith(b"HTTP/1.1 101 ")
        assert b"upgrade: websocket\r\n" in got
        for said in (b"one\n", b"no request\n\n"):  # whatever it is, nobody reads it as HTTP
            client.sendall(said)
            assert client.recv(1000) == said.upper()
    assert (origin.requests[0]["upgrade"], origin.requests[0]["connection"]) == ("websocket", "upgrade")


@pytest.mark.carries("serve", "WebSocket")
def test_filters_see_a_websocket_as_heads_and_bodies(serve, origin):
    """As in Envoy. When it has ended, nothing is left of it."""
    origin.answers["/ws"] = echoes
    served = serve(settings=probing(SEES))
    before = contexts(served)
    with connected(served) as client:
        client.sendall(UPGRADE)
        head = until(client, b"\r\n\r\n<hi")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert (b"upgrade: websocket\r\n" in head, b"x-added: 2\r\n" in head) == (True, True)
        for said in (b"one\n", b"GET / HTTP/1.1\n\n"):
            client.sendall(said)
            assert until(client, b"\n") == b"<>" + said.upper()
        assert contexts(served) == before + 1
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(1000), b"")) == b"<><"  # both ends are bodies, too
    assert (origin.requests[0]["upgrade"], origin.requests[0]["x-added"]) == ("websocket", "1")
    assert 'get_header_map_value(0, upgrade) = 0 "websocket"' in served.log
    assert 'get_header_map_value(2, :status) = 0 "101"' in served.log
    limit = time.monotonic() + 10
    while contexts(served) != before:
        assert time.monotonic() < limit


def test_upstream_or_a_filter_may_not_want_a_websocket(serve, origin):
    origin.answers["/ws"] = echoes
    for script, target, status in (
        ("@on_request_headers\nremove_header_map_value 0 upgrade", b"/no", b"200"),
        ("@on_request_headers\nget_header_map_value 0 upgrade", b"/no", b"200"),
        ("@on_request_headers\nsend_local_response 403 details no a=b -1\nreturn 1", b"/ws", b"403"),
        ("@on_response_headers\nreplace_header_map_value 2 :status 99", b"/ws", b"503"),
    ):
        served = serve(settings=probing(script))
        origin.requests.clear()
        with connected(served) as client:
            client.sendall(UPGRADE.replace(b"/ws", target))
            assert client.recv(1000).split()[1] == status, script
        told = [request["upgrade"] for request in origin.requests]
        assert told == ([] if status == b"403" else [None if "remove" in script else "websocket"])
        served.stop()


def test_a_filter_that_breaks_a_websocket_off(serve, origin):
    origin.answers["/ws"] = echoes
    served = serve(settings=probing("@on_request_body\nsend_local_response 403 details no a=b -1\nreturn 1"))
    with connected(served) as client:
        client.sendall(UPGRADE)
        until(client, b"hi")
        client.sendall(b"one")
        assert client.recv(1000) == b""


def test_no_other_upgrade_is_made_and_no_body_taken_for_a_request(serve, origin):
    served = serve(settings={"filters": []})
    inside = b"GET /inside HTTP/1.1\r\nhost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, close\r\nupgrade: %b\r\ncontent-length: %d\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        for pause in (0, 0.05):
            with connected(served) as client:
                client.sendall(head % (protocol, len(inside)))
                time.sleep(pause)
                client.sendall(inside)
                assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP/1.1 200 ")
    assert [request.target for request in origin.requests] == ["/"] * 4
    assert origin.requests[0]["upgrade"] is None
    assert origin.requests[0].body == inside


def test_grpc_passes_with_its_trailers(serve, origin):
    """To upstream it is HTTP/1.1, where trailers are announced."""
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 7\r\n\r\n"
    origin.answers["/grpc"] = raw(answer, keep=True)
    for filters in ([], [HEADERS]):
        served = serve(*filters, **({} if filters else {"settings": {"filters": []}}))
        got = curl(served, "/grpc", "--header", "te: trailers", "--header", "content-type: application/grpc")
        assert "grpc-status: 7" in got.partition("\n\n")[2]


def test_certificates_are_exchanged_while_it_serves(serve, tmp_path):
    for name in ("old", "new", "now"):
        (tmp_path / name).mkdir()
    old, new = certificate(tmp_path / "old"), certificate(tmp_path / "new")
    now = [tmp_path / "now" / name for name in ("cert.pem", "key.pem")]

    def use(pair: tuple[str, str]) -> None:
        for source, target in zip(pair, now, strict=True):
            shutil.copy(source, f"{target}.new")
            Path(f"{target}.new").replace(target)

    def trusted(pair: tuple[str, str]) -> int:
        return httpx2.get(served.url, verify=ssl.create_default_context(cafile=pair[0]), timeout=30).status_code

    use(old)
    served = serve(HEADERS, watch=True, settings={"tls": {"certificate": str(now[0]), "key": str(now[1])}})
    assert trusted(old) == 200
    use(new)
    assert served.wait_for("loaded the changes")
    assert trusted(new) == 200
    with pytest.raises(httpx2.ConnectError):
        trusted(old)
    now[0].write_text("no certificate")
    assert served.wait_for("not loaded, nothing has changed: TLS: cannot use .*cert.pem")
    assert trusted(new) == 200


def test_no_connection_is_lost_while_certificates_are_exchanged(serve, tmp_path):
    """In each process; and one that cannot be used changes nothing in any."""
    for name in ("old", "new", "now"):
        (tmp_path / name).mkdir()
    pairs = [certificate(tmp_path / "old"), certificate(tmp_path / "new")]
    now = [tmp_path / "now" / name for name in ("cert.pem", "key.pem")]

    def use(pair: tuple[str, str]) -> None:
        for source, target in zip(pair, now, strict=True):
            shutil.copy(source, f"{target}.new")
            Path(f"{target}.new").replace(target)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    ended = threading.Event()

    def ask() -> set[bytes]:
        told = set()
        while not ended.wait(0.01):
            with connected(served) as plain, context.wrap_socket(plain) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                told.add(b"".join(iter(lambda: client.recv(65536), b""))[:13])
        return told

    use(pairs[0])
    tls = {"certificate": str(now[0]), "key": str(now[1])}
    served = serve(HEADERS, watch=True, settings={"tls": tls}, workers=2, access_log="off", log_level="error")
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for number in range(1, 4):
                use(pairs[number % 2])
                reloaded(served, "loaded", 2 * number)
            now[0].write_text("no certificate")
            reloaded(served, "refused", 1)
        finally:
            ended.set()
        assert [one.result() for one in asking] == [{b"HTTP/1.1 200 "}] * 2


def reloaded(served, outcome: str, times: int) -> None:
    """Wait until all processes together have reloaded so often."""
    until = time.monotonic() + 60
    while served.metrics().get(f'proxywasm_reloads_total{{outcome="{outcome}"}}', 0) < times:
        assert time.monotonic() < until, served.log
        time.sleep(0.1)


def test_clients_certificates(serve, tmp_path):
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    cert, key = certificate(tmp_path / "server")
    ca, ca_key = certificate(tmp_path / "client")
    leaf, leaf_key = signed(tmp_path, ca, ca_key)
    served = serve(HEADERS, settings={"tls": {"certificate": cert, "key": key, "client_ca": ca}})
    context = ssl.create_default_context(cafile=cert)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(served.url, verify=context, timeout=30)
    context.load_cert_chain(leaf, leaf_key)
    assert httpx2.get(served.url, verify=context, timeout=30).status_code == 200

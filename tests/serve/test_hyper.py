"""What only the data plane in Rust does: HTTP/2, upgrades, trailers, certificates that are exchanged."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from proxywasm_host.serve.config import Forwarded
from proxywasm_host.serve.forwarded import forward
from tests.serve.conftest import AUTH, BODY, HEADERS
from tests.serve.origin import raw
from tests.serve.test_serve import certificate


@pytest.fixture
def plane() -> str:
    return "hyper"


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


def test_a_websocket_passes_where_there_are_no_filters(serve, origin):
    async def echoes(request, reader, writer) -> bool:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi")
        while data := await reader.read(1000):
            writer.write(data.upper())
        return False

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
    assert served.wait_for("loaded what has changed")
    assert trusted(new) == 200
    with pytest.raises(httpx2.ConnectError):
        trusted(old)
    now[0].write_text("no certificate")
    assert served.wait_for("not loaded, nothing has changed: TLS: cannot use .*cert.pem")
    assert trusted(new) == 200


def test_clients_certificates(serve, tmp_path):
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    cert, key = certificate(tmp_path / "server")
    ca, ca_key = certificate(tmp_path / "client")
    leaf, extensions = tmp_path / "leaf.pem", tmp_path / "extensions"
    extensions.write_text("basicConstraints=CA:FALSE\n")
    for command in (
        ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=me",
         "-keyout", tmp_path / "leaf.key", "-out", tmp_path / "leaf.csr"],
        ["openssl", "x509", "-req", "-in", tmp_path / "leaf.csr", "-CA", ca, "-CAkey", ca_key, "-days", "2", "-out", leaf,
         "-extfile", extensions],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    served = serve(HEADERS, settings={"tls": {"certificate": cert, "key": key, "client_ca": ca}})
    context = ssl.create_default_context(cafile=cert)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(served.url, verify=context, timeout=30)
    context.load_cert_chain(leaf, tmp_path / "leaf.key")
    assert httpx2.get(served.url, verify=context, timeout=30).status_code == 200


def test_a_process_killed_under_load_loses_only_what_it_had(serve):
    served = serve(HEADERS, workers=2, access_log="off", log_level="error")
    lost = []

    def ask(_: int) -> int:
        try:
            with connected(served) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                return int(b"".join(iter(lambda: client.recv(65536), b"")).split()[1])
        except (OSError, IndexError) as error:
            lost.append(error)
            return 0

    worker = served.live()["workers"][0]["pid"]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(ask, range(1000))
        time.sleep(0.1)
        os.kill(worker, signal.SIGKILL)
        codes = list(answers)
    assert set(codes) <= {200, 0}
    assert len(lost) <= 8 + 8  # what was under way, and what had waited to be taken


def test_reloads_under_load_lose_nothing(serve, tmp_path, origin):
    file = tmp_path / "value"
    file.write_text("0")
    served = serve(
        settings={"filters": [{"file": HEADERS, "configuration_file": str(file)}], "watch": True}, log_level="error"
    )
    over = threading.Event()

    def ask() -> list[int]:
        codes = []
        with httpx2.Client(timeout=30) as client:
            while not over.is_set():
                codes.append(client.get(served.url).status_code)
        return codes

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for number in range(1, 21):
            file.write_text(str(number))
            until = time.monotonic() + 20
            while served.get().headers["x-wasm"] != str(number):
                assert time.monotonic() < until, served.log
        over.set()
        codes = [code for each in asking for code in each.result()]
    assert len(codes) > 20
    assert set(codes) == {200}


def test_without_descriptors_it_waits_and_goes_on(serve):
    served = serve(settings={"filters": [], "clients": {"max_connections": 10000}})
    served.get()
    open_now = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (open_now + 8, open_now + 8))
    held = [connected(served) for _ in range(20)]
    time.sleep(0.3)
    for client in held:
        client.close()
    assert served.get().status_code == 200


def test_a_local_response_comes_though_the_client_still_sends(serve, origin):
    served = serve(AUTH, filter_config="secret")
    with connected(served) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome")
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert origin.requests == []


def test_a_client_that_says_nothing_is_late(serve):
    served = serve(settings={"filters": [], "clients": {"header_timeout": 0.3, "keepalive": 0.3}})
    for sent, answers in (
        (b"", b"HTTP/1.1 408 "),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"HTTP/1.1 200 "),
    ):
        with connected(served) as client:
            client.sendall(sent)
            began = time.monotonic()
            got = b"".join(iter(lambda: client.recv(65536), b""))
            assert got.startswith(answers), sent
            assert time.monotonic() - began < 8


def test_upstream_that_starts_again_is_found_again(serve, origin):
    served = serve(HEADERS)
    origin.answers["/bye"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")  # and closes
    assert [served.get(path).status_code for path in ("/", "/bye", "/", "/bye", "/")] == [200] * 5


FORWARDED = [
    {},
    {"xff_num_trusted_hops": 1, "rfc7239": True},
    {"use_remote_address": False},
    {"use_remote_address": False, "xff_num_trusted_hops": 1, "generate_request_id": False},
]
CLIENTS = [
    b"",
    b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: 7\r\n",
    b"X-Forwarded-For: 10.0.0.1, 10.0.0.2:80\r\nX-Forwarded-For: 2001:db8::1\r\nForwarded: for=x\r\nForwarded: for=y\r\n",
    b"X-Forwarded-For: nonsense\r\nConnection: x-forwarded-for, x-mine\r\nX-Mine: 1\r\nX-Forwarded-Proto: gopher\r\n",
]


@pytest.mark.parametrize("forwarded", FORWARDED)
def test_upstream_is_told_the_same_of_clients_by_both_data_planes(serve, origin, forwarded):
    served = serve(settings={"filters": [], "forwarded": forwarded}, access_log="json")
    addresses = []
    for client in CLIENTS:
        with connected(served) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + client + b"\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        fields = [line.split(b": ", 1) for line in (b"host: a\r\n" + client).split(b"\r\n")[:-1]]
        scope = {
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "headers": [(name.lower(), value) for name, value in fields],
        }
        forward(scope, Forwarded(**forwarded))
        addresses.append(scope["client"][0])
        said, expected = (
            sorted((name, value) for name, value in pairs if name.startswith(("x-f", "forw", "x-m")))
            for pairs in (
                origin.requests[-1].headers,
                [(name.decode(), value.decode()) for name, value in scope["headers"]],
            )
        )
        assert said == expected
        assert origin.requests[-1]["x-request-id"] is None or len(origin.requests[-1]["x-request-id"]) in (1, 36)
    assert served.stop() == 0
    assert [json.loads(line)["client"] for line in served.access_log] == addresses


def test_the_demo_shows_both_sides():
    demo = Path(__file__).parent.parent.parent / "examples/serve_demo.py"
    told = subprocess.run([sys.executable, demo], check=True, capture_output=True, text=True, timeout=60).stdout
    client, server = told.split("The server behind the filter was asked:")
    assert ("x-wasm: hello" in client, "server: proxy-wasm" in client) == (True, True)
    assert ("x-wasm: hello" in server, "x-remove-me" in server) == (True, False)
    assert '"GET /hello HTTP/1.1" 200 ' in server


def test_the_example():
    ran = subprocess.run(
        [sys.executable, "examples/serve_demo.py"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    asked = ran.stdout.partition("The server behind the filter was asked:\n\n")[2].partition("The access log:")[0].lower()
    assert ("x-wasm: hello" in asked, "x-remove-me" in asked, asked.startswith("get /hello http/1.1\n")) == (True, False, True)
    answer = ran.stdout.partition("The client got:\n\n")[2].partition("\n\n")[0]
    assert answer.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "server: proxy-wasm" in answer.lower()
    assert '"GET /hello HTTP/1.1" 200' in ran.stdout.partition("The access log:")[2]

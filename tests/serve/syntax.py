"""What servers make of messages of all kinds, sent raw: the table of docs/http-syntax.md.

    python -m tests.serve.syntax      writes it; nginx is asked if it is on PATH (or NGINX says where it is)

A cell is the status of the first answer, or ``-`` if the connection was closed without one; behind it, in brackets, how
many requests upstream got, if that is not one, or for what was refused more than one. Over HTTP/2 it may be ``reset``,
if the stream was.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from tests.envoy.rig import _listener, find_envoy
from tests.serve.ports import closed_port, listening

PAGE = Path(__file__).parent.parent.parent / "docs/http-syntax.md"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
CASES = {
    "an ordinary request": GET + b"\r\n",
    "two, one after the other": (GET + b"\r\n") * 2,
    "an empty line before it": b"\r\n" + GET + b"\r\n",
    "HTTP/1.0 without Host": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.1 without Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: b\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a slash": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "HTTP/2.0 in the request line": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/1.9": b"GET / HTTP/1.9\r\nHost: a\r\n\r\n",
    "a version of no kind": b"GET / HTTQ/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab before the target": b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is not a token": b"G{T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a fragment": b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a control character": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "* for GET": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target in absolute form": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "lines that end with LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "one line that ends with LF": GET + b"X: 1\n\r\n",
    "CR within a value": GET + b"X: a\rb\r\n\r\n",
    "NUL within a value": GET + b"X: a\0b\r\n\r\n",
    "0x7f within a value": GET + b"X: a\x7fb\r\n\r\n",
    "bytes above 0x7f in a value": GET + b"X: \xff\r\n\r\n",
    "a folded header": GET + b"X: 1\r\n 2\r\n\r\n",
    "white space before the first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "white space before the colon": GET + b"X : 1\r\n\r\n",
    "a header without a colon": GET + b"X\r\n\r\n",
    "a header without a name": GET + b": 1\r\n\r\n",
    "a name that is not a token": GET + b"X(: 1\r\n\r\n",
    "Content-Length twice, the same": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "Content-Length twice, different": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "Content-Length: 2, 2": POST + b"Content-Length: 2, 2\r\n\r\nok",
    "Content-Length: +2": POST + b"Content-Length: +2\r\n\r\nok",
    "Content-Length: -1": POST + b"Content-Length: -1\r\n\r\n",
    "Content-Length: 0x2": POST + b"Content-Length: 0x2\r\n\r\nok",
    "Content-Length without a value": POST + b"Content-Length:\r\n\r\n",
    "Content-Length of 30 digits": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "Content-Length before Transfer-Encoding": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "Transfer-Encoding before Content-Length": CHUNKED + b"Content-Length: 6\r\n\r\n0\r\n\r\n" + HIDDEN,
    "Transfer-Encoding: xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "Transfer-Encoding: gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "Transfer-Encoding: chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding with a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "Transfer-Encoding with HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n",
    "chunks": CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
    "a chunk with an extension": CHUNKED + b"\r\n2;a=b\r\nok\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"\r\n0x2\r\nok\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"\r\n+2\r\nok\r\n0\r\n\r\n",
    "a chunk size with a space behind it": CHUNKED + b"\r\n2 \r\nok\r\n0\r\n\r\n",
    "a chunk size of 17 digits": CHUNKED + b"\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
    "a chunk size whose line ends with LF": CHUNKED + b"\r\n2\nok\r\n0\r\n\r\n",
    "a chunk extension with LF in it": CHUNKED + b"\r\n2;\nxx\r\nok\r\n0\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + b"\r\n2\r\nokay\r\n0\r\n\r\n",
    "a chunk whose data end with LF": CHUNKED + b"\r\n2\r\nok\n0\r\n\r\n",
    "trailers": CHUNKED + b"\r\n0\r\nX: 1\r\n\r\n",
    "a trailer without a colon": CHUNKED + b"\r\n0\r\nX\r\n\r\n",
    "a header of 100 kB": GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "200 headers": GET + b"X: 1\r\n" * 200 + b"\r\n",
    "a target of 100 kB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade to h2c with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN),
}  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = list[tuple[str, str]]
PSEUDO: Fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
POSTED: Fields = [(":method", "POST"), *PSEUDO[1:]]


def but(**changed: str | None) -> Fields:
    """The pseudo-headers of a request with some changed, or left out."""
    return [(name, new) for name, value in PSEUDO if (new := changed.get(name[1:], value)) is not None]


HTTP2_CASES: dict[str, tuple[Fields, bytes | None, Fields]] = {
    # headers, body, trailers; without a body the headers are all there is
    **{
        name: (fields, None, [])
        for name, fields in {
            "an ordinary request over HTTP/2": PSEUDO,
            "no :method": but(method=None),
            "no :path": but(path=None),
            "no :scheme": but(scheme=None),
            "an empty :path": but(path=""),
            ":path twice": [*PSEUDO, (":path", "/b")],
            "a pseudo-header that is not known": [*PSEUDO, (":x", "1")],
            ":status in a request": [*PSEUDO, (":status", "200")],
            "a pseudo-header behind another header": [*PSEUDO[:3], ("x", "1"), PSEUDO[3]],
            "a method with a space": but(method="GET /x"),
            "a method with CR and LF": but(method="GET / HTTP/1.1\r\nx: 1\r\n\r\n"),
            "a :path without a slash": but(path="x"),
            "a :path with a space": but(path="/ HTTP/1.1"),
            "a :path with CR and LF": but(path="/ HTTP/1.1\r\nx: 1"),
            "a :path with a fragment": but(path="/#x"),
            "a :path that is a URL": but(path="http://b/"),
            "a :path of * for GET": but(path="*"),
            "a :scheme with a slash": but(scheme="http://b/x?"),
            ":authority and another Host": [*PSEUDO, ("host", "b")],
            "Host without :authority": [*but(authority=None), ("host", "a")],
            "neither Host nor :authority": but(authority=None),
            "an :authority with a slash": but(authority="a/b"),
            "an :authority with a user": but(authority="u@a"),
            "an :authority with a space": but(authority="a b"),
            "a name in upper case": [*PSEUDO, ("X", "1")],
            "a name with a space": [*PSEUDO, ("x y", "1")],
            "a name with a colon": [*PSEUDO, ("x:y", "1")],
            "a name with CR and LF": [*PSEUDO, ("x\r\ny", "1")],
            "a value with CR and LF": [*PSEUDO, ("x", "1\r\ny: 2")],
            "a value with LF": [*PSEUDO, ("x", "1\ny: 2")],
            "a value with NUL": [*PSEUDO, ("x", "a\0b")],
            "a value with 0x7f": [*PSEUDO, ("x", "a\x7fb")],
            "a value that begins with a space": [*PSEUDO, ("x", " a")],
            "connection": [*PSEUDO, ("connection", "close")],
            "keep-alive": [*PSEUDO, ("keep-alive", "5")],
            "upgrade": [*PSEUDO, ("upgrade", "h2c")],
            "transfer-encoding": [*PSEUDO, ("transfer-encoding", "chunked")],
            "te: trailers": [*PSEUDO, ("te", "trailers")],
            "te: gzip": [*PSEUDO, ("te", "gzip")],
            "a length without a body": [*POSTED, ("content-length", "2")],
            "CONNECT over HTTP/2": [(":method", "CONNECT"), (":authority", "a:80")],
            "CONNECT with a :path": but(method="CONNECT"),
            "CONNECT for an unknown protocol": [*but(method="CONNECT"), (":protocol", "x")],
            ":protocol for GET": [*PSEUDO, (":protocol", "websocket")],
            "200 headers over HTTP/2": [*PSEUDO, *[("x", "1")] * 200],
        }.items()
    },
    "a body without a length": (POSTED, b"ok", []),
    "a body of its length": ([*POSTED, ("content-length", "2")], b"ok", []),
    "a body that is shorter than its length": ([*POSTED, ("content-length", "9")], b"ok", []),
    "a body that is longer than its length": ([*POSTED, ("content-length", "2")], b"ok" + HIDDEN, []),
    "a length that is no number": ([*POSTED, ("content-length", "+2")], b"ok", []),
    "two lengths, the same": ([*POSTED, *[("content-length", "2")] * 2], b"ok", []),
    "two lengths, different": ([*POSTED, ("content-length", "2"), ("content-length", "3")], b"ok", []),
    "transfer-encoding with a body": ([*POSTED, ("transfer-encoding", "chunked")], b"0\r\n\r\n" + HIDDEN, []),
    "trailers over HTTP/2": (POSTED, b"ok", [("x", "1")]),
    "a pseudo-header in trailers": (POSTED, b"ok", [(":path", "/hidden")]),
    "a name in upper case in trailers": (POSTED, b"ok", [("X", "1")]),
    "a trailer with CR and LF": (POSTED, b"ok", [("x", "1\r\n\r\n" + HIDDEN.decode())]),
}


class Upstream:
    """Answers each request that it understands with ``ok``, and counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self.socket = listening()
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self.socket.accept()[:1], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError), connection.makefile("rb") as file:
            while line := file.readline():
                fields = dict(each.lower().strip().partition(b":")[::2] for each in iter(file.readline, b"\r\n"))
                self.requests += 1
                if b"transfer-encoding" in fields:
                    while size := int(file.readline().partition(b";")[0], 16):
                        file.read(size + 2)
                    while file.readline().strip():
                        pass
                else:
                    file.read(int(fields.get(b"content-length", b"0")))
                body = b"" if line.startswith(b"HEAD") else b"ok"
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + body)


def ask(port: int, upstream: Upstream, message: bytes) -> str:
    """The cell of a server for a message of HTTP/1."""
    before = upstream.requests
    got = b""
    with closing(socket.create_connection(("127.0.0.1", port), 2)) as client:
        with suppress(OSError):
            client.sendall(message)
        client.settimeout(3)
        with suppress(OSError):
            while data := client.recv(65536):
                got += data
                client.settimeout(0.25)
    time.sleep(0.02)
    return cell(got[9:12].decode() if got.startswith(b"HTTP/1.") else "-", upstream.requests - before)


def ask_http2(port: int, upstream: Upstream, fields: Fields, body: bytes | None, trailers: Fields) -> str:
    """The same for one of HTTP/2, which no library would send."""
    encoder, before = Encoder(), upstream.requests
    frames: list[Frame] = [SettingsFrame(0)]

    def head(fields: Fields, *flags: str) -> HeadersFrame:
        return HeadersFrame(1, data=encoder.encode(fields), flags=["END_HEADERS", *flags])

    frames.append(head(fields, *(["END_STREAM"] if body is None else [])))
    if body is not None:
        frames.append(DataFrame(1, data=body, flags=[] if trailers else ["END_STREAM"]))
    if trailers:
        frames.append(head(trailers, "END_STREAM"))
    status = "-"
    with closing(socket.create_connection(("127.0.0.1", port), 3)) as client, suppress(OSError):
        client.sendall(PREFACE + b"".join(frame.serialize() for frame in frames))
        status = answered(client)
    time.sleep(0.02)
    return cell(status, upstream.requests - before)


def answered(client: socket.socket) -> str:
    """The status of the response, ``reset``, or ``-`` if the connection ends before."""
    decoder, got = Decoder(), b""
    while data := client.recv(65536):
        got += data
        while len(got) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(got[:9]))
            if len(got) < 9 + size:
                break
            frame.parse_body(memoryview(got[9 : 9 + size]))
            got = got[9 + size :]
            if isinstance(frame, HeadersFrame):
                return dict(decoder.decode(frame.data))[":status"]
            if isinstance(frame, RstStreamFrame):
                return "reset"
            if isinstance(frame, GoAwayFrame):
                return "-"
    return "-"


def cell(status: str, requests: int) -> str:
    return status if requests == 1 or (status[:1] != "2" and requests < 2) else f"{status} ({requests})"


def column(port: int, upstream: Upstream, http2_port: int = 0) -> dict[str, str]:
    """What a server makes of all of them; some speak HTTP/2 on a port of its own."""
    http1 = {name: ask(port, upstream, message) for name, message in CASES.items()}
    return http1 | {name: ask_http2(http2_port or port, upstream, *message) for name, message in HTTP2_CASES.items()}


@contextmanager
def started(command: list[Any], port: int) -> Iterator[int]:
    """A program that listens on this port."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < until, command
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def envoy(folder: Path, upstream: Upstream) -> Iterator[int]:
    """Envoy as it is by default, with a route to upstream: its port."""
    port = closed_port()
    listener = _listener("proxy", [], {"route": {"cluster": "up"}}, None)
    listener["address"]["socket_address"]["port_value"] = port
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream.port}}}}
    cluster = {"name": "up", "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]}}
    plain = {key: value for key, value in listener.items() if key != "@type"}
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [plain], "clusters": [cluster]}}))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "off"]
    with started([find_envoy(), "-c", config, *options], port):
        yield port


@contextmanager
def nginx(program: str, folder: Path, upstream: Upstream) -> Iterator[tuple[int, int]]:
    """nginx as it is by default, with a proxy_pass to upstream: its ports, for HTTP/1 and HTTP/2."""
    port, http2_port = closed_port(), closed_port()
    config = folder / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}} "
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{http2_port} http2; location / {{ proxy_http_version 1.1; "
        f'proxy_set_header Connection ""; proxy_pass http://127.0.0.1:{upstream.port}; }} }} }}'
    )
    with started([program, "-c", config, "-p", folder], port):
        yield port, http2_port


def page(columns: dict[str, dict[str, str]]) -> str:
    """The page, of what each server made of them."""
    lines = [
        "# Odd messages, and the answers of servers",
        "",
        "This page compares how `proxywasm serve`, Envoy and nginx answer odd or broken requests. It shows which messages `serve` refuses before a filter or upstream sees them. `python -m tests.serve.syntax` writes the page and has the bytes of each request; `tests/serve/test_syntax.py` checks it. Each server runs with its defaults in front of the same upstream.",
        "A cell is the status of the first answer, or `-` if the server closed the connection without an answer or sent nothing. A number in parentheses is the number of requests that upstream got, if it is not one, or if a refused message became several.",
        "`proxywasm serve` accepts nothing that both others refuse, with one exception: h2 silently removes a pseudo-header in trailers of HTTP/2, so neither filters nor upstream get it.",
        "",
        *table(columns, CASES),
        "",
        "## HTTP/2",
        "",
        "These requests use HTTP/2 with prior knowledge; the upstream is the same, and uses HTTP/1.1. `reset` means that the server reset the stream.",
        "",
        *table(columns, HTTP2_CASES),
        "",
        "Of the 145 cases of h2spec, `serve` passes all but one (`tests/serve/test_h2spec.py`): because the port also serves HTTP/1.1, an invalid preface is a bad request line there, which is answered 400. Envoy 1.40 with its defaults failed 12 of them.",
        "",
    ]
    return "\n".join(lines)


def table(columns: dict[str, dict[str, str]], names: Iterable[str]) -> list[str]:
    return [
        f"| | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {name} | {' | '.join(column[name] for column in columns.values())} |" for name in names),
    ]


def read() -> dict[str, dict[str, str]]:
    """The columns of the page."""
    rows = [line.strip("|\n ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    names = rows[0]
    return {name: {row[0]: row[1 + at] for row in rows if row[0] not in names} for at, name in enumerate(names)}


def main() -> None:
    columns: dict[str, dict[str, str]] = {}
    ours, envoys, nginxs = Upstream(), Upstream(), Upstream()  # what still comes late is counted for who has sent it
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, port = Path(name), closed_port()
        (folder / "none.yaml").write_text(json.dumps({"upstream": f"http://127.0.0.1:{ours.port}", "filters": []}))
        where = ["--listen", f"127.0.0.1:{port}", "--access-log", "off"]
        command = [sys.executable, "-m", "proxywasm_host.cli", "serve", "--config", folder / "none.yaml", *where]
        columns["serve"] = column(stack.enter_context(started(command, port)), ours)
        columns["Envoy"] = column(stack.enter_context(envoy(folder, envoys)), envoys)
        program = os.environ.get("NGINX") or shutil.which("nginx")
        if program:
            port, http2_port = stack.enter_context(nginx(program, folder, nginxs))
            columns["nginx"] = column(port, nginxs, http2_port)
        else:
            columns["nginx"] = read()["nginx"]
    PAGE.write_text(page(columns))


if __name__ == "__main__":
    main()

"""``proxywasm serve`` as its users have it: a process, real clients, a real upstream."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from proxywasm_host.cli import main
from tests.serve.conftest import AUTH, BODY, HEADERS, PANICS
from tests.serve.origin import raw
from tests.serve.ports import closed_port
from tests.serve.test_reload import chain, loaded, put
from tests.support import FILTERS

GO = HEADERS.replace("rust", "go")
ASSEMBLYSCRIPT = HEADERS.replace("rust/headers", "assemblyscript/headers_0_2_1")
TOKEN = {"authorization": "Bearer secret"}


def test_filters_of_all_languages(on_engine, engine, origin):
    filters = [
        {"file": GO, "configuration": "from Go"},
        {"file": ASSEMBLYSCRIPT, "configuration": "from AssemblyScript"},
        {"file": AUTH, "configuration": "secret"},
        {"file": BODY},
    ]
    served = on_engine(settings={"filters": filters, "sample": 1}, access_log="json")
    denied = served.get("/a?b=c")
    assert (denied.status_code, denied.headers["x-wasm"]) == (401, "from AssemblyScript, from Go")
    assert origin.requests == []
    allowed = httpx2.post(served.url + "/a%2F?b=c", content=b"hello", headers=TOKEN, timeout=30)
    seen = allowed.json()
    assert (allowed.status_code, seen["method"], seen["target"], seen["body"]) == (200, "POST", "/a%2F?b=c", "HELLO")
    assert [value for name, value in seen["headers"] if name == "x-wasm"] == ["from Go", "from AssemblyScript"]
    assert dict(seen["headers"])["x-forwarded-for"] == "127.0.0.1"
    metrics = served.metrics()
    assert served.stop() == 0
    lines = [json.loads(line) for line in served.access_log]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/a?b=c", 401),
        ("POST", "/a%2F?b=c", 200),
    ]
    assert metrics['proxywasm_requests_total{code="200"}'] == 1
    assert metrics['proxywasm_requests_total{code="401"}'] == 1
    assert metrics['proxywasm_callbacks_total{callback="on_request_headers",plugin="auth"}'] == 2
    assert metrics['proxywasm_hostcalls_total{hostcall="proxy_send_local_response",plugin="auth",status="OK"}'] == 1
    assert metrics['proxywasm_filter_duration_seconds_count{plugin="auth"}'] == 2
    assert metrics['proxywasm_vm_memory_bytes{plugin="headers"}'] > 65536
    assert metrics['wasmcustom_auth_denied_total{name="auth.denied"}'] == 1


def test_what_does_not_start_says_why(serve, tmp_path):
    broken = tmp_path / "broken.wasm"
    broken.write_bytes(b"no wasm")
    for filters, options, code, says in (
        ([str(broken)], {}, 3, "broken.wasm: "),
        ([AUTH], {}, 5, "refused its configuration"),
        ([str(tmp_path / "none.wasm")], {}, 2, "cannot read the filter"),
        ([HEADERS], {"workers": 2, "filter_config": "x", "engine": "nonsense"}, 4, "nonsense"),
        ([AUTH], {"threads": 2}, 5, "refused its configuration"),
        ([HEADERS], {"threads": 2, "workers": 2}, 2, "threads need a single process"),
        ([AUTH], {"workers": 2}, 5, "refused its configuration"),
        ([], {"settings": {"filters": [{"file": str(tmp_path / "none.wasm")}]}}, 2, "cannot read the filter"),
    ):
        served = serve(*filters, **options)
        assert (served.process.wait(30), says in served.log) == (code, True), served.log
        assert " serving http" not in served.log
        assert "Traceback" not in served.log


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say what to serve"),
        ([HEADERS], "say what to serve"),
        ([HEADERS, "--upstream", "x"], "upstream.url: 'x' is not a URL of a server"),
        ([HEADERS, "--upstream", "http://x", "--listen", "x"], "listen: 'x' is not an address"),
        ([HEADERS, "--upstream", "http://x", "--cluster", "x"], "'x' is not a cluster: write it as NAME=URL"),
        (["--config", "/none.yaml"], "cannot read the configuration /none.yaml"),
        ([HEADERS, "--upstream", "http://x", "--filter-config", "a", "--filter-config", "b"], "--filter-config was given 2 times for 1 filter"),
    ],
)  # fmt: skip
def test_a_command_line_that_is_wrong(arguments, says, capsys):
    assert main(["serve", *arguments]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken(capsys, monkeypatch):
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)  # other tests in this process log, too
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", HEADERS, "--upstream", "http://x", "--listen", f"127.0.0.1:{port}"]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


def test_upstream_is_down(serve):
    served = serve(HEADERS, upstream=f"http://127.0.0.1:{closed_port()}", access_log="json")
    answer = served.get()
    assert answer.status_code == 503
    assert answer.text.startswith(
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    )
    assert answer.headers["x-wasm"] == "hello"
    assert served.stop() == 0
    assert (
        json.loads(served.access_log[0])["details"]
        == "upstream_reset_before_response_started{remote_connection_failure}"
    )


def test_a_guest_that_traps_is_told_and_healed(on_engine):
    filters = [
        {"file": PANICS, "configuration": "request_headers", "failure_policy": "fail_reload", "reload_interval": 1}
    ]
    served = on_engine(settings={"filters": filters})
    assert [served.get().status_code for _ in range(2)] == [503, 503]
    until = time.monotonic() + 60
    while served.metrics()['proxywasm_failures_total{cause="trap",plugin="panics"}'] < 2:
        assert served.get().status_code == 503
        assert time.monotonic() < until
    assert served.metrics()['proxywasm_restarts_total{plugin="panics"}'] >= 1
    served.wait_for("plugin 'panics' failed in a callback")
    assert served.live()["workers"][0]["chain"][0]["state"] == "failed"


def test_a_guest_that_loops_is_stopped(on_engine, engine):
    if not engine.capabilities.deadline:
        pytest.skip(f"{engine.name} has no deadline")
    served = on_engine(PANICS, filter_config="loop:request_headers", deadline="0.2")
    assert served.get().status_code == 503
    assert served.metrics()['proxywasm_failures_total{cause="deadline",plugin="panics"}'] == 1


def test_a_response_that_breaks_off_breaks_off_for_the_client(serve, origin):
    origin.answers["/"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    served = serve(HEADERS)
    with pytest.raises(httpx2.RemoteProtocolError):
        served.get()
    assert "Traceback" not in served.log
    assert served.get("/other").status_code == 200


def talk(served, message: bytes) -> bytes:
    """What is answered to these bytes, until the connection is closed."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(message)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_odd_on_the_wire(serve, origin):
    served = serve(HEADERS)
    pipelined = b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answers = talk(served, pipelined)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert [request.target for request in origin.requests] == ["/1", "/2"]
    smuggled = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    assert talk(served, smuggled).startswith(b"HTTP/1.1 400 ")
    upgrade = b"GET /3 HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
    assert talk(served, upgrade).startswith(b"HTTP/1.1 200 OK")
    assert origin.requests[-1]["upgrade"] == "websocket", "which answers as if it were none"


def test_requests_under_way_end_before_the_server_does(serve, origin):
    release = threading.Event()

    async def slow(request, reader, writer) -> bool:
        while not release.is_set():
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return True

    origin.answers["/slow"] = slow
    served = serve(HEADERS)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.get, "/slow")
        while not origin.requests:
            time.sleep(0.01)
        served.process.terminate()
        time.sleep(0.2)
        with pytest.raises(httpx2.TransportError):
            served.get()
        release.set()
        assert answer.result().text == "ok"
    assert served.process.wait(10) == 0


def test_callouts_go_to_clusters(serve, origin):
    async def decide(request, reader, writer) -> bool:
        status = b"200 OK" if request["authorization"] == "Bearer secret" else b"403 Forbidden"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        return True

    origin.answers["/check"] = decide
    served = serve(AUTH, filter_config="callout:idp", cluster=f"idp={origin.url}")
    answers = [served.get(headers=headers).status_code for headers in (TOKEN, {"authorization": "Bearer wrong"})]
    assert answers == [200, 403]
    assert [request.target for request in origin.requests] == ["/check", "/", "/check"]


def certificate(directory) -> tuple[str, str]:
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)


def signed(directory, ca: str, ca_key: str) -> tuple[str, str]:
    """The certificate of a client, and its key."""
    leaf, key, extensions = directory / "leaf.pem", directory / "leaf.key", directory / "extensions"
    extensions.write_text("basicConstraints=CA:FALSE\n")
    for command in (
        ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=me",
         "-keyout", key, "-out", directory / "leaf.csr"],
        ["openssl", "x509", "-req", "-in", directory / "leaf.csr", "-CA", ca, "-CAkey", ca_key, "-days", "2", "-out", leaf,
         "-extfile", extensions],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return str(leaf), str(key)


def test_tls_on_both_sides(serve, tmp_path):
    """One server is the upstream of another, both with TLS; who does not trust the other is told so."""
    cert, key = certificate(tmp_path)
    tls = {"certificate": cert, "key": key}
    inner = serve(settings={"filters": [], "tls": tls})
    assert inner.url.startswith("https://")
    outer = serve(HEADERS, settings={"tls": tls, "upstream": {"url": inner.url, "tls": {"ca": cert}}}, upstream=None)
    import ssl

    answer = httpx2.get(outer.url, verify=ssl.create_default_context(cafile=cert), timeout=30)
    assert (answer.status_code, answer.headers["x-wasm"]) == (200, "hello")
    forwarded = dict(answer.json()["headers"])
    assert (forwarded["x-forwarded-proto"], forwarded["x-forwarded-for"]) == ("https", "127.0.0.1,127.0.0.1")
    doubtful = serve(HEADERS, settings={"upstream": {"url": inner.url}}, upstream=None)
    answer = httpx2.get(doubtful.url, timeout=30)
    assert answer.status_code == 503
    assert "certificate verify failed" in answer.text


def test_processes_share_the_port_and_their_numbers_add_up(serve):
    served = serve(AUTH, filter_config="secret", workers=2, access_log="off")
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: served.get(headers=TOKEN), range(40))} == {200}
    metrics = served.metrics()
    assert metrics['proxywasm_requests_total{code="200"}'] == 40
    assert metrics['wasmcustom_auth_allowed_total{name="auth.allowed"}'] == 40
    live = served.live()
    assert len(live["workers"]) == 2
    assert served.stop() == 0


def test_threads_share_the_port_and_what_filters_share(on_engine, origin):
    release = []

    async def slow(request, reader, writer) -> bool:
        while not release:
            await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True

    origin.answers["/slow"] = slow
    served = on_engine(AUTH, filter_config="secret", threads=3, access_log="off")
    served.wait_for("serving")
    workers = served.live()["workers"]
    assert len({worker["pid"] for worker in workers}) == 3
    assert workers[0]["pid"] == served.process.pid
    at_rest = [worker["chain"][0]["contexts"] for worker in workers]
    host, _, port = served.url.removeprefix("http://").partition(":")
    clients = []
    try:
        while sum(map(int.__gt__, contexts(served), at_rest)) < 2:  # until two threads have some
            clients.append(socket.create_connection((host, int(port)), 30))
            clients[-1].sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n")
            assert len(clients) < 1000
        release.append(True)
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 200"}
    finally:
        for client in clients:
            client.close()
    metrics = served.metrics()
    assert metrics['proxywasm_requests_total{code="200"}'] == len(clients)
    assert metrics['wasmcustom_auth_allowed_total{name="auth.allowed"}'] == len(clients)
    assert served.stop() == 0


def contexts(served) -> list[int]:
    """How many each worker has."""
    return [worker["chain"][0]["contexts"] for worker in served.live()["workers"]]


def test_all_threads_reload(serve, tmp_path):
    file = tmp_path / "chain.json"
    put(file, chain("one"))
    served = serve(config=file, threads=2)
    assert served.get().headers["x-wasm"] == "one"
    put(file, chain("two"))
    loaded(served, 2)
    assert {served.get().headers["x-wasm"] for _ in range(10)} == {"two"}
    put(file, chain("", file=AUTH))
    served.wait_for("not loaded, nothing has changed")
    assert {served.get().headers["x-wasm"] for _ in range(10)} == {"two"}
    assert served.stop() == 0


def test_a_sampled_request_counts_for_all(serve):
    served = serve(HEADERS, settings={"sample": 5})
    for _ in range(2):
        for _ in range(5):
            served.get()
        time.sleep(0.25)
    name = 'proxywasm_callbacks_total{callback="on_request_headers",plugin="headers"}'
    assert served.metrics()[name] == 10


def test_a_process_that_dies_is_replaced(serve):
    served = serve(HEADERS, workers=2)
    served.get()
    until = time.monotonic() + 30
    while len(before := served.live()["workers"]) < 2:
        assert time.monotonic() < until
    os.kill(before[0]["pid"], signal.SIGKILL)
    while len({worker["pid"] for worker in served.live()["workers"]} - {before[0]["pid"]}) < 2:
        assert time.monotonic() < until, served.log
        time.sleep(0.05)
    assert served.get().status_code == 200
    assert served.stop() == 0


def test_a_process_that_finds_a_broken_configuration_waits_for_a_better_one(serve, tmp_path):
    """It has taken the place of one that died; the others serve on."""
    file = tmp_path / "chain.json"

    def configured(**filter: str) -> None:
        file.write_text(json.dumps({"filters": [filter], "workers": 2, "watch": True}))

    def workers(number: int) -> list[int]:
        until = time.monotonic() + 30
        while len(found := [worker["pid"] for worker in served.live()["workers"]]) != number:
            assert time.monotonic() < until, served.log
            time.sleep(0.05)
        return found

    configured(file=HEADERS, configuration="one")
    served = serve(config=file)
    for times, content in ((1, "two"), (2, "")):
        before = workers(2)
        configured(file=AUTH)
        served.wait_for("(?s)" + times * "not loaded, nothing has changed.*")
        os.kill(before[0], signal.SIGKILL)
        served.wait_for("(?s)" + times * "this process will serve when this is fixed.*")
        assert workers(1) == before[1:]
        assert served.get().status_code == 200
        if content:
            configured(file=HEADERS, configuration=content)
            workers(2)
            assert served.get().headers["x-wasm"] == content
    assert served.stop() == 0


def test_processes_end_when_the_one_that_started_them_is_killed(serve):
    served = serve(HEADERS, workers=2)
    workers = [worker["pid"] for worker in served.live()["workers"]]
    assert len(workers) == 2
    served.process.kill()
    served.process.wait(10)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, served.log
        time.sleep(0.02)
    with pytest.raises(httpx2.ConnectError):
        served.get()


@pytest.mark.parametrize("workers", [1, 2])
def test_health_of_a_guest_that_failed_for_good(serve, workers):
    filters = [{"file": PANICS, "configuration": "request_headers", "failure_policy": "fail_closed"}]
    served = serve(settings={"filters": filters}, workers=workers)
    assert httpx2.get(f"{served.admin}/healthz").status_code == 200
    served.get()
    health = httpx2.get(f"{served.admin}/healthz")
    assert (health.status_code, "no working guest for panics" in health.text) == (503, True)


def test_the_admin_port_can_only_be_read(serve):
    served = serve(HEADERS)
    served.get()
    assert httpx2.get(f"{served.admin}/healthz").text == "ok\n"
    assert httpx2.post(f"{served.admin}/metrics").status_code == 405
    assert httpx2.get(f"{served.admin}/etc/passwd").status_code == 404
    assert httpx2.head(f"{served.admin}/").content == b""
    assert "default-src 'none'" in httpx2.get(f"{served.admin}/").headers["content-security-policy"]
    assert served.metrics()['proxywasm_requests_total{code="200"}'] == 1


def test_the_example_serves(serve, origin):
    served = serve(config=FILTERS.parent.parent / "examples/gateway.yaml")
    denied, allowed = served.get(), served.get(headers={"authorization": "Bearer secret"})
    assert (denied.status_code, denied.headers["x-wasm"]) == (401, "from the gateway")
    assert ["x-wasm", "from the gateway"] in allowed.json()["headers"]
    assert served.metrics()['wasmcustom_auth_denied_total{name="auth.denied"}'] == 1
    assert served.stop() == 0
    assert [json.loads(line)["status"] for line in served.access_log] == [401, 200]


def test_the_example_of_routes_serves(serve):
    served = serve(config=FILTERS.parent.parent / "examples/routes.yaml", upstream=None)

    def ask(path: str, **headers: str) -> int:
        return served.get(path, headers={"host": "v2.api.example.com", **headers}).status_code

    assert ask("/api/x") == 401
    assert ask("/api/x", authorization="Bearer secret") in (200, 404, 503), "whoever listens on those ports"
    assert served.stop() == 0
    lines = map(json.loads, served.access_log)
    assert [(line["route"], line["upstream"] is None) for line in lines] == [("api", True), ("api", False)]


def test_the_name_of_the_machine_is_there_for_plugins(serve):
    script = "@on_configure\nget_property xds%00node%00id"
    served = serve(settings={"filters": [{"file": str(FILTERS / "c/probe_0_2_1.wasm"), "configuration": script}]})
    assert served.wait_for(rf'get_property\(xds%00node%00id\) = 0 "{re.escape(socket.gethostname())}"')


def test_upstream_that_starts_again_is_found_again(serve, origin):
    served = serve(HEADERS)
    origin.answers["/bye"] = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")  # and closes
    assert [served.get(path).status_code for path in ("/", "/bye", "/", "/bye", "/")] == [200] * 5


@pytest.mark.carries("serve", "local responses")
def test_a_local_response_comes_though_the_client_still_sends(serve, origin):
    served = serve(AUTH, filter_config="secret")
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsome")
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert origin.requests == []


def test_the_example():
    ran = subprocess.run(
        [sys.executable, "examples/serve_demo.py"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    asked = (
        ran.stdout.partition("The server behind the filter got:\n\n")[2].partition("The access log:")[0].lower()
    )
    assert ("x-wasm: hello" in asked, "x-remove-me" in asked, asked.startswith("get /hello http/1.1\n")) == (
        True,
        False,
        True,
    )
    answer = ran.stdout.partition("The client got:\n\n")[2].partition("\n\n")[0]
    assert answer.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "server: proxy-wasm" in answer.lower()
    assert '"GET /hello HTTP/1.1" 200' in ran.stdout.partition("The access log:")[2]

"""HTTP callouts over HTTP/2 with TLS, in every driver, to a server that is killed at each step."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

from proxywasm_host.driver.clusters import Cluster, Clusters
from tests.driver.test_grpc import certificate

ANSWERED = "@on_http_call_response\nget_header_map_value 6 :status\nget_buffer_bytes 4 0 200\nget_status\nsay done\n"
AWAY = "upstream connect error or disconnect/reset before headers. reset reason: "


class Server:
    def __init__(self, tls: tuple[str, str]) -> None:
        self.tls, self.port = tls, 0
        self.start()

    def start(self) -> None:
        """The first time on a port that the system chooses, later on the same."""
        command = [sys.executable, str(Path(__file__).with_name("http2_server.py")), str(self.port), *self.tls]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.next("listening"))

    def next(self, what: str) -> str:
        """What it says next, which is to be this."""
        said, _, rest = self.process.stdout.readline().strip().partition(" ")
        assert said == what
        return rest

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def clusters(self, **options) -> Clusters:
        options = {"verify": self.tls[0], "http2": True, **options}
        return Clusters({"up": Cluster(f"https://localhost:{self.port}", **options)})


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls") / "server")


@pytest.fixture
def server(tls):
    server = Server(tls)
    yield server
    server.kill()


def call(path: str, method: str = "GET", body: str = '""', timeout: int = 0) -> str:
    return f'http_call up :method={method}&:path=/{path}&:authority=au.example&x-a=1 {body} "" {timeout}\n'


def test_a_call_and_its_answer(run, server):
    script = "@on_configure\n" + call("echo?a=%2520b", "POST", "hello") + ANSWERED
    told = ":method=POST :authority=au.example :scheme=https :path=/echo?a=%20b x-a=1 content-length=5 hello"
    status, body, ended = run(script, server.clusters())[1:]
    assert status == 'get_header_map_value(6, :status) = 0 "200"'
    assert sorted(unquote(body.partition(' = 0 "')[2].rstrip('"')).split()) == sorted(told.split())
    assert ended == 'get_status() = 0 0 ""'


def test_an_address_is_called_over_tls_if_the_filter_says_so(run, upstream, tls):
    """And the name that it says is checked each time, whoever has called the address before."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*tls)
    upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
    clusters = Clusters(any_host=Cluster("http://any.host", verify=tls[0], http2=True))
    first, second = (
        f'http_call 127.0.0.1:{upstream.server_port} :method=GET&:path=/echo&:scheme=https&:authority={authority} "" "" 0\n'
        for authority in ("localhost", "au.example")
    )
    messages = run(f"@on_configure\n{first}@on_http_call_response/1\nget_header_map_value 6 :status\n{second}" + ANSWERED, clusters)
    assert [message[-5:] for message in messages if ":status" in message] == ['"200"', '"503"']


def test_a_server_that_wants_a_certificate(run, upstream, tls, tmp_path):
    ours = certificate(tmp_path / "client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours[0])
    context.load_cert_chain(*tls)
    context.verify_mode = ssl.CERT_REQUIRED
    upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
    script = "@on_configure\n" + call("echo") + ANSWERED
    for shown, status in ((ours, 200), (None, 503)):
        cluster = Cluster(f"https://localhost:{upstream.server_port}", verify=tls[0], certificate=shown, http2=True)
        assert f'get_header_map_value(6, :status) = 0 "{status}"' in run(script, Clusters({"up": cluster}))


def test_calls_share_a_connection(run, server):
    script = "@on_configure\n" + call("together") * 2
    script += "@on_http_call_response/1\nget_buffer_bytes 4 0 200\n" + ANSWERED
    messages = run(script, server.clusters(max_connections=1))
    assert [message for message in messages if "one connection" in message] == [
        'get_buffer_bytes(4, 0, 200) = 0 "two on one connection"'
    ] * 2


def test_a_limit_on_callouts_that_are_under_way(run, server):
    """More are refused at once; when one has ended, another may begin."""
    script = "@on_configure\n" + call("silent", timeout=300) * 2 + call("echo") + call("echo")
    script += "@on_http_call_response/1\nsay one\n@on_http_call_response/2\n" + call("echo") + ANSWERED
    messages = run(script, server.clusters(max_callouts=2))
    assert [message.rpartition(" = ")[2].split()[0] for message in messages if message.startswith("http_call(")] == [
        "0", "0", "10", "10", "0",
    ]  # fmt: skip
    assert 'get_header_map_value(6, :status) = 0 "200"' in messages


# -- Killed at each step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("silent", "503", AWAY + "connection termination"),
        ("begins", None, None),
    ],
)
def test_killed_when_it_was_asked(run, server, path, status, body):
    def kill() -> None:
        assert server.next("asked") == f"/{path}"
        threading.Event().wait(0.05)  # what it has sent by then is there
        server.process.kill()

    script = "@on_configure\n" + call(path) + "say called\n" + ANSWERED
    answered = run(script, server.clusters(), when={"called": kill})[2:]
    if status is None:
        assert answered == [
            "get_header_map_value(6, :status) = 2",
            "get_buffer_bytes(4, 0, 200) = 1",
            'get_status() = 0 11 "reset"',
        ]
    else:
        assert answered == [
            f'get_header_map_value(6, :status) = 0 "{status}"',
            f'get_buffer_bytes(4, 0, 200) = 0 "{body}"',
            'get_status() = 0 0 ""',
        ]


def test_killed_before_it_was_asked(run, server):
    server.process.kill()
    server.process.wait()
    answered = run("@on_configure\n" + call("echo") + ANSWERED, server.clusters())[1:]
    assert answered == [
        'get_header_map_value(6, :status) = 0 "503"',
        f'get_buffer_bytes(4, 0, 200) = 0 "{AWAY}remote connection failure"',
        'get_status() = 0 0 ""',
    ]


def test_killed_between_two_calls_and_started_again(run, server):
    """A connection that has ended meanwhile is not used again.

    Calls follow each other at a distance, so that none is connecting when the driver ends: under trio, httpcore leaves
    a socket to the collector if its TLS handshake is cancelled.
    """
    script = "@on_configure\n" + call("echo") + "@on_http_call_response/1\nsay again\nset_tick_period_milliseconds 20\n"
    script += "@on_tick/1\nsay waiting\n@on_tick\nset_tick_period_milliseconds 0\n" + call("echo")
    script += "@on_http_call_response\nget_header_map_value 6 :status\nset_tick_period_milliseconds 500\n"

    def restart() -> None:
        server.kill()
        server.start()
        for _ in range(500):
            if 'get_header_map_value(6, :status) = 0 "200"' in run.messages:
                break
            threading.Event().wait(0.02)
        run.done()

    messages = run(script, server.clusters(), when={"waiting": restart})
    assert 'get_header_map_value(6, :status) = 0 "200"' in messages


def test_without_h2_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("proxywasm_host.driver.clusters.find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"http2 of a cluster needs h2, which is not installed: .*pip install .*\[http2\]"
    ):
        Cluster("https://localhost", http2=True)


def test_a_server_that_nobody_vouches_for(run, server):
    answered = run("@on_configure\n" + call("echo") + ANSWERED, server.clusters(verify=True))[1:]
    assert answered[:2] == [
        'get_header_map_value(6, :status) = 0 "503"',
        f'get_buffer_bytes(4, 0, 200) = 0 "{AWAY}remote connection failure"',
    ]

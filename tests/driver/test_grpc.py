"""gRPC callouts to a real server, in every driver: what a filter hears, in which order, and what ends when."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import anyio
import grpc
import pytest

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.conversation import MAX_UNSENT, AsyncConversation
from proxywasm_host.driver.grpc import FromThread
from proxywasm_host.protobuf import field
from proxywasm_host.runtime.effects import GrpcMessage, GrpcStream
from tests.driver.silent_server import SilentServer
from tests.grpc_services import GrpcServer

HEARD = """@on_grpc_receive_initial_metadata
get_header_map_pairs 4
@on_grpc_receive
get_buffer_bytes 5 0 40
{received}
@on_grpc_receive_trailing_metadata
get_header_map_pairs 5
@on_grpc_close
get_status
{closed}
"""
INITIAL = "get_header_map_pairs(4) = 0 [:status=200, content-type=application/grpc"
AWAY = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"


def heard(received: str = "say done", closed: str = "say done") -> str:
    return HEARD.format(received=received, closed=closed)


def call(method: str, message: str = "hello", timeout: int = 0, cluster: str = "up", metadata: str = "x-a=1") -> str:
    return f"@on_configure\ngrpc_call {cluster} test.Echo {method} {metadata} {message} {timeout}\n"


def stream(method: str, *then: str) -> str:
    return "\n".join([f"@on_configure\ngrpc_stream up test.Echo {method} x-a=1", *then, ""])


@pytest.fixture(scope="module")
def shared():
    server = GrpcServer()
    yield server
    server.stop()


@pytest.fixture
def server(shared):
    """A server for all tests, that has seen nothing yet."""
    shared.seen.clear()
    shared.services.release.clear()
    shared.services.cancelled.clear()
    yield shared
    shared.services.release.set()


@pytest.fixture
def mortal():
    """A server of the test's own."""
    server = GrpcServer()
    yield server
    server.stop()


@pytest.fixture
def silent():
    server = SilentServer()
    yield server
    server.stop()


def clusters(server, **options):
    return Clusters({"up": Cluster(server.url, **options)})


# -- Unary -------------------------------------------------------------------------------------------------------------


def test_a_call_and_its_answer(run, server):
    assert run(call("Echo", metadata="x-a=1&x-bin=AP8&:path=no&Bad%20name=1") + heard(), clusters(server)) == [
        "grpc_call(up, test.Echo, Echo, x-a=1&x-bin=AP8&:path=no&Bad%20name=1, hello, 0) = 0 5",
        'get_buffer_bytes(5, 0, 40) = 0 "hello"',
    ]
    [(method, metadata, message)] = server.seen
    assert (method, message) == ("/test.Echo/Echo", b"hello")
    assert {name: value for name, value in metadata.items() if name[:1] == "x"} == {"x-a": "1", "x-bin": b"\0\xff"}


@pytest.mark.parametrize(
    ("method", "timeout", "status"),
    [
        ("Abort", 0, '5 "no such thing"'),
        ("Nothing", 0, '12 "Method not found!"'),
        ("Slow", 30, '14 "upstream request timeout"'),
    ],
)
def test_a_call_that_fails(run, server, method, timeout, status):
    assert run(call(method, timeout=timeout) + heard(), clusters(server))[1:] == [f"get_status() = 0 {status}"]


def test_a_message_that_is_too_large(run, server):
    [status] = run(call("Large") + heard(), clusters(server, max_response=1000))[1:]
    assert status.startswith("get_status() = 0 8 ")


def test_a_cluster_says_how_long_a_call_may_take(run, server):
    assert run(call("Slow") + heard(), clusters(server, timeout=0.03))[1:] == [
        'get_status() = 0 14 "upstream request timeout"'
    ]


def test_nobody_listens(run, closed_port):
    everywhere = Clusters({"up": f"http://127.0.0.1:{closed_port}"})
    assert run(call("Echo") + heard(), everywhere)[1:] == [f'get_status() = 0 14 "{AWAY}"']


@pytest.mark.parametrize("way", ["grpc_cancel 5", "grpc_close 5", "closed"])
def test_a_call_that_nobody_waits_for(run, server, way):
    script = call("Slow") + "grpc_call up test.Echo AfterSlow x-a=1 hello 0\n"
    script += heard(received=f"{'' if way == 'closed' else way}\nsay done")
    messages = run(script, clusters(server), close=way == "closed", settled=server.services.cancelled.is_set)
    assert messages[2:] == [
        'get_buffer_bytes(5, 0, 40) = 0 "hello"',
        *([] if way == "closed" else [f"{way.replace(' ', '(')}) = 0"]),
    ]


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(field(1, field(1, "up")), id="envoy_grpc"),
        pytest.param(field(1, field(1, "up") + field(2, "authority")) + field(3, field(1, 2)), id="with a timeout"),
        pytest.param(field(2, field(1, "up") + field(2, "stat")), id="google_grpc"),
    ],
)
def test_services_in_envoys_message_are_clusters(run, server, service):
    name = "".join(f"%{byte:02x}" for byte in service)
    assert run(call("Echo", cluster=name) + heard(), clusters(server))[1:] == ['get_buffer_bytes(5, 0, 40) = 0 "hello"']


def test_the_authority_is_the_clusters(run, silent):
    script = call("Echo", timeout=200) + heard()
    run(script, clusters(silent, authority="echo.example"))
    [asked] = silent.asked
    assert (asked[b":authority"], asked[b":path"]) == (b"echo.example", b"/test.Echo/Echo")


# -- Streams -----------------------------------------------------------------------------------------------------------


def test_a_conversation(run, server):
    script = stream("StreamEcho", "grpc_send $token one 0", "grpc_send $token two 0")
    script += heard(received="grpc_close $2", closed="say done")
    assert run(script, clusters(server)) == [
        "grpc_stream(up, test.Echo, StreamEcho, x-a=1) = 0 6",
        "grpc_send($token, one, 0) = 0",
        "grpc_send($token, two, 0) = 0",
        f"{INITIAL}, x-begin=1, x-bin=AP8]",
        'get_buffer_bytes(5, 0, 40) = 0 "echo of one"',
        "grpc_close($2) = 0",
        'get_buffer_bytes(5, 0, 40) = 0 "echo of two"',
        "grpc_close($2) = 0",
        "get_header_map_pairs(5) = 0 [grpc-status=0, x-end=2]",
        'get_status() = 0 0 ""',
    ]
    assert [(method, metadata["x-a"], message) for method, metadata, message in server.seen] == [
        ("/test.Echo/StreamEcho", "1", b"one"),
        ("/test.Echo/StreamEcho", "1", b"two"),
    ]


def test_the_last_message_may_end_our_side(run, server):
    script = stream("StreamEcho", "grpc_send $token one 1") + heard(received="")
    assert run(script, clusters(server))[-3:] == [
        'get_buffer_bytes(5, 0, 40) = 0 "echo of one"',
        "get_header_map_pairs(5) = 0 [grpc-status=0, x-end=2]",
        'get_status() = 0 0 ""',
    ]


@pytest.mark.parametrize(
    ("method", "messages", "status"),
    [("StreamAbort", ['"one"'], '5 "no such thing"'), ("StreamRefuse", [], '7 "not you"')],
)
def test_a_stream_that_the_server_ends(run, server, method, messages, status):
    number, message = status.split(" ", 1)
    metadata = f"grpc-status={number}, grpc-message={message[1:-1]}"
    assert run(stream(method) + heard(received=""), clusters(server))[1:] == [
        f"{INITIAL}]",
        *(f"get_buffer_bytes(5, 0, 40) = 0 {message}" for message in messages),
        f"get_header_map_pairs(5) = 0 [{metadata}]",
        f"get_status() = 0 {status}",
    ]


def test_a_stream_to_nobody(run, closed_port):
    everywhere = Clusters({"up": f"http://127.0.0.1:{closed_port}"})
    script = stream("StreamEcho", "grpc_send $token one 0") + heard()
    assert run(script, everywhere)[2:] == [
        f"{INITIAL}]",
        f"get_header_map_pairs(5) = 0 [grpc-status=14, grpc-message={AWAY}]",
        f'get_status() = 0 14 "{AWAY}"',
    ]


@pytest.mark.parametrize("way", ["grpc_cancel $2", "closed"])
def test_a_stream_that_is_broken_off(run, server, way):
    closed = way == "closed"
    script = stream("StreamHang") + heard(received=f"{'' if closed else way}\nsay done")
    messages = run(script, clusters(server), close=closed, settled=server.services.cancelled.is_set)
    assert messages[2:] == ['get_buffer_bytes(5, 0, 40) = 0 "one"', *([] if closed else ["grpc_cancel($2) = 0"])]


def test_a_server_sends_no_faster_than_a_filter_hears(run, server):
    """The first message is heard; what it costs the filter to hear holds the server back, not our memory."""
    script = stream("StreamMany") + "@on_grpc_receive/20\ngrpc_cancel $2\nsay done\n"
    run(script, clusters(server), settled=server.services.cancelled.is_set)
    assert server.services.many < 1000  # what HTTP/2's windows and sockets hold beside the 20


def test_more_than_can_be_sent_ends_a_stream(run, server):
    sends = ["repeat 17", f"grpc_send $token fill:x:{1 << 20} 0"]
    [status] = [
        m for m in run(stream("StreamHang", *sends) + heard(received=""), clusters(server)) if "get_status" in m
    ]
    assert f'more than {MAX_UNSENT} bytes wait to be sent"' in status
    assert status.startswith("get_status() = 0 8 ")


def test_more_streams_than_there_are_threads(run, server):
    script = "@on_configure\n" + "repeat 40\ngrpc_stream up test.Echo StreamRefuse x-a=1\n"
    run(script + "@on_grpc_close/40\nsay done\n", clusters(server))


# -- When the server goes ----------------------------------------------------------------------------------------------


def test_the_server_goes_amid_a_call(run, mortal):
    def kill() -> None:
        assert wait_until(lambda: mortal.seen)
        mortal.stop()

    messages = run(call("Slow") + "say asked\n" + heard(), clusters(mortal), when={"asked": kill})
    assert messages[2].startswith("get_status() = 0 14 ")


def test_the_server_goes_amid_a_stream(run, mortal):
    script = stream("StreamHang") + heard(received="say heard", closed="say done")
    messages = run(script, clusters(mortal), when={"heard": mortal.stop})
    assert messages[1:4] == [f"{INITIAL}]", 'get_buffer_bytes(5, 0, 40) = 0 "one"', "heard"]
    assert messages[4].startswith("get_header_map_pairs(5) = 0 [grpc-status=14")
    assert messages[5].startswith("get_status() = 0 14 ")


@pytest.mark.parametrize("ended", [0, 1])
def test_the_server_goes_before_it_answers_a_stream(run, mortal, ended):
    """Our side is still open, or has ended, as when only the filter sends."""

    def kill() -> None:
        assert wait_until(lambda: mortal.seen)
        mortal.stop()

    script = stream("StreamSilent", f"grpc_send $token one {ended}", "say asked") + heard()
    messages = run(script, clusters(mortal), when={"asked": kill})
    assert not any(message.startswith("get_buffer_bytes") for message in messages)
    assert messages[-1].startswith("get_status() = 0 14 ")


def test_the_server_comes_back(run, mortal):
    again = []

    def restart() -> None:
        mortal.stop()
        again.append(GrpcServer(given=mortal.port))

    script = (
        call("Echo")
        + "@on_grpc_receive/1\nsay first\nset_tick_period_milliseconds 20\n"
        + "@on_tick\ngrpc_call up test.Echo Echo x-a=1 again 0\n"
        + "@on_grpc_receive\nget_buffer_bytes 5 0 40\nset_tick_period_milliseconds 0\nsay done\n"
        + "@on_grpc_close\nget_status\n"
    )
    gone = threading.Event()

    def kill() -> None:
        mortal.stop()
        gone.wait(0.15)
        restart()

    try:
        messages = run(script, clusters(mortal), when={"first": kill})
    finally:
        for server in again:
            server.stop()
    assert 'get_buffer_bytes(5, 0, 40) = 0 "again"' in messages


# -- When the server is silent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [call("Echo"), stream("StreamEcho", "grpc_send $token one 0")], ids=["call", "stream"]
)
def test_a_server_that_does_not_answer_a_ping(run, silent, script):
    """Neither the cluster nor the filter has a time-out: without pings this would wait for ever."""
    messages = run(script + heard(), clusters(silent, keep_alive=0.1))
    assert silent.pinged.is_set()
    assert messages[-1].startswith("get_status() = 0 14 ")


def test_a_server_that_only_answers_pings(run, server):
    """Pings end no call."""
    assert run(call("Slow", timeout=350) + heard(), clusters(server, keep_alive=0.1))[1:] == [
        'get_status() = 0 14 "upstream request timeout"'
    ]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_tls_with_a_certificate_of_each_side(run, tmp_path):
    theirs, their_key = certificate(tmp_path / "server")
    ours, our_key = certificate(tmp_path / "client")
    pair = Path(their_key).read_bytes(), Path(theirs).read_bytes()
    server = GrpcServer(grpc.ssl_server_credentials([pair], Path(ours).read_bytes(), require_client_auth=True))
    try:
        options = {"verify": theirs, "authority": "localhost"}
        answered = run(call("Echo") + heard(), clusters(server, certificate=(ours, our_key), **options))
        assert answered[1:] == ['get_buffer_bytes(5, 0, 40) = 0 "hello"']
        [status] = run(call("Echo") + heard(), clusters(server, **options))[1:]
        assert status.startswith("get_status() = 0 14 ")
        [status] = run(call("Echo") + heard(), clusters(server, verify=False))[1:]
        assert "gRPC always checks the server's certificate" in status
    finally:
        server.stop()


def certificate(directory: Path) -> tuple[str, str]:
    """A certificate for localhost that signs itself, and its key."""
    directory.mkdir()
    files = str(directory / "cert.pem"), str(directory / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def wait_until(condition, seconds: float = 10) -> bool:
    for _ in range(int(seconds * 1000)):
        if condition():
            return True
        threading.Event().wait(0.001)
    return False


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_tells_a_loop_that_is_over_does_not_wait(backend):
    callout = GrpcStream(None, 1, "up", "test.Echo", "Chat", [])

    async def converse():
        return FromThread(AsyncConversation(callout, lambda *_: None, lambda function: function()))

    conversation = anyio.run(converse, backend=backend)
    conversation.tell(GrpcMessage(b"late"))
    assert conversation.cancelled

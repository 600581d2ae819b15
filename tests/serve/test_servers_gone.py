"""What filters call goes away at each step, in each carrier: the request is answered, and the next call goes through."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx2
import pytest

from proxywasm_host import Services
from proxywasm_host.integrations import asgi, wsgi
from tests.conftest import ENGINES
from tests.grpc_services import GrpcServer
from tests.integrations.middlewares import Application
from tests.redis_server import Server
from tests.relay import CLIENT, SERVER, Relay
from tests.serve.origin import running
from tests.support import FILTERS, Lines
from tests.under_uvicorn import under_uvicorn

ASKS_REDIS = """
@on_configure
redis_init redis "" "" 0
@on_request_headers
redis_call redis GET%20k%0d%0a
return 1
@on_redis_call_response
get_buffer_bytes 9 0 100
set_effective_context $stream
continue_stream 0
"""
CHAIN = [
    ("rust/auth", "callout:http"),
    ("rust/grpc", "grpc,test.Echo,Echo,half"),
    ("rust/grpc", "stream:grpc,test.Echo,StreamEcho,whole"),
    ("c/probe_0_2_100", ASKS_REDIS),
]
NO_ANSWER = 'get_buffer_bytes(9, 0, 100) = 0 ""'
STEPS = [
    # which server goes, when which side has said what; what the client gets, and what the filter says
    ("http", "", b"", 403, "auth: token N answered 503 upstream connect error"),
    ("http", CLIENT, b"GET /check", 403, "auth: token N answered 503 upstream connect error"),
    ("http", SERVER, b"HTTP/1.1 200 OK\r\ncontent-ty", 403, "auth: token N answered 503 upstream connect error"),
    ("http", SERVER, b'{"method": "GE', 403, "auth: no answer, status 11 reset"),
    ("grpc", "", b"", 200, "grpc: call N failed with 14"),
    ("grpc", CLIENT, b"half", 200, "grpc: call N failed with 14"),
    ("grpc", SERVER, b"ha", 200, "grpc: call N failed with 14"),
    ("grpc", CLIENT, b"whole", 200, "grpc: stream N closed with 14"),
    ("grpc", SERVER, b"echo of wh", 200, "grpc: stream N closed with 14"),
    ("grpc", SERVER, b"echo of whole", 200, "grpc: stream N closed with 14"),
    ("redis", "", b"", 200, NO_ANSWER),
    ("redis", CLIENT, b"GET", 200, NO_ANSWER),
    ("redis", SERVER, b"$4", 200, NO_ANSWER),
    ("redis", SERVER, b"$4\r\nha", 200, NO_ANSWER),
]
WELL = (
    "auth: allowed",
    "grpc: call N answered",
    "grpc: stream N closed with 0",
    'get_buffer_bytes(9, 0, 100) = 0 "$4%0d%0ahalf%0d%0a"',
)
SECONDS = 20


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def under_wsgiref(application) -> Iterator[str]:
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            application.close()


@pytest.fixture(scope="module")
def relays(tmp_path_factory):
    """In front of a real server of each kind, by the name of its cluster."""
    redis, grpc = Server(tmp_path_factory.mktemp("redis")), GrpcServer()
    redis.admin.set("k", b"half")
    with running() as http:
        found = {name: Relay(port) for name, port in (("http", http.port), ("grpc", grpc.port), ("redis", redis.port))}
        yield found
        for relay in found.values():
            relay.join()
    grpc.stop()
    redis.stop()


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("carrier", ["asgi", "wsgi", "serve"])
def test_a_server_goes_at_each_step_and_comes_back(carrier, engine, relays, on_engine):
    clusters = {"http": f"http://127.0.0.1:{relays['http'].port}", "grpc": f"http://127.0.0.1:{relays['grpc'].port}"}
    clusters["redis"] = f"redis://127.0.0.1:{relays['redis'].port}"
    log = Lines()
    with ExitStack() as stack:
        if carrier == "serve":
            filters = [
                {"file": str(FILTERS / f"{file}.wasm"), "name": f"f{number}", "configuration": configuration}
                for number, (file, configuration) in enumerate(CHAIN)
            ]
            served = on_engine(settings={"filters": filters, "clusters": clusters})
            url = served.url
        else:
            middleware = asgi.ProxyWasmMiddleware if carrier == "asgi" else wsgi.ProxyWasmMiddleware
            server = under_uvicorn if carrier == "asgi" else under_wsgiref
            chain = [asgi.Filter(str(FILTERS / f"{file}.wasm"), configuration=each) for file, each in CHAIN]
            options = {"engine": engine, "clusters": clusters, "services": Services(log=log)}
            url = stack.enter_context(server(middleware(getattr(Application(), carrier), chain, **options)))
        client = stack.enter_context(httpx2.Client(base_url=url, timeout=SECONDS))
        heard = 0

        def ask() -> tuple[int, list[str]]:
            """The status, and what the filters have said."""
            nonlocal heard
            status = client.get("/").status_code
            text = served.log[heard:] if carrier == "serve" else "\n".join(log.take())
            heard += len(text)
            return status, re.sub(r"(call|stream|token) \d+", r"\1 N", text).splitlines()

        def well() -> None:
            until = time.monotonic() + SECONDS
            while True:
                status, said = ask()
                if status == 200 and all(any(words in line for line in said) for words in WELL):
                    return
                assert time.monotonic() < until, said

        well()
        for name, side, words, expected, told in STEPS:
            relay = relays[name]
            relay.dies_at(side, words) if side else relay.stop()
            status, said = ask()
            assert relay.died.wait(SECONDS), (name, side, words)
            assert (status, sum(told in line for line in said)) == (expected, 1), (name, side, words, said)
            relay.start()
            well()

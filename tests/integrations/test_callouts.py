"""Callouts from the middlewares: to real servers, from filters that wait for the answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxywasm_host.integrations.asgi import Filter
from tests.grpc_services import GrpcServer
from tests.integrations.middlewares import Application
from tests.serve import origin as origins
from tests.support import code


@pytest.fixture(scope="module")
def server():
    server = GrpcServer()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("up,test.Echo,Echo,", "0"),
        ("up,test.Echo,Abort,", "5"),
        ("stream:up,test.Echo,StreamEcho,", "0"),
        ("stream:up,test.Echo,StreamRefuse,", "7"),
        ("nobody,test.Echo,Echo,", "not-sent"),
    ],
)
def test_a_request_waits_for_grpc(carry, server, call, status):
    application = Application()
    filter = Filter(code("rust/grpc"), configuration=call)
    assert carry(filter, application=application, clusters={"up": server.url}).get().status == 200
    assert application.seen[0].headers["x-grpc-status"] == status


WITH_HTTPX = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "httpx2" else find(name, *rest)
from proxywasm_host.driver import http
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.runtime.effects import HttpCall
headers = [(b":method", b"GET"), (b":path", b"/a/../b"), (b":authority", b"idp")]
client = http.HttpClient(Clusters({"up": sys.argv[1]}))
print("httpx2" in sys.modules, client(HttpCall(None, 1, "up", headers, b"", [], 0)).headers[0])
"""


def test_where_only_httpx_is_installed_it_makes_the_calls():
    with origins.running() as origin:
        command = [sys.executable, "-c", WITH_HTTPX, origin.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert (said, origin.requests[0].target) == ("False (b':status', b'200')\n", "/a/../b")

"""Callouts over gRPC and to Redis from `proxywasm serve`: clusters are all that is configured."""

from __future__ import annotations

import pytest

from tests.grpc_services import GrpcServer
from tests.support import FILTERS

GRPC = str(FILTERS / "rust/grpc.wasm")


@pytest.fixture(scope="module")
def server():
    server = GrpcServer()
    yield server
    server.stop()


@pytest.mark.carries("serve", "callouts")
def test_grpc_calls_and_streams(serve, origin, server):
    settings = {
        "clusters": {"up": {"url": server.url, "authority": "echo.example", "keep_alive": 30, "max_callouts": 2}},
        "filters": [
            {"file": GRPC, "name": f"grpc{number}", "configuration": call}
            for number, call in enumerate(["up,test.Echo,Echo,", "stream:up,test.Echo,StreamEcho,"])
        ],
    }
    served = serve(settings=settings)
    assert served.get().status_code == 200
    [request] = origin.requests
    assert [value for name, value in request.headers if name == "x-grpc-status"] == ["0", "0"]
    assert 'grpc: stream 6 message of 8 bytes "echo of "' in served.log


def test_a_url_for_redis(serve, origin):
    """Its scheme is no other server's; what is wrong is told with its place."""
    served = serve(settings={"clusters": {"cache": "redis://user:secret@127.0.0.1:1/3"}, "filters": []})
    assert served.get().status_code == 200
    assert "clusters.cache.url" in serve(settings={"clusters": {"cache": "redis://h/x"}, "filters": []}).log
    assert "upstream" in serve(settings={"upstream": "redis://127.0.0.1", "filters": []}, upstream=None).log

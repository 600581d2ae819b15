"""Callouts over gRPC and to Redis from the middlewares: to real servers, from filters that wait for the answers."""

from __future__ import annotations

import pytest

from proxywasm_host.integrations.asgi import Filter
from tests.grpc_services import GrpcServer
from tests.integrations.middlewares import Application
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

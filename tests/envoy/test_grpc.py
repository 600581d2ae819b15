"""Envoy agrees about gRPC: the same filter calls the same server from a real Envoy and from our driver.

What Envoy adds is left out: a reason in braces behind a status's message, its own headers among the metadata.
"""

from __future__ import annotations

import re

import anyio
import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.effects import RequestHeaders
from tests.envoy.cases import rust
from tests.envoy.rig import Case, ask
from tests.grpc_services import GrpcServer
from tests.support import REQUEST, Lines, code

SLOW = "up,test.Echo,Slow,"
CALLS = [
    "up,test.Echo,Echo,hello",
    "up,test.Echo,Abort,",
    "up,test.Echo,Nothing,",
    SLOW,
    "away,test.Echo,Echo,",
    "nobody,test.Echo,Echo,",
    "stream:up,test.Echo,StreamEcho,hi",
    "stream:up,test.Echo,StreamAbort,",
    "stream:up,test.Echo,StreamRefuse,",
    "stream:away,test.Echo,StreamEcho,",
    "stream:nobody,test.Echo,StreamEcho,",
]


@pytest.fixture(scope="module")
def server():
    server = GrpcServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def answers(server, tmp_path_factory):
    def envoy(calls):
        cases = [Case(call, [rust("grpc", call)], patience=4.0) for call in calls]
        return ask(cases, tmp_path_factory.mktemp("envoy"), {"up": server.port, "away": 1})

    found = envoy(CALLS)
    for _ in range(5):  # Envoy tells the server the time-out, so now and then the server ends the call first
        if not any("Deadline Exceeded" in message for _, _, message in found[SLOW].logs):
            break
        found |= envoy([SLOW])
    return found


def told(messages: list[str], status: list[bytes]) -> list[str]:
    """The lines of the filter but for the metadata, of which the pairs of the server alone."""
    lines = []
    for message in messages:
        found = re.fullmatch(r"(grpc: stream \d+ \w+ metadata), \d+: (.*)", message)
        if found:
            lines.append(" ".join([found[1], *(word for word in found[2].split(" ") if re.match("x-(?!envoy)", word))]))
        else:
            lines.append(re.sub(r'(\{.*\}|via_upstream)"$', '"', message))
    return [*lines, *(each.decode() for each in status)]


@pytest.mark.parametrize("call", CALLS)
def test_agrees(engine, server, answers, call):
    log, clusters = Lines(), Clusters({"up": server.url, "away": "http://127.0.0.1:1"})

    async def ours() -> list[bytes]:
        with Host(engine, services=Services(log=log, clusters=clusters)) as host:
            plugin = host.load_plugin(code("rust/grpc"), configuration=call)
            async with AsyncDriver(host) as driver:
                sent = []
                stream = host.http_stream([plugin])
                driver.attach(stream, sent.append)
                driver.perform(stream.request_headers(REQUEST, True))
                with anyio.fail_after(10):
                    while not any(isinstance(effect, RequestHeaders) for effect in sent):
                        await anyio.sleep(0.001)
                driver.perform(stream.close())
                return [value for name, value in sent[-1].headers if name == b"x-grpc-status"]

    status = anyio.run(ours)
    theirs = answers[call]
    expected = [value for name, value in theirs.upstream_request.headers if name == b"x-grpc-status"]
    assert told(log.messages, status) == told([message for _, _, message in theirs.logs], expected)

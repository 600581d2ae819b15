"""A filter that asks rate limits and external authorization over gRPC, and reports on a stream, before a real server.

The services are Envoy's (``envoy.service.auth.v3``, ``envoy.service.ratelimit.v3``); see ``tests/filters/rust/guard.rs``.
"""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.effects import RequestHeaders, ResponseHeaders
from tests.grpc_services import GrpcServer
from tests.support import REQUEST, Lines, code

pytestmark = pytest.mark.anyio
ALL = "authz=up limit=up report=up"


@pytest.fixture
def anyio_backend():
    """What differs between event loops is tested with a probe, in test_grpc.py."""
    return "asyncio"


@pytest.fixture
def server():
    server = GrpcServer()
    yield server
    server.stop()


class Guarded:
    """Requests through the filter, one after the other."""

    def __init__(self, host, driver, plugin) -> None:
        self._host, self._driver, self._plugin = host, driver, plugin

    async def get(self, settled=lambda: True, **headers: str) -> tuple[list, list]:
        """The request's headers at upstream, or none, and the response's at the client. It ends once all is settled."""
        effects = []
        stream = self._host.http_stream([self._plugin])
        self._driver.attach(stream, effects.append)
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._driver.perform(stream.request_headers([*REQUEST, *pairs], True))
        while not effects:
            await anyio.sleep(0.001)
        to_upstream = [effect.headers for effect in effects if isinstance(effect, RequestHeaders)]
        if to_upstream:
            self._driver.perform(stream.response_headers([(b":status", b"204")], end_stream=True))
        to_client = [effect.headers for effect in effects if isinstance(effect, ResponseHeaders)]
        await until(settled)
        self._driver.detach(stream)
        self._driver.perform(stream.close())
        return to_upstream, to_client


@pytest.fixture
async def guarded(engine, log, server):
    entered = []

    async def start(configuration: str, url: str = "") -> Guarded:
        host = Host(engine, services=Services(log=log, clusters=Clusters({"up": url or server.url})))
        driver = AsyncDriver(host)
        await driver.__aenter__()
        entered.append(driver)
        return Guarded(host, driver, host.load_plugin(code("rust/guard"), configuration=configuration))

    yield start
    for driver in entered:
        await driver.__aexit__(None, None, None)
        driver.host.close()


@pytest.fixture
def log():
    return Lines()


async def until(condition) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.001)


async def test_allowed_and_counted(guarded, server, log):
    guard = await guarded(ALL)
    reported = "guard: report closed with 0"
    [upstream], [client] = await guard.get(lambda: reported in log.messages, authorization="good", x_user="anna")
    assert (b"x-user", b"anna") in upstream
    assert client == [(b":status", b"204"), (b"x-left", b"1")]
    check, limit = (
        next(call for call in server.seen if call[0].endswith(name)) for name in ("Check", "ShouldRateLimit")
    )
    assert (check[1]["x-guard"], limit[1]["x-guard"]) == ("authz", "limit")
    assert [line for line in log.messages if "report" in line] == [
        "guard: report begun true",
        "guard: report: echo of /a?b=c",
        "guard: report: echo of 204",
        "guard: report ended true",
        reported,
    ]


async def test_denied(guarded, server):
    guard = await guarded(ALL)
    [], [client] = await guard.get(authorization="bad")
    assert client[0] == (b":status", b"403")
    assert (b"x-why", b"bad") in client
    assert not any(call[0].endswith("ShouldRateLimit") for call in server.seen)


async def test_rate_limited(guarded):
    guard = await guarded("authz=up limit=up")
    answers = [await guard.get(authorization="good", x_user=user) for user in ("anna", "anna", "anna", "bert")]
    assert [client[0][0][1] for _, client in answers] == [b"204", b"204", b"429", b"204"]
    assert (b"x-left", b"0") in answers[2][1][0]


@pytest.mark.parametrize(("mode", "status"), [("deny", b"500"), ("allow", b"204")])
async def test_a_service_is_down(guarded, closed_port, log, mode, status):
    guard = await guarded(f"authz=up limit=up failure={mode}", f"http://127.0.0.1:{closed_port}")
    _, [client] = await guard.get(authorization="good", x_user="anna")
    assert client[0] == (b":status", status)
    why = "14 upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    assert [line for line in log.messages if "failed" in line] == [
        f"guard: {name} failed: {why}" for name in (["authz"] if mode == "deny" else ["authz", "limit"])
    ]


async def test_a_service_goes_between_both_calls(guarded, server, log):
    """It answers the first call and is killed; the second is told so."""
    guard = await guarded("authz=up limit=up")
    server.services.ShouldRateLimit = server.services.Slow
    answer = []

    async def ask() -> None:
        answer.append(await guard.get(authorization="good", x_user="anna"))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(lambda: any(call[0].endswith("ShouldRateLimit") for call in server.seen))
        await anyio.to_thread.run_sync(server.stop)
    assert answer[0][1][0][0] == (b":status", b"500")
    [line] = [line for line in log.messages if "failed" in line]
    assert line.startswith("guard: limit failed: 14 ")


async def test_a_service_answers_nonsense_or_too_late(guarded, server, log):
    guard = await guarded("authz=up limit=up failure=allow")
    server.services.Check = server.services.Slow
    server.services.ShouldRateLimit = lambda *_: b"\xff\xff"
    _, [client] = await guard.get(authorization="good", x_user="anna")
    assert client[0] == (b":status", b"204")
    assert [line for line in log.messages if "failed" in line] == ["guard: authz failed: 14 upstream request timeout"]

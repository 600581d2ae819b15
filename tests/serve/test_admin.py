"""The admin port: who may ask it, and when it says that all is well."""

from __future__ import annotations

import asyncio
import resource
import threading
from typing import Any

import pytest

from proxywasm_host.driver import filters as filter_list
from proxywasm_host.serve.admin import Admin
from proxywasm_host.serve.application import Application
from proxywasm_host.serve.reload import Watch
from proxywasm_host.serve.server import SingleProcess, bound, make_room
from proxywasm_host.serve.source import Source
from tests.serve.conftest import HEADERS, PANICS
from tests.serve.in_process import serving
from tests.serve.ports import closed_port, listening

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


async def ask(admin: Admin, path: str = "/healthz", host: bytes = b"127.0.0.1:9901") -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", host)]}
    await admin(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    return sent[0]["status"], sent[1]["body"].decode()


async def nobody() -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("host", "hosts", "status"),
    [
        (b"localhost", [], 200),
        (b"LOCALHOST:9901", [], 200),
        (b"127.0.0.1:9901", [], 200),
        (b"[::1]:9901", [], 200),
        (b"192.0.2.1", [], 200),
        (b"evil.example", [], 421),
        (b"evil.example:9901", [], 421),
        (b"localhost.evil.example", [], 421),
        (b"127.0.0.1.evil.example", [], 421),
        (b"metrics.internal:9901", [], 421),
        (b"metrics.internal:9901", ["Metrics.internal"], 200),
    ],
)
def test_the_admin_port_answers_those_who_mean_it(host, hosts, status):
    """A page elsewhere, whose name an attacker lets lead here, has that name as Host."""
    assert asyncio.run(ask(Admin(nobody, hosts), "/", host))[0] == status
    for path in ("/live.json", "/metrics", "/healthz", "/other"):
        assert (asyncio.run(ask(Admin(nobody, hosts), path, host))[0] == 421) is (status == 421)


@pytest.mark.parametrize(
    ("policy", "interval", "status"),
    [("fail_closed", 1, 503), ("fail_open", 1, 200), ("fail_reload", 60, 503), ("fail_reload", 0, 200)],
)
def test_ready_is_who_has_guests_that_work(engine, policy, interval, status):
    async def test() -> None:
        filters = [
            {"file": HEADERS},
            {"file": PANICS, "configuration": "request_headers", "failure_policy": policy, "reload_interval": interval},
        ]
        given = {"upstream": f"http://127.0.0.1:{closed_port()}", "filters": filters, "engine": engine.name}
        async with serving(given) as served:

            async def members() -> list[Any]:
                return [served.application]

            assert await ask(Admin(members)) == (200, "ok\n")
            for _ in range(2):
                await served.ask(GET)
                said = "ok\n" if status == 200 else f"process {served.application.pid}: no working guest for panics\n"
                assert await ask(Admin(members)) == (status, said)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("hard", "most", "told"), [(4096, 520, ""), (300, 300, "allows 300 open files"), (-1, 520, "")]
)
def test_there_are_descriptors_for_all_connections(monkeypatch, caplog, hard, most, told):
    limits = [(64, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    given = {"upstream": {"url": "http://x", "max_connections": 64}, "clients": {"max_connections": 200}}
    for _ in range(2):
        make_room(Source(None, given).load())
    assert limits == [(64, hard), (most, hard)]
    assert (told in caplog.text) is True
    assert bool(caplog.text) is bool(told)


def test_nobody_is_ready_before_filters_are_loaded(monkeypatch):
    going = threading.Event()
    compile = filter_list.compile

    def slow(*args: Any) -> None:
        assert going.wait(20)
        compile(*args)

    monkeypatch.setattr(filter_list, "compile", slow)

    async def test() -> None:
        source = Source(None, {"upstream": {"url": "http://127.0.0.1:9"}, "filters": [{"file": HEADERS}]})
        with bound(("127.0.0.1", 0)) as admin:
            settings = source.load()
            alone = SingleProcess([Application(source, settings, [listening()])], settings, Watch(source), admin)
            starting = asyncio.ensure_future(alone.start())
            said = []
            while len(said) < 2:
                reader, writer = await asyncio.open_connection(*admin.getsockname())
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                said.append((answer.split(b" ")[1], answer.partition(b"\r\n\r\n")[2]))
                writer.close()
                if not going.is_set():
                    assert not starting.done()
                    going.set()
                    await starting
            assert said == [(b"503", b"no process serves\n"), (b"200", b"ok\n")]
            await alone.close()
            await alone.stop()

    asyncio.run(asyncio.wait_for(test(), 30))

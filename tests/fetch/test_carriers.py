"""Filters from a registry in what carries requests: newer ones are loaded while it serves, broken ones are not."""

from __future__ import annotations

import functools
import logging
import threading
import time
from wsgiref.simple_server import WSGIRequestHandler, make_server

import anyio
import httpx2
import pytest

from proxywasm_host.integrations import asgi, wsgi
from proxywasm_host.integrations.asgi import Filter
from tests.cli.conftest import command  # noqa: F401 - a fixture
from tests.fetch.registry import digest
from tests.serve.conftest import origin, serve  # noqa: F401 - fixtures
from tests.support import code

OLD = code("rust/headers")
NEW = OLD.replace(b"x-wasm", b"x-next")
"""The same, and adds another header."""
BROKEN = b"\0asm, or so"
EACH = 0.05


@pytest.fixture
def images(registry, repository):
    """``images("a")``: the reference of an image, ``images.push("a", module)``."""

    class Images:
        def __call__(self, name: str) -> str:
            return f"oci://{registry.host}/{repository}/{name}"

        def push(self, name: str, module: bytes) -> str:
            return registry.push_wasm(f"{repository}/{name}", "latest", module)

    return Images()


def scenario(images, get, said) -> None:
    """What any carrier does, of which `get` asks for the headers, and `said` for what was logged."""

    def until(expected: dict[str, str | None]) -> None:
        end = time.monotonic() + 60
        while (found := {name: get().get(name) for name in expected}) != expected:
            assert time.monotonic() < end, (found, said())
            time.sleep(EACH)

    until({"x-wasm": "b, a", "x-next": None})
    images.push("b", NEW)
    until({"x-wasm": "a", "x-next": "b"})
    broken = images.push("a", BROKEN)
    images.push("b", OLD)  # a neighbour whose image is broken keeps nobody at an old one
    until({"x-wasm": "b, a", "x-next": None})
    end = time.monotonic() + 60
    while f"{broken} cannot be loaded, {digest_of_old} stays: " not in said():
        assert time.monotonic() < end, said()
        time.sleep(EACH)
    time.sleep(5 * EACH)
    assert said().count(f"{broken} cannot be loaded") == 1  # it is not tried again
    images.push("a", NEW)
    until({"x-wasm": "b", "x-next": "a"})


digest_of_old = "sha256:[old]"


@pytest.fixture
def old(images, monkeypatch):
    """Both images as they are at first."""
    images.push("b", OLD)
    monkeypatch.setattr(f"{__name__}.digest_of_old", images.push("a", OLD))
    return images


def test_the_asgi_middleware(old, engine, fetcher, caplog):
    asgi_scenario(old, engine, fetcher, caplog, "asyncio")


def test_the_asgi_middleware_on_trio(old, fetcher, caplog):
    asgi_scenario(old, None, fetcher, caplog, "trio")


def asgi_scenario(old, engine, fetcher, caplog, backend):
    caplog.set_level(logging.INFO)

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    chain = [Filter(old(name), name, configuration=name) for name in "ab"]
    app = asgi.ProxyWasmMiddleware(application, chain, engine=engine, fetcher=fetcher(refresh_interval=EACH))

    async def main():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:

            async def headers():
                return (await client.get("/")).headers

            get = functools.partial(anyio.from_thread.run, headers)
            await anyio.to_thread.run_sync(scenario, old, get, lambda: caplog.text)
        for worker in app._workers.values():
            await worker.stop()

    anyio.run(main, backend=backend)


def test_the_wsgi_middleware(old, fetcher, caplog):
    caplog.set_level(logging.INFO)

    def application(environ, start_response):
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    chain = [Filter(old(name), name, configuration=name) for name in "ab"]
    app = wsgi.ProxyWasmMiddleware(application, chain, fetcher=fetcher(refresh_interval=EACH))
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        scenario(old, lambda: httpx2.get(f"http://127.0.0.1:{server.server_port}").headers, lambda: caplog.text)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.close()
    assert not [each for each in threading.enumerate() if each.name == "proxywasm-refresh" and each.join(5)]


def settings(images, tmp_path, **more):
    filters = [{"file": images(name), "configuration": name} for name in "ab"]
    modules = {"directory": str(tmp_path / "modules"), "refresh_interval": EACH}
    return {"filters": filters, "modules": modules, **more}


def test_serve(old, serve, tmp_path):  # noqa: F811
    served = serve(settings=settings(old, tmp_path))
    scenario(old, lambda: served.get().headers, lambda: served.log)
    chain = [(plugin["file"], plugin["digest"]) for plugin in served.live()["workers"][0]["chain"]]
    assert chain == [(old("a"), old.push("a", NEW)), (old("b"), old.push("b", OLD))]
    assert served.stop() == 0


def test_serve_of_several_processes(old, serve, tmp_path):  # noqa: F811
    served = serve(settings=settings(old, tmp_path, workers=2))
    old.push("a", NEW)
    end = time.monotonic() + 60
    while [each.headers.get("x-next") for each in (served.get() for _ in range(8))] != ["a"] * 8:
        assert time.monotonic() < end, served.log
    assert served.stop() == 0


def test_serve_does_not_start_with_a_filter_that_is_not_there(images, serve, tmp_path):  # noqa: F811
    images.push("a", OLD)
    served = serve(
        settings={
            "filters": [{"file": images("a")}, {"file": images("b"), "failure_policy": "fail_open"}],
            "modules": {"directory": str(tmp_path / "modules")},
        }
    )
    assert served.process.wait(20) == 3
    assert f"error: {images('b')}: localhost:" in served.log
    assert "has no " in served.log


def test_serve_on_the_command_line(images, serve, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PROXYWASM_CACHE_DIR", str(tmp_path))
    pushed = images.push("a", OLD)
    served = serve(images("a"), sha256=pushed, filter_config="me")
    assert served.get().headers["x-wasm"] == "me"
    assert serve(images("a"), sha256=digest(OLD)).process.wait(20) == 3


def test_commands(command, images, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PROXYWASM_CACHE_DIR", str(tmp_path))
    pushed = images.push("a", OLD)
    where, _, path = images("a").removeprefix("oci://").partition("/")
    result = command("run", "--sha256", pushed, "--config", "me", images("a"), "http://example.com/")
    assert (result.code, "x-wasm: me" in result.out) == (0, True), result
    result = command("run", "--sha256", "0" * 64, images("a"), "http://example.com/")
    assert (result.code, " ".join(result.err.split())) == (
        3,
        f"error: {images('a')}: {where} has no {path} with sha256:{'0' * 64}",
    )
    assert command("inspect", images("a"), "--json").json["abi"] == "0.2.1"
    result = command("inspect", "oci://nowhere")
    assert (result.code, "does not name an image" in result.err) == (2, True)

"""VMs that are used up are replaced in the middlewares, beside their requests, of which none is lost."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from proxywasm_host.driver.recycle import Recycle
from proxywasm_host.integrations import asgi, wsgi
from tests.integrations import asgi as of_asgi
from tests.integrations.middlewares import Application
from tests.support import code

GROWS = "@on_request_headers\ngrow 4\n@on_response_headers\nadd_header_map_value 2 x-filtered yes\n@on_log\nsay ended\n"
FILTERED = (b"x-filtered", b"yes")


def chain(script: str = GROWS) -> list[asgi.Filter]:
    return [asgi.Filter(code("c/probe_0_2_1"), "probe", configuration=script)]


def vms(host) -> set[int]:
    return {id(plugin._vm) for plugin in host.plugins}


def test_in_an_event_loop(engine, anyio_backend):
    """A request under way ends on its VM, which is then gone."""
    async def run() -> None:
        begun, finish = anyio.Event(), anyio.Event()

        async def app(scope, receive, send) -> None:
            if scope["path"] == "/slow":
                begun.set()
                await finish.wait()
            await of_asgi.respond(send, 200, [])

        served = asgi.ProxyWasmMiddleware(app, chain(), engine=engine, recycle=Recycle(memory=4 << 20))
        async with anyio.create_task_group() as group:
            answers = []

            async def ask(target: str) -> None:
                answers.append(await of_asgi.get(served, "GET", target, []))

            group.start_soon(ask, "/slow")
            await begun.wait()
            [worker] = served._workers.values()
            seen = vms(worker.host)
            with anyio.fail_after(30):
                while len(seen) < 3:
                    await ask("/")
                    await anyio.sleep(0.01)
                    seen |= vms(worker.host)
            finish.set()
            with anyio.fail_after(30):
                while len(worker.host.plugins) > 1:
                    await anyio.sleep(0.01)
        assert {(answer.status, FILTERED in answer.headers) for answer in answers} == {(200, True)}
        await worker.stop()

    anyio.run(run, backend=anyio_backend[0], backend_options=anyio_backend[1])


def test_in_threads(engine, caplog):
    caplog.set_level("INFO")
    begun, finish = threading.Event(), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            begun.set()
            assert finish.wait(60)
        start_response("200 OK", [])
        return [b""]

    served = wsgi.ProxyWasmMiddleware(app, chain(), engine=engine, recycle=Recycle(requests=10))

    def ask(path: str) -> tuple[str, bool]:
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "h", "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "HTTP_HOST": "h",
        }  # fmt: skip
        said = []
        response = served(environ, lambda status, headers, _=None: said.append((status, ("x-filtered", "yes") in headers)))
        list(response)
        response.close()
        return said[0]

    try:
        with ThreadPoolExecutor(1) as client:
            slow = client.submit(ask, "/slow")
            assert begun.wait(30)
            host = served.start()[0].host
            seen, answers, until = vms(host), [], time.monotonic() + 30
            while len(seen) < 3:
                assert time.monotonic() < until
                answers.append(ask("/"))
                seen |= vms(host)
                time.sleep(0.01)
            finish.set()
            assert {*answers, slow.result(30)} == {("200 OK", True)}
        assert re.search(r"the VM of probe has begun \d+ requests: filters have new VMs", caplog.text)
    finally:
        finish.set()
        served.close()


def test_what_cannot_be_loaded_anew_goes_on(engine, caplog):
    once = "@on_configure\nget_shared_data was\nif_status 0\nreturn 0\nset_shared_data was 1 0\n"

    async def run() -> None:
        served = asgi.ProxyWasmMiddleware(Application().asgi, chain(once), engine=engine, recycle=Recycle(age=0.1))
        with anyio.fail_after(30):
            while "but no new VM can be loaded: the old one continues" not in caplog.text:
                assert (await of_asgi.get(served, "GET", "/", [])).status == 200
                await anyio.sleep(0.05)
        assert (await of_asgi.get(served, "GET", "/", [])).status == 200
        [worker] = served._workers.values()
        await worker.stop()

    anyio.run(run)


def test_a_policy_says_when():
    with pytest.raises(ValueError, match=r"^give memory, requests or age$"):
        Recycle()
    with pytest.raises(TypeError, match=r"^recycle must be a Recycle\(memory=64 << 20\); not 5$"):
        asgi.ProxyWasmMiddleware(Application().asgi, chain(), recycle=5)

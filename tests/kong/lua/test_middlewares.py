"""Kong's gateway in front of applications in Python, and in one request without any connection."""

from __future__ import annotations

import asyncio
from io import BytesIO
from wsgiref.util import setup_testing_defaults

import httpx2
import pytest

from proxywasm_host.kong.asgi import KongMiddleware as AsgiMiddleware
from proxywasm_host.kong.wsgi import KongMiddleware as WsgiMiddleware
from tests.kong.conftest import PLUGINS
from tests.serve.origin import running
from tests.support import FILTERS

FILE = """
_format_version: "3.0"
services:
- name: api
  url: http://up.example/base
  filter_chains: [{{filters: [{{name: headers, config: from-rust}}]}}]
  routes:
  - {{name: calls, paths: [/calls], plugins: [{{name: hello}}, {{name: calls, config: {{url: '{origin}', host: 127.0.0.1, port: {port}, file: none}}}}]}}
"""


@pytest.fixture(scope="module")
def origin():
    with running() as origin:
        yield origin


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, origin):
    """A configuration, and its environment."""
    folder = tmp_path_factory.mktemp("kong")
    (folder / "headers.wasm").write_bytes((FILTERS / "rust/headers.wasm").read_bytes())
    file = folder / "kong.yaml"
    file.write_text(FILE.format(origin=origin.url, port=origin.port))
    return file, {"KONG_WASM_FILTERS_PATH": str(folder), "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua"}


def through_wsgi(file, environment, engine, path, headers):
    seen = []

    def app(environ, start_response):
        seen.append({key: value for key, value in environ.items() if key.startswith(("HTTP_X", "PATH_INFO"))})
        start_response("200 OK", [("x-app", "yes")])
        return [b"from the app"]

    def start_response(status, pairs, exc_info=None):
        seen.append((int(status[:3]), {name.lower(): value for name, value in pairs}))

    kong = WsgiMiddleware(app, file, environment=environment, engine=engine)
    environ = {"PATH_INFO": path, "wsgi.input": BytesIO(), **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}}
    setup_testing_defaults(environ)
    try:
        response = kong(environ, start_response)
        body = b"".join(response)
        response.close()
    finally:
        kong.close()
    status, answered = next(each for each in seen if isinstance(each, tuple))
    came = next((each for each in seen if isinstance(each, dict)), {})
    return status, answered, body, {key.removeprefix("HTTP_").lower().replace("_", "-"): value for key, value in came.items()}


def through_asgi(file, environment, engine, path, headers):
    seen = {}

    async def app(scope, receive, send):
        seen.update({name.decode(): value.decode() for name, value in scope["headers"]}, **{"path-info": scope["path"]})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
        await send({"type": "http.response.body", "body": b"from the app"})

    async def ask():
        kong = AsgiMiddleware(app, file, environment=environment, engine=engine)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(kong), base_url="http://localhost") as client:
            answer = await client.get(path, headers=headers)
        await kong._stop()
        kong.close()
        return answer

    answer = asyncio.run(ask())
    return answer.status_code, answer.headers, answer.content, seen


@pytest.mark.parametrize("through", [through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def test_an_application_answers_for_its_services(gateway, engine, through):
    status, answered, body, came = through(*gateway, engine, "/calls/x", {"x-remove-me": "1"})
    assert (status, body, answered["x-app"]) == (200, b"from the app", "yes")
    assert answered["x-wasm"] == "from-rust"
    assert came["path-info"] == "/base/x"
    assert [came[name] for name in ("x-lua", "x-slept", "x-http", "x-by-hand", "x-refused")] == ["moin calls", "true", "200", "HTTP/1.1 200 OK", "connection refused"]
    assert not {"x-remove-me", "x-proxywasm-upstream"} & came.keys()


@pytest.mark.parametrize("through", [through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def test_a_plugin_answers_instead_of_the_application(gateway, through):
    status, answered, body, came = through(*gateway, "wasmtime", "/calls", {"x-deny": "lua"})
    assert (status, answered["x-by"], b"denied by lua" in body, came) == (402, "lua", True, {})

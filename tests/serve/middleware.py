"""An application behind the middleware, for servers that are given its name."""

from __future__ import annotations

from typing import Any

from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware
from tests.serve.conftest import HEADERS


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"Hello."})


app = ProxyWasmMiddleware(hello, [Filter(HEADERS, configuration="hello")])

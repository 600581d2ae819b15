"""An application behind the middleware, under uvicorn: ``python -m benchmarks.application MODULE FILTERS``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import uvicorn

from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware

BODY = b"Hello from upstream."


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    headers = [(b"content-length", b"%d" % len(BODY)), (b"content-type", b"text/plain"), (b"server", b"application")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    module, count = sys.argv[1], int(sys.argv[2])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    filters = [Filter(module, vm_id=f"vm{number}") for number in range(count)]
    app = ProxyWasmMiddleware(hello, filters) if count else hello
    options = {"access_log": False, "log_config": None, "server_header": False, "ws": "none"}
    uvicorn.run(app, host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

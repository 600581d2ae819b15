"""A stand-in for a language model: an application behind the middleware under uvicorn, or the upstream of `serve`.

    python -m benchmarks.language_model FILTERS.json

FILTERS.json is a list of filters (module, buffer_limit). ``POST /prompt`` reads a prompt and returns its size;
``GET /events?count=N`` streams N events; ``GET /guests`` returns the bytes of memory of all guests.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from proxywasm_host.driver.worker import Worker
from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware

EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":"token"}}]}\n\n'
)
PLAIN = [(b"content-type", b"text/plain")]


async def model(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(int(parse_qs(scope["query_string"].decode())["count"][0])):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": b"%d" % size})


def with_filters(filters: list[dict[str, Any]]) -> Any:
    """The model behind filters, with the endpoint for the memory of their guests."""
    if not filters:
        return model
    chain = [Filter(one["module"]) for one in filters]
    middleware = ProxyWasmMiddleware(model, chain, buffer_limit=max(one["buffer_limit"] for one in filters))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/guests":
            workers: list[Worker] = list(middleware._workers.values())
            memory = sum(plugin._vm.memory_bytes for worker in workers for plugin in worker.plugins)
            await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
            await send({"type": "http.response.body", "body": b"%d" % memory})
            return
        await middleware(scope, receive, send)

    return application


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    filters = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    options = {"access_log": False, "log_config": None, "server_header": False, "ws": "none"}
    uvicorn.run(with_filters(filters), host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

"""A Starlette application behind a filter that rejects requests without a token.

uvicorn --app-dir examples asgi_starlette:app
curl -i localhost:8000/ -H 'authorization: Bearer secret'
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware

FILTERS = Path(__file__).parent.parent / "tests" / "filters"


async def hello(request):
    return PlainTextResponse(f"Hello, {request.headers['x-wasm']}.\n")


app = Starlette(
    routes=[Route("/", hello)],
    middleware=[
        Middleware(
            ProxyWasmMiddleware,
            filters=[
                Filter(FILTERS / "rust" / "auth.wasm", configuration="secret"),
                Filter(FILTERS / "go" / "headers.wasm", configuration="from a filter in Go"),
            ],
        )
    ],
)

"""A FastAPI application behind a filter that checks each JSON body and calls another service about it.

uvicorn --app-dir examples asgi_fastapi:app        ($AUDIT is the service, by default http://127.0.0.1:9000)
curl -i localhost:8000/orders --json '{"item": "tea"}'
"""

import os
from pathlib import Path

from fastapi import FastAPI

from proxywasm_host.integrations.asgi import Cluster, Filter, ProxyWasmMiddleware

BODY = Path(__file__).parent.parent / "tests" / "filters" / "go" / "body.wasm"

app = FastAPI()
app.add_middleware(
    ProxyWasmMiddleware,
    filters=[Filter(BODY, configuration='{"callout": "audit"}')],
    clusters={"audit": Cluster(os.environ.get("AUDIT", "http://127.0.0.1:9000"), timeout=2.0)},
)


@app.post("/orders")
async def order(order: dict) -> dict:
    return {"ordered": order["item"], "seen": order["seen"]}

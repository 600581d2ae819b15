"""The ASGI middleware inside of a stock Envoy: pyvoy, in an environment of its own that `make` installs."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PYVOY = CACHE / "proxywasm-host/pyvoy/bin/pyvoy"
"""`make` installs it."""
APP = f"""
from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware

async def echo(scope, receive, send):
    if scope["type"] == "http":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen = dict(scope["headers"]).get(b"x-wasm", b"") + b" " + scope["raw_path"] + b" " + body
        await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(seen))]}})
        await send({{"type": "http.response.body", "body": seen}})

app = ProxyWasmMiddleware(echo, [Filter({str(ROOT / "tests/filters/rust/headers.wasm")!r}, configuration="hello")])
"""


def test_filters_in_a_stock_envoy(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'engines/wasmtime'}", "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [PYVOY, "app:app", "--port", "0"], cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        answer = httpx2.post(f"http://{found[1]}/a%20b?c", content=b"x" * 100_000, timeout=60)
        assert (answer.status_code, answer.headers["x-wasm"]) == (200, "hello")
        assert answer.content == b"hello /a%20b " + b"x" * 100_000
    finally:
        process.terminate()
        process.wait(20)

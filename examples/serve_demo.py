"""The demonstration of ``make serve-demo``: a filter in front of a server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILTER = Path(__file__).parent.parent / "tests/filters/rust/headers.wasm"


class Upstream(BaseHTTPRequestHandler):
    """The server behind the filter, which answers with the request that it got."""

    def do_GET(self) -> None:
        body = f"{self.requestline}\n{self.headers}".encode().strip() + b"\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
command = [sys.executable, "-m", "proxywasm_host.cli", "serve", str(FILTER)]
command += ["--upstream", f"http://127.0.0.1:{upstream.server_port}", "--listen", "127.0.0.1:0", "--log-level", "error"]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serve:  # noqa: S603 - our own
    try:
        said = next(line for line in serve.stderr or () if "serving" in line)
        url = re.search(r"http://\S+(?=:)", said)[0]  # type: ignore[index]
        print(f"$ proxywasm serve {FILTER.name} --upstream …\n{said.partition(': ')[2]}")
        request = urllib.request.Request(f"{url}/hello", headers={"x-remove-me": "please"})  # noqa: S310 - our own
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own
            print(f"The client got:\n\nHTTP/1.1 {answer.status} {answer.reason}\n{str(answer.headers).strip()}\n")
            print(f"The server behind the filter got:\n\n{answer.read().decode()}")
    finally:
        serve.terminate()
        print(f"The access log:\n\n{(serve.stdout or sys.stdin).read()}", end="")

"""What the servers of the tests serve: an application of a framework behind four filters, in Rust, Go, AssemblyScript
and C. Chosen by environment variables, for it runs in a process of its own.

``/open`` is answered before the filters: how many streams and contexts there are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware
from tests.servers.frameworks import FRAMEWORKS

FILTERS = Path(__file__).parent.parent / "filters"
PROBE = """@on_request_headers
get_header_map_value 0 x-cut
if_status 0
set_property cut 1
@on_response_body/2
get_property cut
if_status 0
send_local_response 500 cut%20by%20the%20filter "" "" -1
@on_response_trailers
add_header_map_value 3 x-trailer at%20the%20end
"""


def chain() -> list[Filter]:
    return [
        Filter(FILTERS / "rust" / "auth.wasm", configuration="callout:idp"),
        Filter(FILTERS / "go" / "headers.wasm", configuration="Go"),
        Filter(FILTERS / "assemblyscript" / "headers_0_2_1.wasm", configuration="AssemblyScript"),
        Filter(FILTERS / "c" / "probe_0_2_1.wasm", configuration=PROBE),
    ]


def with_trailers(app):
    """The application, with trailers at ``/trailers``, which frameworks have no words for."""

    async def both(scope, receive, send) -> None:
        if scope.get("path") != "/trailers":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"body", "more_body": False})
        await send({"type": "http.response.trailers", "headers": [(b"x-app", b"1")], "more_trailers": False})

    return both


class Counted:
    """The application, and how much of it is going on."""

    def __init__(self, app: ProxyWasmMiddleware) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["path"] != "/open":
            await self.app(scope, receive, send)
            return
        [worker] = self.app._workers.values()
        plugins = worker.plugins
        told = {
            "streams": worker.driver.streams,
            "contexts": sum(len(plugin._vm.contexts) - 2 for plugin in plugins),  # without the VM's and the plugin's
            "failed": [str(plugin.failure) for plugin in plugins if plugin.failure],
            "engines": sorted({worker.host.engine.name}),
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * 4096,
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


app = Counted(
    ProxyWasmMiddleware(
        with_trailers(FRAMEWORKS[os.environ["FRAMEWORK"]]()),
        chain(),
        clusters={"idp": os.environ["IDP"]},
        engine=os.environ["ENGINE"],
    )
)

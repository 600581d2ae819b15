"""All threads take locks in one order: otherwise two of them could wait for each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ENGINES

SHARED = """
import os, threading, time
from proxywasm_host.services.shared import open_shared
shared = open_shared("processes:" + sys.argv[1])
came = threading.Event()
shared.data.set("vm", b"k", b"v")
token = shared.queues.register("vm", b"q", lambda token: came.set())
shared.queues.enqueue(token, b"m")
assert came.wait(20)
shared.metrics.add(0, "c", 1)
shared.metrics.snapshot()
if not (child := os.fork()):
    os._exit(shared.data.get("vm", b"k") != (b"v", 1))
assert os.waitpid(child, 0)[1] == 0
shared.close()
shared.data.get("vm", b"k")
shared.close()
check("self._writing", "self._opening", "self.own", "self._exchanging", "listener.py")
"""
MIDDLEWARE = """
import os, threading, time
from proxywasm_host import Services
from proxywasm_host.driver.recycle import Recycle
from proxywasm_host.integrations.wsgi import Filter, ProxyWasmMiddleware
from proxywasm_host.integrations import threads
from tests.driver.test_asynchronous import call
from tests.integrations.test_wsgi import get, hello
from tests.support import code
threads.EACH = 0.01
script = ("@on_configure\\nregister_shared_queue q\\nset_tick_period_milliseconds 1\\n@on_request_headers\\n"
    "set_shared_data k v 0\\n" + call("echo"))
middleware = ProxyWasmMiddleware(
    hello, [Filter(code("c/probe_0_2_1"), configuration=script)], engine=sys.argv[2], clusters={"up": "http://127.0.0.1:9"},
    recycle=Recycle(age=0.05), shared="processes:" + sys.argv[1], on_failure=print,
)
calls = [threading.Thread(target=get, args=(middleware,)) for _ in range(4)]
for each in calls:
    each.start()
for each in calls:
    each.join()
time.sleep(0.2)
get(middleware)
middleware.close()
middleware._make_host().close()
check("self._starting", "driver/threaded.py: self.lock", "exchanging", "self.own")
"""


@pytest.mark.parametrize("program", [SHARED, MIDDLEWARE], ids=["shared", "middleware"])
def test_one_order(program, tmp_path):
    command = ["from tests.lock_order import check", "import sys", program]
    options = ["-W", "ignore::DeprecationWarning"]
    subprocess.run(
        [sys.executable, *options, "-c", "\n".join(command), str(tmp_path / "state"), ENGINES[0]],
        check=True,
        timeout=60,
    )

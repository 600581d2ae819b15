"""What a packed filter meets at its limits: it goes on, whatever one handler does."""

from __future__ import annotations

import inspect

import proxywasm_pack
import pytest
from proxywasm import _tasks

from proxywasm_host import Limits
from proxywasm_host.testing import Harness
from tests.sdk.conftest import EXAMPLES


@pytest.fixture
def harness(engine):
    """Only where scripts are packed: the limits are those of the module."""
    with Harness(engine) as harness:
        harness.find = proxywasm_pack.pack
        yield harness


LIMITS = """
from proxywasm import HttpFilter, log, register

def deep(n):
    return n + deep(n + 1)

class Limits(HttpFilter):
    async def on_request_headers(self, request):
        if request.path == "/deep":
            deep(0)
        if request.path == "/large":
            x = []
            while True:
                x.append("x" * 10000 + str(len(x)))
        body = await request.body()
        request.set_body(body[::-1].replace(b"a", b"b"))

register(Limits)
"""


def test_limits(script):
    f = script(LIMITS)
    r = f.get("/deep")
    assert (r.status, "maximum recursion depth exceeded" in r.logs.error[0], "line 5" in r.logs.error[0]) == (500, True, True)
    r = f.get("/large")
    assert (r.status, "MemoryError" in r.logs.error[0]) == (500, True)
    r = f.post("/", body=b"ab" * 500_000)
    assert (r.status, r.upstream.body) == (200, b"bb" * 500_000)


ERRORS = """
import json
from proxywasm import HttpFilter, register

class Broken(HttpFilter):
    on_error = None

    def on_request_headers(self, request):

        match request.path:
            case "/go":
                request.headers["x"] = 3 / 0

    async def on_response_headers(self, response):
        await self.call("nobody", "GET", "/")

    def on_response_body(self, response, chunk, end):
        return {}["x"]

register(Broken)
"""


def test_what_a_handler_raises_is_a_traceback_and_the_stream_goes_on(script):
    f = script(ERRORS)
    f.upstream = "body"
    line = next(i for i, text in enumerate(inspect.getsource(_tasks).splitlines(), 1) if "token = host.http_call" in text)
    call = f'File "proxywasm/_tasks.py", line {line}, in call'
    r = f.get("/go")
    assert (r.status, r.response.body, r.failure) == (200, b"body", None)
    places = [[line.strip() for line in text.splitlines()][-2:] for text in r.logs.error]
    assert places == [
        ['File "filter.py", line 12, in on_request_headers', "ZeroDivisionError: divide by zero"],
        [call, "HostError: the host answers BadArgument"],
        ['File "filter.py", line 18, in on_response_body', "KeyError: 'x'"],
    ]


def test_the_same_script_gives_the_same_bytes():
    first, second = (proxywasm_pack.pack(EXAMPLES / "request_log.py") for _ in range(2))
    assert first == second
    assert len(first) < 400_000


def test_memory_is_flat(script):
    f = script(
        "import json\nfrom proxywasm import on_request_headers\n"
        "@on_request_headers\ndef f(request):\n    request.headers['x'] = json.dumps(request.headers.items())\n"
    )
    memory = f.plugins[0]._vm.instance.memory

    def size():
        memory.refresh()
        return len(memory.view)

    for _ in range(300):
        f.get("/")
    before = size()
    for _ in range(600):
        f.get("/")
    assert size() == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import proxywasm\nx = 1 / 0\n", '  File "filter.py", line 2, in <module>\nZeroDivisionError: divide by zero'),
        ("import proxywasm\n\nimport polars\n", "filter.py:3: there is no module 'polars' for packed filters, neither next to"),
        ("import logging\n", "filter.py:1: there is no module 'logging' for packed filters: use log of proxywasm"),
        ("from os import environ\n", "filter.py:1: there is no module 'os' for packed filters: a filter has no files"),
        ("def f(:\n", "filter.py:1: invalid syntax"),
    ],
)
def test_errors_when_a_script_is_packed(source, words, tmp_path):
    (tmp_path / "filter.py").write_text(source)
    with pytest.raises(proxywasm_pack.ScriptError) as error:
        proxywasm_pack.pack(tmp_path / "filter.py")
    assert words in str(error.value)


def test_an_endless_loop_meets_the_deadline(script):
    f = script(
        "from proxywasm import on_request_headers\n"
        "@on_request_headers\ndef f(request):\n    while request.path == '/endless':\n        pass\n",
        limits=Limits(deadline=0.2),
        failure_policy="fail_reload",
        reload_interval=0,
    )
    r = f.get("/endless")
    assert (r.status, r.failure.kind) == (503, "deadline")
    f.clock.advance(1)
    assert f.get("/").status == 200

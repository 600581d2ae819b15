"""The examples print what they should, on every engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from proxywasm_host import list_engines
from tests.conftest import ENGINES
from tests.driver import conftest as of_the_driver
from tests.servers.conftest import free_port, start, stop

ROOT = Path(__file__).parent.parent
upstream = of_the_driver.upstream
PRINTED = {
    "one_request.py": """\
secret: upstream gets b'from Go'
secret: the client gets 200 b'Hello.'
    auth: auth: allowed
    headers: headers: request for /x by -
    headers: headers: response by upstream
    headers: headers: done
guessed: upstream gets nothing
guessed: the client gets 401 b'unauthorized\\n'
    auth: auth: denied with 401
    headers: headers: done
""",
    "own_io.py": """\
asking accounts about Bearer good
to upstream: /x
to the client: 200
to the client: Hello.
asking accounts about Bearer bad
to the client: 403
to the client: forbidden
""",
}


def run(engine, *arguments: str) -> str:
    environment = {**os.environ, **({"PROXYWASM_ENGINE": engine.name} if engine else {})}
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_prints(name, engine):
    assert run(engine, f"examples/{name}") == PRINTED[name]


def test_the_unit_test_passes(engine):
    assert "4 passed" in run(engine, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_a_filter.py")


@pytest.mark.several_engines
def test_tests_of_filters_pass_on_all_engines():
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/testing"]
    assert f"{7 * len(ENGINES)} passed" in run(None, *command, "--proxywasm-engine", ",".join(ENGINES))


def test_suites_of_filters_pass():
    suites = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples" / "testing").glob("*.suite.yaml"))
    assert "# 4 passed, 0 failed" in run(None, "-m", "proxywasm_host.cli", "test", *suites)


def test_an_engine_for_each_filter():
    usable = [each.name for each in list_engines() if each.usable]
    told = [f"filter {number} runs on the engine {usable[(number - 1) % len(usable)]}\n" for number in (1, 2, 3)]
    names = "['go/headers', 'rust/headers', 'assemblyscript/headers_0_2_0']\n"
    assert run(None, "examples/engines.py") == "".join(told) + names


@pytest.fixture
def served(tmp_path, request):
    """An example under uvicorn: a client of it."""
    started = []

    def serve(name: str, **environment: str) -> httpx2.Client:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--app-dir", "examples", "--port", str(port), f"{name}:app"]
        url = f"http://127.0.0.1:{port}"
        started.append(start(command, tmp_path / "log", url, **environment))
        client = httpx2.Client(base_url=url, trust_env=False)
        request.addfinalizer(client.close)
        return client

    yield serve
    for process in started:
        stop(process)


def test_starlette(served):
    client = served("asgi_starlette")
    assert client.get("/").status_code == 401
    answer = client.get("/", headers={"authorization": "Bearer secret"})
    assert (answer.status_code, answer.text) == (200, "Hello, from a filter in Go.\n")


def test_fastapi(served, upstream):
    client = served("asgi_fastapi", AUDIT=upstream.url)
    upstream.seen.clear()
    assert client.post("/orders", json={"item": "tea"}).json() == {"ordered": "tea", "seen": True}
    assert client.post("/orders", content=b"tea").status_code == 400
    assert [path for _, path, _, _ in upstream.seen] == ["/callout", "/callout"]


def test_every_example_is_run():
    """``serve_demo.py`` in tests/serve/test_serve.py, as it needs the data plane."""
    tested = {*PRINTED, "test_a_filter.py", "engines.py", "asgi_starlette.py", "asgi_fastapi.py", "serve_demo.py"}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == tested

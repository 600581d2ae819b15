"""The command line with filters in Python: pack, run, test and serve take a .py."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import proxywasm_pack
import pytest

from proxywasm_host.abi.bytecode import Bytecode

ROOT = Path(__file__).parent.parent.parent
FILTER = """
from proxywasm import Response, on_request_headers

@on_request_headers
def teapot(request):
    if request.path == "/tea":
        return Response(418, body="short and stout\\n")
    request.headers["x-tea"] = "no"
"""
PROXYWASM = [sys.executable, "-m", "proxywasm_host.cli"]
PATIENCE = 30.0

ALONE = """
import sys
FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.spawn")
def refuse(event, arguments):
    if event.startswith(FORBIDDEN):
        raise SystemExit(f"it uses {event} {arguments}")
sys.addaudithook(refuse)
from proxywasm_host.cli import main
sys.exit(main(["pack", "filter.py"]))
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A filter, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "filter.py"
    path.write_text(FILTER)
    return path


def said(*command):
    done = subprocess.run([*PROXYWASM, *command], text=True, capture_output=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout + done.stderr


def until(true):
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextlib.contextmanager
def running(*command):
    """A program that is interrupted at the end; what it says goes to the file."""
    with open("log", "wb") as log:
        process = subprocess.Popen([*PROXYWASM, *command], stdout=log, stderr=log)
    try:
        yield Path("log")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def test_pack_needs_no_compiler_and_no_network(script):
    environment = {"PATH": "", "HOME": os.environ["HOME"]}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, text=True, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"filter.wasm: \d+ KB\n", done.stdout)
    assert script.with_suffix(".wasm").read_bytes() == proxywasm_pack.pack(script)


def test_pack_watches(script):
    module = script.with_suffix(".wasm")
    with running("pack", "filter.py", "--watch") as log:
        until(lambda: " KB" in log.read_text())  # which is said when it is written
        first = module.read_bytes()
        script.write_text("import requests\n")
        until(lambda: "there is no module 'requests' for packed filters" in log.read_text())
        assert module.read_bytes() == first
        script.write_text(FILTER.replace("418", "419"))
        until(lambda: module.read_bytes() != first)
    assert module.read_bytes() == proxywasm_pack.pack(script)


IN_A_FINALIZER = """
import signal, sys
from proxywasm_host.cli import main, pack

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def pack_once(*_):
    Interrupted()

pack._pack = pack_once
sys.exit(main(["pack", "filter.py", "--watch"]))
"""


def test_an_interrupt_that_a_finalizer_drops_ends_watching(script):
    command = [sys.executable, "-c", IN_A_FINALIZER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, "Exception ignored" in done.stderr) == (130, True)


def test_run(script):
    code, text = said("run", "filter.py", "http://example.com/tea")
    assert (code, "418" in text, "short and stout" in text) == (0, True, True)


def test_suites(script):
    Path("tea.suite.yaml").write_text("""
filter: filter.py
tests:
  - name: no coffee
    request: {url: /tea}
    expect: {response: {status: 418}}
  - name: water
    request: {url: /water}
    expect: {upstream: {headers: {x-tea: "no"}}}
""")
    code, text = said("test", "tea.suite.yaml")
    assert (code, "2 passed" in text or "ok 2" in text) == (0, True), text


def test_serve(script):
    arguments = ["serve", "filter.py", "--upstream", "http://127.0.0.1:9", "--listen", "127.0.0.1:0", "--watch"]
    with running(*arguments) as log:
        until(lambda: "serving http://" in log.read_text())
        url = re.search(r"serving (http://[\d.]+:\d+)", log.read_text())[1]

        def status():
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(f"{url}/tea", timeout=PATIENCE)
            answer.value.close()
            return answer.value.code

        assert status() == 418
        script.write_text(FILTER.replace("418", "451"))
        until(lambda: status() == 451)


def test_the_runtime_is_what_is_licensed():
    """Its digest and its licences are in what is distributed with it."""
    digest = hashlib.sha256(proxywasm_pack.RUNTIME.read_bytes()).hexdigest()
    for notice in (ROOT / "NOTICE", ROOT / "sdk" / "NOTICE"):
        assert f"Its sha256 is {digest}." in notice.read_text()
    told = distribution("proxywasm-sdk").metadata
    assert told.get_all("License-File") == ["NOTICE"]
    assert "MIT" in told["License-Expression"]


def test_a_script_that_asks_redis_is_packed_for_higress(script):
    assert "Higress" not in said("pack", "filter.py")[1]
    script.write_text(FILTER + "\nfrom proxywasm.redis import Redis\n")
    status, text = said("pack", "filter.py")
    assert (status, text.partition(", ")[2]) == (0, "for Higress and proxywasm-host (ABI 0.2.100); Envoy would refuse it\n")
    status, text = said("run", "filter.wasm", "http://h/", "--response-body", "x")
    assert (status, "x-tea" in text) == (0, True)


def test_other_scripts_import_nothing_of_higress(script):
    plain, redis = (Bytecode(proxywasm_pack.runtime(redis=redis)) for redis in (False, True))
    names = {name for _, name, *_ in redis.imports} - {name for _, name, *_ in plain.imports}
    assert names == {"proxy_redis_init", "proxy_redis_call"}
    assert (str(plain.abi_version), str(redis.abi_version)) == ("0.2.1", "0.2.100")

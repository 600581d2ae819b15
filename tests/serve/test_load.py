"""Bounded load: no error, no wrong answer, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.serve.conftest import BODY, HEADERS
from tests.serve.ports import listening

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
CHECKED = """\
local wrong = 0
function response(status, headers, body)
  if status ~= 200 or headers["x-wasm"] ~= "hello" or not body:find('"x%-wasm", "hello"') then wrong = wrong + 1 end
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() wrong = 0 end
function report() return wrong end
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("errors %d", e.connect + e.read + e.write + e.status + e.timeout))
  print(string.format("answers %d", summary.requests))
  for _, thread in ipairs(threads) do print(string.format("wrong %d", thread:get("wrong"))) end
end
"""


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def test_wrk_finds_no_error_and_no_wrong_answer(serve, tmp_path):
    script = tmp_path / "checked.lua"
    script.write_text(CHECKED.replace("local wrong", "wrong", 1))
    served = serve(HEADERS, access_log="off", log_level="error", workers=2)
    served.get()
    told = run("wrk", "-t", 2, "-c", 32, "-d", "2s", "-s", script, served.url)
    assert number(r"errors (\d+)", told) == 0
    assert re.findall(r"wrong (\d+)", told) == ["0", "0"]
    assert number(r"answers (\d+)", told) > 50


def test_h2load_finds_no_error(serve):
    served = serve(HEADERS, access_log="off", log_level="error")
    served.get()
    told = run("h2load", "--h1", "-n", 600, "-c", 8, f"{served.url}/x")
    assert number(r"(\d+) succeeded", told) == 600
    assert number(r"(\d+) 2xx", told) == 600
    assert served.metrics()['proxywasm_requests_total{code="200"}'] == 601


def test_h2load_over_http2_through_the_middleware(tmp_path):
    """Under hypercorn: uvicorn speaks HTTP/1.1 only."""
    with listening() as sock:
        port = sock.getsockname()[1]
        command = [sys.executable, "-m", "hypercorn", "tests.serve.middleware:app", "--bind", f"fd://{sock.fileno()}"]
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(command, pass_fds=[sock.fileno()], stdout=log, stderr=log)
        try:
            told = run("h2load", "-n", 1000, "-c", 4, "-m", 16, f"http://127.0.0.1:{port}/x")
        finally:
            server.terminate()
            server.wait(20)
    assert number(r"(\d+) succeeded", told) == 1000
    assert number(r"(\d+) 2xx", told) == 1000
    assert "Traceback" not in (tmp_path / "log").read_text()


# -- Many, slow and broken ---------------------------------------------------------------------------------------------


@pytest.fixture
def many_files():
    """As many open files as we may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def contexts(served) -> int:
    return served.live()["workers"][0]["chain"][0]["contexts"]


def settled(served, expected: int) -> None:
    until = time.monotonic() + 20
    while (contexts(served), served.metrics()["proxywasm_requests_in_progress"]) != (expected, 0):
        assert time.monotonic() < until, (contexts(served), served.log)
        time.sleep(0.05)


def address_of(served) -> tuple[str, int]:
    host, _, port = served.url.removeprefix("http://").partition(":")
    return host, int(port)


async def connect(served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*address_of(served))


def test_2000_slow_streams_at_once(serve, origin, many_files):
    release = []

    async def slow(request, reader, writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsl")
        while not release:
            await asyncio.sleep(0.2)
        writer.write(b"ow")
        return True

    origin.answers["/slow"] = slow
    served = serve(HEADERS, settings={"upstream": {"max_connections": 3000, "max_requests": 3000}}, access_log="off", log_level="error")
    served.get()
    before = contexts(served)

    async def one() -> bytes:
        reader, writer = await connect(served)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"ow")
        writer.close()
        return head[:12] + body[-2:]

    async def all_of_them() -> set[bytes]:
        streams = [asyncio.ensure_future(one()) for _ in range(2000)]
        while origin.open < 2000 and not any(stream.done() for stream in streams):
            await asyncio.sleep(0.1)
        open_now = await asyncio.to_thread(served.metrics)
        release.append(True)
        assert open_now["proxywasm_requests_in_progress"] == 2000
        return set(await asyncio.gather(*streams))

    assert asyncio.run(asyncio.wait_for(all_of_them(), 90)) == {b"HTTP/1.1 200ow"}
    settled(served, before)


def test_connections_that_are_cut_anywhere_leave_nothing_behind(serve, origin):
    """While they send their headers, in the middle of a body that a filter holds, before and within the response."""
    chance = random.Random(6)

    async def slow(request, reader, writer) -> bool:
        await request.read(reader)
        for part in (b"HTTP/1.1 200 OK\r\n", b"content-length: 3000\r\n\r\n", b"x" * 1000, b"y" * 1000, b"z" * 1000):
            writer.write(part)
            await asyncio.sleep(0.01)
        return True

    origin.answers["/slow"] = slow
    served = serve(BODY, HEADERS, access_log="off", log_level="error")
    served.get()
    before = contexts(served)
    message = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n" + b"b" * 2000

    async def cut() -> None:
        reader, writer = await connect(served)
        place = chance.randrange(2 * len(message))
        writer.write(message[:place])
        await writer.drain()
        if place >= len(message):
            await reader.read(chance.randrange(1, 3000))
        await asyncio.sleep(chance.random() * 0.03)
        writer.transport.abort()

    async def all_of_them() -> None:
        for _ in range(5):
            await asyncio.gather(*(cut() for _ in range(40)))

    asyncio.run(all_of_them())
    settled(served, before)
    assert served.get().status_code == 200
    assert "Traceback" not in served.log


def test_slow_readers_and_writers_do_not_make_memory_grow(serve, origin):
    """16 clients that stop reading 50 MB each, and 16 that send as much to a server that does not read."""
    release = []

    async def large(request, reader, writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            await writer.drain()
        return False

    async def deaf(request, reader, writer) -> bool:
        while not release:
            await asyncio.sleep(0.05)
        return False

    origin.answers.update({"/large": large, "/deaf": deaf})
    served = serve(HEADERS, access_log="off", log_level="error")
    served.get()
    before, memory = contexts(served), served.metrics()["proxywasm_resident_bytes"]

    async def reads_little(writers: list) -> None:
        reader, writer = await connect(served)
        writers.append(writer)
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await reader.read(100)

    async def writes_much(writers: list) -> None:
        _, writer = await connect(served)
        writers.append(writer)
        writer.write(b"POST /deaf HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n")
        try:
            for _ in range(500):
                writer.write(b"x" * 100_000)
                await asyncio.wait_for(writer.drain(), 0.5)
        except asyncio.TimeoutError:
            return
        raise AssertionError("somebody has taken 50 MB")

    async def all_of_them() -> float:
        writers: list = []
        await asyncio.gather(*(kind(writers) for kind in (reads_little, writes_much) for _ in range(16)))
        await asyncio.sleep(0.3)
        grown = (await asyncio.to_thread(served.metrics))["proxywasm_resident_bytes"] - memory
        release.append(True)
        for writer in writers:
            writer.transport.abort()
        return grown

    assert asyncio.run(all_of_them()) < 100e6
    settled(served, before)


# -- Processes and descriptors that go ---------------------------------------------------------------------------------


def test_a_process_killed_under_load_loses_only_what_it_had(serve):
    served = serve(HEADERS, workers=2, access_log="off", log_level="error")
    lost = []

    def ask(_: int) -> int:
        try:
            with socket.create_connection(address_of(served), 10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                return int(b"".join(iter(lambda: client.recv(65536), b"")).split()[1])
        except (OSError, IndexError) as error:
            lost.append(error)
            return 0

    worker = served.live()["workers"][0]["pid"]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(ask, range(1000))
        time.sleep(0.1)
        os.kill(worker, signal.SIGKILL)
        codes = list(answers)
    assert set(codes) <= {200, 0}
    assert len(lost) <= 8 + 8  # what was under way, and what had waited to be taken


def test_without_descriptors_it_waits_and_goes_on(serve):
    served = serve(settings={"filters": [], "clients": {"max_connections": 10000}})
    known = socket.create_connection(address_of(served), 10)
    known.sendall(GET)
    assert known.recv(65536).startswith(b"HTTP/1.1 200 ")
    open_now = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (open_now + 8, open_now + 8))
    held = [socket.create_connection(address_of(served), 10) for _ in range(20)]
    time.sleep(0.3)
    for _ in range(100):  # who has a connection loses nothing
        known.sendall(GET)
        answer = HTTPResponse(known)
        answer.begin()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
    for client in (known, *held):
        client.close()
    assert served.get().status_code == 200

"""``--watch``: what has changed is loaded beside what runs, and no request is lost by it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from proxywasm_host.serve.reload import Watch
from proxywasm_host.serve.source import Source
from tests.serve.conftest import AUTH, HEADERS, PANICS

GO = HEADERS.replace("rust", "go")


def put(file: Path, content: bytes | str) -> None:
    """Replace a file at once, as editors and compilers should."""
    new = file.with_suffix(".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    new.replace(file)


def chain(*configurations: str, file: str = HEADERS) -> str:
    return json.dumps({"filters": [{"file": file, "configuration": text} for text in configurations], "watch": True})


def loaded(served, times: int) -> None:
    """Wait until it has reloaded so often."""
    until = time.monotonic() + 30
    while served.metrics()['proxywasm_reloads_total{outcome="loaded"}'] < times:
        assert time.monotonic() < until, served.log
        time.sleep(0.02)


def test_new_streams_get_the_new_chain_and_old_ones_end_on_theirs(on_engine, tmp_path, origin):
    release = threading.Event()

    async def slow(request, reader, writer) -> bool:
        while not release.is_set():
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return True

    origin.answers["/slow"] = slow
    file = tmp_path / "chain.json"
    put(file, chain("one"))
    served = on_engine(config=file)
    with ThreadPoolExecutor() as pool:
        old = pool.submit(served.get, "/slow")
        while not origin.requests:
            time.sleep(0.01)
        put(file, chain("two", "three"))
        loaded(served, 1)
        assert served.get().headers["x-wasm"] == "three, two"
        assert served.live()["workers"][0]["retired"] == 1
        release.set()
        assert old.result().headers["x-wasm"] == "one"
    until = time.monotonic() + 10
    while served.live()["workers"][0]["retired"]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_cannot_be_loaded_changes_nothing_and_is_told_once(serve, tmp_path):
    file, module = tmp_path / "chain.json", tmp_path / "filter.wasm"
    put(module, Path(HEADERS).read_bytes())
    put(file, chain("one", file=str(module)))
    served = serve(config=file)
    assert served.get().headers["x-wasm"] == "one"
    for number, (changed, content, says) in enumerate(
        (
            (module, b"\0asm no more", "filter.wasm: "),
            (module, Path(AUTH).read_bytes()[:1000], "filter.wasm: "),
            (file, "{", "this is not YAML"),
            (file, '{"filters": [], "colour": "red"}', "colour: is not known"),
            (file, chain("x", file=str(tmp_path / "none.wasm")), "cannot read the filter"),
            (file, chain("", file=AUTH), "refused its configuration"),
        ),
        1,
    ):
        put(changed, content)
        until = time.monotonic() + 20
        while served.metrics()['proxywasm_reloads_total{outcome="refused"}'] < number:
            assert time.monotonic() < until, served.log
            time.sleep(0.02)
        os.utime(changed)
        assert served.get().headers["x-wasm"] == "one"
        assert says in served.log
    time.sleep(0.3)
    assert served.log.count("not loaded, nothing has changed") == 6
    put(module, Path(GO).read_bytes())
    put(file, chain("two", file=str(module)))
    served.wait_for("loaded the changes")
    loaded(served, 1)
    assert served.get().headers["x-wasm"] == "two"
    assert "Traceback" not in served.log


def test_what_comes_back_starts_what_has_failed(on_engine, tmp_path):
    """Though it is what runs already."""
    file = tmp_path / "chain.json"
    filters = [
        {"file": PANICS, "configuration": "response_headers", "failure_policy": "fail_closed"},
        {"file": HEADERS, "configuration": "one"},
    ]
    chain = json.dumps({"filters": filters, "watch": True})
    put(file, chain)
    served = on_engine(config=file)
    assert [served.get().status_code for _ in range(2)] == [503, 503]
    started = served.live()["workers"][0]["chain"][0]["state"]
    put(file, "{")
    served.wait_for("not loaded, nothing has changed")
    put(file, chain)
    loaded(served, 1)
    assert (started, served.live()["workers"][0]["chain"][0]["state"]) == ("failed", "running")


def test_files_that_the_command_line_names_are_watched(serve, tmp_path):
    configuration, vm = tmp_path / "filter.txt", tmp_path / "vm.txt"
    put(configuration, "one")
    put(vm, "one")
    served = serve(HEADERS, filter_config=f"@{configuration}", vm_config=f"@{vm}", watch=True)
    assert served.get().headers["x-wasm"] == "one"
    put(configuration, "two")
    loaded(served, 1)
    assert served.get().headers["x-wasm"] == "two"
    put(vm, "two")
    loaded(served, 2)
    configuration.unlink()
    served.wait_for("not loaded, nothing has changed: cannot read the configuration")
    put(configuration, "three")
    loaded(served, 3)
    assert served.get().headers["x-wasm"] == "three"


def test_no_exception_ends_watching(tmp_path, caplog):
    """Whatever comes, it is told once, and the next change is seen."""
    file = tmp_path / "serve.yaml"
    put(file, '{"upstream": {"url": "http://x"}}')
    came: list[str] = []

    async def reload() -> str:
        came.append(file.read_text())
        if "raise" in came[-1]:
            raise ValueError("nobody has thought of this")
        return "refused" if "refuse" in came[-1] else ""

    async def change(text: str) -> None:
        put(file, text)
        while came[-1:] != [text]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)

    async def test() -> None:
        watching = asyncio.ensure_future(Watch(Source(file)).run(reload))
        for text in ("raise: 2024-01-01", "refuse: [", "good: 1", "raise: again"):
            await asyncio.wait_for(change(text), 10)
        assert not watching.done()
        watching.cancel()

    asyncio.run(test())
    assert came == ["raise: 2024-01-01", "refuse: [", "good: 1", "raise: again"]
    assert caplog.text.count("\nValueError: nobody has thought of this") == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "ERROR"]


def test_no_request_is_lost_over_100_reloads(serve, tmp_path):
    """A rebuilt filter and an edited configuration in turn, under load: every answer is whole, and from one chain."""
    file, module = tmp_path / "chain.json", tmp_path / "filter.wasm"
    modules = [Path(name).read_bytes() for name in (HEADERS, GO)]
    put(module, modules[0])
    put(file, chain("0", "0", file=str(module)))
    served = serve(config=file, access_log="off", log_level="error")
    served.get()
    over = threading.Event()
    wrong: list[str] = []

    def load() -> int:
        count = 0
        with httpx2.Client(timeout=30) as client:
            while not over.is_set():
                answer = client.post(served.url, content=b"x" * 1000)
                seen = answer.headers.get("x-wasm", "").split(", ")
                if (
                    answer.status_code != 200
                    or len(seen) != 2
                    or len(set(seen)) != 1
                    or len(answer.json()["body"]) != 1000
                ):
                    wrong.append(f"{answer.status_code} {seen}")
                count += 1
        return count

    with ThreadPoolExecutor() as pool:
        loads = [pool.submit(load) for _ in range(3)]
        try:
            for number in range(1, 101):
                if number % 2:
                    put(file, chain(str(number), str(number), file=str(module)))
                else:
                    put(module, modules[number // 2 % 2])
                loaded(served, number)
        finally:
            over.set()
        counts = [each.result() for each in loads]
    assert wrong == []
    assert min(counts) > 10
    metrics = served.metrics()
    assert metrics['proxywasm_requests_total{code="200"}'] == sum(counts) + 1
    assert metrics['proxywasm_reloads_total{outcome="refused"}'] == 0
    live = served.live()
    assert live["workers"][0]["generation"] == 101
    assert len(live["workers"][0]["chain"]) == 2


def test_all_processes_reload(serve, tmp_path):
    file = tmp_path / "chain.json"
    put(file, chain("one"))
    served = serve(config=file, workers=2)
    assert served.get().headers["x-wasm"] == "one"
    put(file, chain("two"))
    loaded(served, 2)
    assert {served.get().headers["x-wasm"] for _ in range(10)} == {"two"}
    put(file, chain("", file=AUTH))
    served.wait_for("not loaded, nothing has changed")
    time.sleep(0.3)
    assert served.log.count("not loaded, nothing has changed") == 1
    assert {served.get().headers["x-wasm"] for _ in range(10)} == {"two"}

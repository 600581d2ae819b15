"""``serve(…)``: a server in a process of its own, on ports that the system chooses, before an `Origin`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.serve.origin import Origin, running
from tests.support import FILTERS

AUTH, HEADERS, BODY, PANICS = (str(FILTERS / f"rust/{name}.wasm") for name in ("auth", "headers", "body", "panics"))


class Served:
    """A running ``proxywasm serve``."""

    def __init__(self, directory: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.errors, self.output = directory / "stderr", directory / "stdout"
        command = [sys.executable, "-m", "proxywasm_host.cli", "serve", *arguments]
        with self.errors.open("wb") as errors, self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        self.url, self.admin = "", ""
        try:
            said = self.wait_for(r"serving (https?://\S+?)(?:, t(?:cp|ls)://\S+?)*(?:, admin (\S+))?: ", "it never said where it serves")
        except AssertionError:
            self.process.kill()
            raise
        if said:
            self.url, self.admin = said[1], said[2] or ""

    @property
    def log(self) -> str:
        return self.errors.read_text(errors="replace")

    @property
    def access_log(self) -> list[str]:
        return self.output.read_text().splitlines()

    def wait_for(self, pattern: str, complaint: str = "", seconds: float = 90) -> re.Match[str] | None:
        """Wait until its log has this; ``None`` if it ended before."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.log)):
            if self.process.poll() is not None:
                return re.search(pattern, self.log)
            assert time.monotonic() < until, f"{complaint or pattern}:\n{self.log}"
            time.sleep(0.02)
        return found

    def get(self, path: str = "/", **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30, **options)

    def metrics(self) -> dict[str, float]:
        """Samples of ``/metrics`` as text → value."""
        page = httpx2.get(f"{self.admin}/metrics", timeout=30).text
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line[:1] != "#"
        }

    def live(self, cursor: str = "") -> Any:
        return json.loads(httpx2.get(f"{self.admin}/live.json?since={cursor}", timeout=30).text)

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Ask it to end, and give its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as origin:
        yield origin


@pytest.fixture
def serve(tmp_path: Path, origin: Origin) -> Iterator[Callable[..., Served]]:
    """Start a server: options of the command line as keywords, and ``settings`` for its configuration file."""
    started: list[Served] = []

    def start(*filters: str, settings: dict[str, Any] | None = None, **options: Any) -> Served:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        arguments = [str(filter) for filter in filters]
        if settings is not None:
            file = directory / "serve.yaml"
            file.write_text(json.dumps(settings))
            options["config"] = file
        given = {
            "upstream": origin.url,
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            **options,
        }
        for name, value in given.items():
            flag = "--" + name.replace("_", "-")
            arguments += [flag] if value is True else [] if value is None else [flag, str(value)]
        served = Served(directory, arguments, dict(os.environ))
        started.append(served)
        return served

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.terminate()
            try:
                served.process.wait(10)
            except subprocess.TimeoutExpired:
                served.process.kill()
                served.process.wait()


@pytest.fixture
def on_engine(serve: Callable[..., Served], engine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Served]:
    """`serve` on each engine."""
    monkeypatch.setenv("PROXYWASM_ENGINE", engine.name)
    return serve

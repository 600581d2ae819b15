"""The pages that start from nothing, followed word by word in a scratch folder: files are saved, commands are run.

What is said behind a command, up to a comma, is in what it prints. What is installed is there already, and ports are other ones.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.envoy.rig import find_envoy
from tests.integrations.test_pyvoy import PYVOY

ROOT = Path(__file__).parents[2]
PORT = re.compile(r"\b(80[08]\d|900\d|1000\d)\b")
SAVED = re.compile(r"(?:append|save|Or)[^\n`]*`(\w[\w./]*\.py)`[^\n]*:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL | re.IGNORECASE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60


def section(page: str, title: str) -> str:
    """What a page says under a title, up to the next of the same rank."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """As a checkout, with the programs that the pages run."""
    (folder / "tests").symlink_to(ROOT / "tests")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "bin").mkdir()
    (folder / "bin/envoy").symlink_to(find_envoy())
    yield folder


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """Files (``save``, ``append``: name, content) and commands (``run``: command, what is in its output), in order."""
    found = [(each.start(), each) for pattern in (SAVED, CONSOLE) for each in pattern.finditer(text)]
    for _, each in sorted(found, key=lambda one: one[0]):
        if each.re is SAVED:
            yield ("append" if "ppend" in each[0].partition("`")[0] else "save"), each[1], each[2]
            continue
        for line in each[1].splitlines():
            command, _, comment = line.removeprefix("$ ").partition("  # ")
            yield "run", command.strip(), re.split("[,;]", comment)[0].strip()


def printed(command: str, expected: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a command until its output has this: what it asks may not have started yet."""
    until = time.monotonic() + SECONDS
    while True:
        ran = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        if ran.returncode == 0 and expected.lower() in ran.stdout.lower():
            return
        assert time.monotonic() < until, f"{command}\n{ran.stdout}{ran.stderr}\n" + "".join(
            each.read_text() for each in folder.glob("*.log")
        )
        time.sleep(0.2)


PAGES = [
    ("integrations.md", "FastAPI and Flask"),
    ("integrations.md", "Django"),
    ("integrations.md", "Any application of WSGI"),
    ("integrations.md", "Inside of a stock Envoy: pyvoy"),
    ("aiohttp.md", "Quick start"),
    ("ext-proc.md", "Quick start"),
    ("ext-proc.md", "Quick start for a filter that decides"),
]


@pytest.mark.parametrize(("page", "title"), PAGES, ids=[f"{page} {title}" for page, title in PAGES])
def test_the_page_leads_to_a_filter_at_work(page, title, tmp_path):
    text = section(page, title)
    ports: dict[str, str] = {}
    for port in sorted({*PORT.findall(text), "9002", "9003", "8000", "10000", "10001"}):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[port] = str(free.getsockname()[1])

    def moved(written: str) -> str:
        return PORT.sub(lambda found: ports.get(found[0], found[0]), written)

    running: list[subprocess.Popen[bytes]] = []
    checked = 0
    with scratch(tmp_path) as folder:
        for example in (folder / "examples").glob("*.yaml"):
            example.write_text(moved(example.read_text()))
        paths = [str(folder / "bin"), str(Path(sys.executable).parent), str(PYVOY.parent), os.environ["PATH"]]
        environment = os.environ | {"PATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        if "pyvoy" in title:
            environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'engines/wasmtime'}"
        try:
            for kind, what, rest in steps(text):
                if kind != "run":
                    with (folder / what).open("a" if kind == "append" else "w") as file:
                        file.write(moved(rest))
                elif what.startswith("pip install "):
                    continue
                elif what.endswith(" &"):
                    with (folder / f"{len(running)}.log").open("wb") as log:
                        command = "exec " + moved(what).removesuffix(" &")
                        running.append(
                            subprocess.Popen(command, shell=True, cwd=folder, env=environment, stdout=log, stderr=log)
                        )
                else:
                    printed(moved(what).replace("curl ", "curl -s "), rest, folder, environment)
                    checked += what.startswith("curl ")
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(SECONDS)
    assert checked

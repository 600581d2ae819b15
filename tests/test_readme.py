"""README's example prints what README says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio

from tests.integrations.asgi import get

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) > number, f"README has no {language} block {number}"
    return found[number]


def test_the_example_prints_what_is_under_it():
    ran = subprocess.run([sys.executable, "-c", block("python")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == block("text")


def test_the_unit_test_passes(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(block("python", 2), names)
    names["test_auth"]()


def test_the_application_runs_behind_the_filter(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(block("python", 1), names)
    assert anyio.run(get, names["app"]).body == b"Hello, world.\n"


def test_the_example_has_about_twenty_lines():
    assert len(block("python").split("\n")) <= 25


def test_the_files_that_are_linked_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

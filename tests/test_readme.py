"""README's example prints what README says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"README has no {language} block"
    return found[1]


def test_the_example_prints_what_is_under_it():
    ran = subprocess.run([sys.executable, "-c", block("python")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == block("text")


def test_the_example_has_about_twenty_lines():
    assert len(block("python").split("\n")) <= 25


def test_the_files_that_are_linked_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

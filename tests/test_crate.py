"""Wheels that are built with cargo, `engines/crate.py`: checkouts share a folder to build in, and never at a time."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "engines"))

import crate  # noqa: E402 - it is no part of a package


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Stands in for pip and cargo: a wheel holds the source as it is when the build begins and when it ends."""
    builds, installed, going_on = [], {}, Event()

    def run(*command, env=None):
        del env
        if "wheel" in command:
            fresh, source = Path(command[command.index("--wheel-dir") + 1]), Path(command[-1]) / "lib.rs"
            before = source.read_text()
            builds.append(before)
            going_on.wait(0.2)  # time for the other checkout to come between
            fresh.mkdir()
            (fresh / "x.whl").write_text(before + source.read_text())
        else:
            installed[command[0]] = Path(command[-1]).read_text()

    monkeypatch.setattr(crate, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(crate, "run", run)
    monkeypatch.setattr(crate.shutil, "which", lambda _name: "/usr/bin/cargo")
    return builds, installed


def build(tmp_path, texts):
    """Builds a checkout for each text at the same time; its interpreter is called by its number."""
    start = Barrier(len(texts))

    def one(number, text):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "lib.rs").write_text(text)
        start.wait()
        crate.Crate(here, "x", ("lib.rs",), 1).install(str(number))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(texts)), texts))


def test_two_checkouts_each_get_a_wheel_of_their_own_source(tmp_path, pip):
    builds, installed = pip
    build(tmp_path, ["one", "two"])
    assert sorted(builds) == ["one", "two"]
    assert installed == {"0": "oneone", "1": "twotwo"}


def test_what_is_equal_is_built_once(tmp_path, pip):
    builds, installed = pip
    build(tmp_path, ["same", "same"])
    assert (builds, installed) == (["same"], {"0": "samesame", "1": "samesame"})

"""What is told to be typed works where it is told: from a checkout, or from an index."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxywasm_host import remedy

HERE = Path(sys.executable).parent


class Place:
    """A machine on which we are installed somehow."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = path / "a checkout", monkeypatch
        self.site = path / "site-packages"
        self.site.mkdir()
        monkeypatch.setattr(sys, "path", [str(self.site)])
        monkeypatch.setattr(remedy, "__file__", str(self.site / "proxywasm_host/remedy.py"))
        monkeypatch.setenv("PATH", str(HERE))
        monkeypatch.chdir(path)

    def checkout(self) -> None:
        """With an engine that pip can build, and one that has a program for that."""
        (self.root / "engines/v8").mkdir(parents=True)
        (self.root / "engines/wasmer").mkdir()
        (self.root / "dataplane").mkdir()
        (self.root / "pyproject.toml").write_text('[project]\nname = "proxywasm-host"\n')
        for path in (
            "engines/v8/pyproject.toml",
            "engines/wasmer/pyproject.toml",
            "engines/wasmer/build",
            "dataplane/build",
        ):
            (self.root / path).touch()

    def installed(self, origin: object) -> None:
        folder = self.site / "proxywasm_host-0.1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: proxywasm-host\nVersion: 0.1.0\n")
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin))

    def installed_from_the_checkout(self, *, editable: bool) -> None:
        self.installed({"url": self.root.as_uri(), "dir_info": {"editable": True} if editable else {}})

    def told(self) -> list[str]:
        return [
            remedy.install_extra("serve"),
            remedy.install_engine("proxywasm-engine-v8"),
            remedy.install_engine("proxywasm-engine-wasmer"),
            remedy.install_engine("proxywasm-engine-v8", "mini-racer==0.14.1", upgrade=True),
            remedy.install_engine("theirs", upgrade=True),
            remedy.install_data_plane(),
        ]


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


FROM_AN_INDEX = [
    "pip install 'proxywasm-host[serve]'",
    "pip install proxywasm-engine-v8",
    "pip install proxywasm-engine-wasmer",
    "pip install --upgrade proxywasm-engine-v8 mini-racer==0.14.1",
    "pip install --upgrade theirs",
    "pip install proxywasm-dataplane",
]


@pytest.mark.parametrize("origin", [None, {}, [], {"url": "https://example.com/proxywasm_host-0.1.0.whl"}])
def test_from_an_index(place, origin):
    place.installed(origin)
    assert place.told() == FROM_AN_INDEX


def test_not_installed_at_all(place):
    assert place.told() == FROM_AN_INDEX


def test_in_the_root_of_the_checkout(place, monkeypatch):
    place.checkout()
    place.installed_from_the_checkout(editable=True)
    monkeypatch.chdir(place.root)
    assert place.told() == [
        "pip install --editable '.[serve]'",
        "pip install --editable ./engines/v8",
        f"./engines/wasmer/build {sys.executable}",
        "pip install --upgrade --editable ./engines/v8 mini-racer==0.14.1",
        "pip install --upgrade theirs",
        f"./dataplane/build {sys.executable}",
    ]


def test_elsewhere(place):
    place.checkout()
    place.installed_from_the_checkout(editable=False)
    assert place.told() == [
        f"pip install '{place.root}[serve]'",
        f"pip install '{place.root}/engines/v8'",
        f"'{place.root}/engines/wasmer/build' {sys.executable}",
        f"pip install --upgrade '{place.root}/engines/v8' mini-racer==0.14.1",
        "pip install --upgrade theirs",
        f"'{place.root}/dataplane/build' {sys.executable}",
    ]


def test_a_checkout_that_is_run_as_it_is(place, monkeypatch):
    place.checkout()
    monkeypatch.setattr(remedy, "__file__", str(place.root / "proxywasm_host/remedy.py"))
    assert place.told()[0] == f"pip install '{place.root}[serve]'"


def test_a_checkout_that_is_gone(place):
    place.installed_from_the_checkout(editable=False)
    assert place.told() == FROM_AN_INDEX


def test_another_project_s_file_beside_us_is_no_checkout(place, monkeypatch):
    place.checkout()
    (place.root / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    monkeypatch.setattr(remedy, "__file__", str(place.root / "proxywasm_host/remedy.py"))
    assert place.told() == FROM_AN_INDEX


def test_a_directory_that_is_gone(place, monkeypatch):
    place.checkout()
    place.installed_from_the_checkout(editable=False)
    (place.root / "here").mkdir()
    monkeypatch.chdir(place.root / "here")
    (place.root / "here").rmdir()
    assert place.told()[0] == f"pip install '{place.root}[serve]'"


def test_a_pip_of_another_python_is_not_taken(place, monkeypatch, tmp_path):
    (tmp_path / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "pip").chmod(0o755)
    for path in (tmp_path, tmp_path / "empty"):
        monkeypatch.setenv("PATH", str(path))
        assert remedy.install_extra("cli") == f"{sys.executable} -m pip install 'proxywasm-host[cli]'"


MODULES = [
    ("proxywasm_host.integrations.asgi", "anyio", "asgi"),
    ("proxywasm_host.integrations.aiohttp", "aiohttp", "aiohttp"),
    ("proxywasm_host.integrations.httpx", "httpx", "httpx"),
    ("proxywasm_host.integrations.requests", "requests", "requests"),
    ("proxywasm_host.driver.asynchronous", "anyio", "http"),
    ("proxywasm_host.driver.worker", "anyio", "http"),
    ("proxywasm_host.driver.http", "httpx2", "http"),
    ("proxywasm_host.kong.lua.LuaPlugins", "lupa", "lua"),
    ("proxywasm_host.kong.lua.LuaPlugins", "pcre2", "lua"),
    ("proxywasm_host.testing.EngineComplianceSuite", "pytest", "testing"),
]


@pytest.mark.parametrize(("module", "missing", "extra"), MODULES)
def test_what_an_extra_brings_is_told_where_it_is_missing(module, missing, extra):
    """In a process of its own: as if the package were not installed."""
    package, _, name = module.rpartition(".")
    program = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from {package} import {name}
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    told = f"ModuleNotFoundError: {missing} is not installed: {remedy.install_extra(extra)}"
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, told)


def test_a_mistake_of_ours_is_not_taken_for_a_missing_package():
    error = ModuleNotFoundError("No module named 'proxywasm_host.typo'", name="proxywasm_host.typo")
    assert remedy.missing("http", error) is error

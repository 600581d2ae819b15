"""Fixtures: a registry, what fetches from it into a directory of the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from proxywasm_host.fetch.fetcher import ModuleFetcher
from tests.fetch.registry import running


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory):
    with running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def registry(shared_registry, request):
    """A registry for all tests; each names its repository by itself."""
    return shared_registry


@pytest.fixture
def mortal(tmp_path):
    """A registry of the test's own."""
    with running(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def repository(request) -> str:
    """A name for a repository that no other test has."""
    return (
        "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
        .strip("-")
        .replace("--", "-")[:60]
        .strip("-")
    )


@pytest.fixture
def fetcher(tmp_path):
    """``fetcher(**options)``: each with the same directory, and without the user's credentials."""

    def make(**options):
        given = {"directory": tmp_path / "cache", "docker_config": tmp_path / "no-config.json", **options}
        return ModuleFetcher(given.pop("directory"), **given)

    return make


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    directory.mkdir()
    files = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-addext", "keyUsage=digitalSignature,keyCertSign", "-keyout", files[1], "-out", files[0]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files

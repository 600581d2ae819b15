"""Debian's ``docker-registry`` on loopback, and a client that pushes images to it, by the distribution specification."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import time
from hashlib import sha256
from pathlib import Path

import httpx2

WASM = "application/vnd.module.wasm.content.layer.v1+wasm"
CONFIG = "application/vnd.module.wasm.config.v1+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def layer(files: dict[str, bytes]) -> bytes:
    """A layer of an image: a tar archive, zipped."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


class Registry:
    """A registry with files of its own. `tls` is its certificate and key, `users` a file of htpasswd's."""

    def __init__(self, directory: Path, *, tls: tuple[Path, Path] | None = None, users: Path | None = None) -> None:
        self.directory = directory
        self.auth: tuple[str, str] | None = None
        http = {"addr": "127.0.0.1:0"}
        if tls is not None:
            http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        self.settings = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
            "http": http,
            **({"auth": {"htpasswd": {"realm": "filters", "path": str(users)}}} if users else {}),
        }
        self.scheme = "https" if tls else "http"
        self.port = 0
        self.start()

    def start(self) -> None:
        """The first time on a port that the system chooses, later on the same."""
        self.settings["http"]["addr"] = f"127.0.0.1:{self.port}"
        config = self.directory / "config.yml"
        config.write_text(json.dumps(self.settings))
        log = self.directory / "log"
        with log.open("wb") as output:
            environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(config)], stderr=output, stdout=output, env=environment
            )
        until = time.monotonic() + 20
        while not (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())):
            assert time.monotonic() < until and self.process.poll() is None, log.read_text()
            time.sleep(0.02)
        self.port = int(found[1])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def requests(self) -> list[str]:
        """Method and path of what was asked for, from its log."""
        return [
            f"{method} {path}"
            for method, path in re.findall(
                r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP', (self.directory / "log").read_text()
            )
        ]

    def client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=f"{self.scheme}://127.0.0.1:{self.port}", auth=self.auth, verify=False, trust_env=False
        )

    def blob(self, name: str, content: bytes) -> dict[str, object]:
        """Push a blob, and give what a manifest says of it."""
        with self.client() as client:
            begun = client.post(f"/v2/{name}/blobs/uploads/")
            assert begun.status_code == 202, begun.text
            put = client.put(
                httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": digest(content)}), content=content
            )
            assert put.status_code == 201, put.text
        return {"digest": digest(content), "size": len(content)}

    def manifest(self, name: str, tag: str, manifest: dict[str, object]) -> str:
        """Push a manifest, and give its digest."""
        content = json.dumps(manifest).encode()
        with self.client() as client:
            kind = str(manifest["mediaType"])
            put = client.put(f"/v2/{name}/manifests/{tag}", content=content, headers={"content-type": kind})
            assert put.status_code == 201, put.text
        return digest(content)

    def push(self, name: str, tag: str, *layers: tuple[str, bytes], kind: str = OCI, config: str = CONFIG) -> str:
        """Push an image of layers of these media types, and give its digest."""
        return self.manifest(
            name,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": kind,
                "config": {"mediaType": config, **self.blob(name, b"{}")},
                "layers": [{"mediaType": media, **self.blob(name, content)} for media, content in layers],
            },
        )

    def push_wasm(self, name: str, tag: str, module: bytes) -> str:
        """Push a module as Istio's documents say."""
        return self.push(name, tag, (WASM, module))


@contextlib.contextmanager
def running(directory: Path, **options):
    directory.mkdir(exist_ok=True)
    registry = Registry(directory, **options)
    try:
        yield registry
    finally:
        registry.stop()

"""Finds the module in an image, without I/O except on the store.

Source: the OCI image specification; "Wasm Image Specification" of Istio and Solo (``spec.md``: the media types;
``spec-compat.md``: an image of one layer that holds ``plugin.wasm``), which Envoy Gateway and Higress follow; the
artifact type ``application/wasm`` of the CNCF.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import Any

from proxywasm_host.errors import FetchError
from proxywasm_host.fetch.reference import check_sha256
from proxywasm_host.fetch.store import Store

__all__ = ["INDEXES", "MANIFESTS", "MAX_MANIFEST", "Absent", "module_of"]

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
WASM = (
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/wasm",
)
TAR = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
GZIP = (
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
IN_TAR = "plugin.wasm"
BESIDE = 1 << 20
"""Bytes that a layer may have in addition to its module, for the headers of its archive."""
GIB = 1 << 30
MAX_MANIFEST = 4 << 20
"""Maximum bytes of a manifest, as registries limit it."""


class Absent(Exception):
    """A part of an image is not in the store. Has its digest, its path at the registry and its maximum bytes."""

    def __init__(self, digest: str, path: str, most: int) -> None:
        super().__init__(digest)
        self.digest, self.path, self.most = digest, f"{path}/{digest}", most


def module_of(store: Store, digest: str, most: int | None) -> bytes:
    """The module of the image with this manifest or index. Raises: Absent; FetchError, if the image has no module."""
    most = GIB if most is None else most
    manifest = _manifest(store, digest)
    if "manifests" in manifest:
        manifest = _manifest(store, _of_platform(manifest["manifests"]))
    kind, layer, size = _layer(manifest)
    limit = most + (0 if kind in WASM else BESIDE)
    if size > limit:
        raise FetchError(f"the image's layer has {size} bytes; the limit is {limit}")
    content = _blob(store, layer, "blobs", limit)
    return content if kind in WASM else _from_tar(content, kind in GZIP, most)


def _blob(store: Store, digest: str, path: str, most: int) -> bytes:
    content = store.blob(digest)
    if content is None:
        raise Absent(digest, path, most)
    return content


def _manifest(store: Store, digest: str) -> dict[str, Any]:
    try:
        manifest = json.loads(_blob(store, digest, "manifests", MAX_MANIFEST))
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise FetchError(f"the manifest {digest} is not a JSON object")
    return manifest


def _digest(of: dict[str, Any]) -> str:
    try:
        return check_sha256(of.get("digest") or None)
    except ValueError as error:
        raise FetchError(f"the manifest names a part by something else than SHA-256: {error}") from None


def _of_platform(manifests: Any) -> str:
    """The digest of an index's only manifest, or of that for WebAssembly, or for linux/amd64 (as from Istio)."""
    found: dict[str, str] = {}
    for entry in manifests if isinstance(manifests, list) else []:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        said = platform if isinstance(platform, dict) else {}
        kind = "wasm" if said.get("architecture") == "wasm" else f"{said.get('os')}/{said.get('architecture')}"
        if isinstance(entry, dict):
            found.setdefault(kind, _digest(entry))
    if len(found) == 1:
        return next(iter(found.values()))
    chosen = found.get("wasm") or found.get("linux/amd64")
    if chosen is None:
        raise FetchError(f"the image is for {', '.join(sorted(found)) or 'nothing'}, and not for wasm")
    return chosen


def _layer(manifest: dict[str, Any]) -> tuple[str, str, int]:
    """Media type, digest and size of the layer with the module. The image may also have documents."""
    given = manifest.get("layers")
    layers = [layer for layer in given if isinstance(layer, dict)] if isinstance(given, list) else []
    for kinds in (WASM, (*TAR, *GZIP)):
        fitting = [layer for layer in layers if layer.get("mediaType") in kinds]
        if len(fitting) > 1:
            raise FetchError(f"the image has {len(fitting)} layers that could hold the module; only one is supported")
        if fitting:
            size = fitting[0].get("size")
            return fitting[0]["mediaType"], _digest(fitting[0]), size if isinstance(size, int) else 0
    kinds_there = ", ".join(repr(layer.get("mediaType")) for layer in layers[:5]) or "no layers"
    raise FetchError(
        f"the image holds no module: it has {kinds_there}; "
        f"it needs a layer of the type {WASM[0]}, or a single layer with {IN_TAR}"
    )


def _from_tar(content: bytes, zipped: bool, most: int) -> bytes:
    """The content of ``plugin.wasm`` in a layer. Raises: FetchError."""
    if zipped:
        content = _unzipped(content, most + BESIDE)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isreg() and PurePosixPath(member.name).name == IN_TAR:
                    if member.size > most:
                        raise FetchError(f"{IN_TAR} has {member.size} bytes; the limit is {most}")
                    file = archive.extractfile(member)
                    return file.read() if file else b""
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise FetchError(f"the image's layer is not a tar archive: {error}") from None
    raise FetchError(f"the image's layer has no {IN_TAR}")


def _unzipped(content: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        result = stream.decompress(content, most + 1)
    except zlib.error as error:
        raise FetchError(f"the image's layer is not what gzip makes: {error}") from None
    if len(result) > most:
        raise FetchError(f"the image's layer unpacks to more than {most} bytes")
    if not stream.eof:
        raise FetchError("the image's layer ends early")
    return result

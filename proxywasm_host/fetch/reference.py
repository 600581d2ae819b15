"""References to modules other than paths: URLs of files, HTTP servers and OCI registries.

    file:///etc/filters/auth.wasm
    https://downloads.example/auth.wasm
    oci://registry.example:5000/filters/auth:1.2
    oci://registry.example/filters/auth:1.2@sha256:3b2f…    (the manifest's digest)

The forms are those of Istio's ``WasmPlugin.url``, but always with a scheme, so that no path is mistaken for a host.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from proxywasm_host.errors import FetchError

__all__ = [
    "SHA256",
    "PullPolicy",
    "Reference",
    "check_sha256",
    "checked",
    "digest_of",
    "is_configuration",
    "is_remote",
    "local_path",
    "name_of",
    "reference_of",
]

PullPolicy = Literal["IfNotPresent", "Always"]
"""Istio's ``imagePullPolicy``: whether to look up a reference without a digest although its module is stored."""
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|file:")
REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
HOW = "write it as oci://registry/repository:tag, or oci://registry/repository@sha256:…"


@dataclass(frozen=True)
class Reference:
    """The place from which a module is fetched.

    Args:
        url: the reference as written, without its digest.
        scheme: ``http``, ``https`` or ``oci``.
        host: server or registry, with the port if one was given.
        repository, tag: those of an image. The tag is ``latest`` if neither tag nor digest was given.
        digest: ``sha256:…``, or empty.
    """

    url: str
    scheme: str
    host: str
    repository: str = ""
    tag: str = ""
    digest: str = ""

    @property
    def policy(self) -> PullPolicy:
        """The default policy for the tag, as in Istio."""
        return "Always" if self.tag == "latest" else "IfNotPresent"


@lru_cache(64)
def reference_of(code: str) -> Reference | None:
    """Parse a reference; ``None`` for the path of a file or a ``file:`` URL.

    Raises: ValueError, whose message says what to write.
    """
    found = SCHEME.match(code)
    if found is None or code.startswith("file:"):
        return None
    scheme = found[1].lower()
    if scheme == "oci":
        return _image(code)
    if scheme not in ("http", "https"):
        raise ValueError(f"{code!r} has an unknown scheme: use file:, https://, http:// or oci://")
    from urllib.parse import urlsplit  # noqa: PLC0415 - takes long to import

    try:
        parts = urlsplit(code)
        right = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        right = False
    if not right or re.search(r"[\s\x00-\x1f\x7f]", code):
        raise ValueError(f"{code!r} is not a URL: write it as https://host/path/filter.wasm")
    if "@" in parts.netloc:
        raise ValueError("the URL of a module must not contain a user and password, which would appear in logs")
    return Reference(code.partition("#")[0], scheme, parts.netloc)


def _image(code: str) -> Reference:
    rest = code[len("oci://") :]
    name, at, digest = rest.partition("@")
    host, _, path = name.partition("/")
    repository, colon, tag = path.rpartition(":")
    if not colon:
        repository, tag = path, ""
    if not REGISTRY.fullmatch(host) or not REPOSITORY.fullmatch(repository):
        raise ValueError(f"{code!r} does not name an image: {HOW}")
    if colon and not TAG.fullmatch(tag):
        raise ValueError(f"{code!r} has an invalid tag: {HOW}")
    pinned = check_sha256(digest) if at else ""
    return Reference(f"oci://{name}", "oci", host, repository, tag or ("" if pinned else "latest"), pinned)


def check_sha256(value: Any) -> str:
    """A digest as ``sha256:…`` in lower case; an empty text stays empty. Raises: ValueError."""
    if value == "":
        return ""
    found = SHA256.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a SHA-256 digest: write its 64 hexadecimal digits")
    return f"sha256:{found[1].lower()}"


def digest_of(content: bytes) -> str:
    """The digest of some bytes as ``sha256:…``."""
    from hashlib import sha256  # noqa: PLC0415 - only for fetching

    return f"sha256:{sha256(content).hexdigest()}"


def checked(content: bytes, wanted: str) -> bytes:
    """Check the digest of a module, if one is given, and return the module. Raises: FetchError."""
    wanted = check_sha256(wanted)
    if wanted and digest_of(content) != wanted:
        raise FetchError(f"the module has {digest_of(content)}, but is pinned to {wanted}")
    return content


def is_remote(code: str | os.PathLike[str]) -> bool:
    """Whether a module must be fetched. Raises: ValueError."""
    return reference_of(os.fspath(code)) is not None


def is_configuration(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a configuration rather than a filter, by its suffix."""
    return os.fspath(path).endswith((".yaml", ".yml", ".json", ".toml", ".conf"))


def local_path(code: str | os.PathLike[str]) -> str:
    """The path of a file, which may be written as a ``file:`` URL. Raises: ValueError."""
    path = os.fspath(code)
    if not path.startswith("file:"):
        return path
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - takes long to import

    parts = urlsplit(path)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(f"{path!r} is not a file of this machine: write it as file:///path/filter.wasm")
    return unquote(parts.path)


def name_of(code: str | os.PathLike[str]) -> str:
    """The default name of a filter: that of its file or image, without directory, suffix and tag."""
    text = os.fspath(code)
    reference = reference_of(text)
    if reference is not None and reference.repository:
        return reference.repository.rpartition("/")[2]
    path = local_path(text) if reference is None else reference.url.partition("?")[0]
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122 - pathlib takes 10 ms

"""Clusters: where callouts go, by the names that filters have for them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

__all__ = ["Cluster", "Clusters"]

MIB = 1 << 20
HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


@dataclass(frozen=True)
class Cluster:
    """An upstream of callouts.

    Args:
        url: scheme, host and port (``https://auth.example:8443``); the path is each callout's own.
        verify: whether the server's certificate is checked, or the file with the authorities to trust.
        certificate: files of our own certificate and its key, for mutual TLS.
        connect_timeout: seconds that connecting may take (Envoy's default).
        timeout: seconds that a callout may take whose filter gave no time-out; ``None`` is for ever, as in Envoy.
        max_connections: how many at a time; what is more waits as long as connecting may take, and then gets 503.
        max_response: bytes of a reply's body; more is a reset.
        http2: offer HTTP/2 (needs httpx2's extra of that name).

    Raises: ValueError, for a URL that is none, or has a path.
    """

    url: str
    verify: bool | str = True
    certificate: tuple[str, str] | None = None
    connect_timeout: float = 5.0
    timeout: float | None = None
    max_connections: int = 1024
    max_response: int = 16 * MIB
    http2: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"a cluster's URL is http(s)://host[:port] without a path, not {self.url!r}")

    @cached_property
    def tls(self) -> ssl.SSLContext | bool:
        """How to do TLS. Raises: OSError, for files that are not there, or hold no certificate."""
        if not self.url.startswith("https:"):
            return False
        authorities = self.verify if isinstance(self.verify, str) else None
        context = ssl.create_default_context(cafile=authorities)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            context.load_cert_chain(*self.certificate)
        return context


class Clusters(Mapping[str, Cluster]):
    """Clusters by name, for `Services(clusters=…)`: ``Clusters({"idp": "https://idp.example"})``.

    With `any_host`, a name like ``host:port`` that is not among them is taken as it is, for plain HTTP: filters then
    reach whatever this machine reaches.
    """

    def __init__(self, clusters: Mapping[str, Cluster | str] | None = None, *, any_host: bool = False) -> None:
        named = clusters or {}
        self._named = {name: Cluster(c) if isinstance(c, str) else c for name, c in named.items()}
        self.any_host = any_host

    def __getitem__(self, name: str) -> Cluster:
        found = self._named.get(name)
        if found is not None:
            return found
        if self.any_host and HOST_AND_PORT.fullmatch(name):
            return Cluster(f"http://{name}")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

"""Clusters: the targets of callouts, by the names that filters use."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.forks import cached_property
from proxywasm_host.remedy import install_extra
from proxywasm_host.services import MAX_CALLOUTS

__all__ = ["Cluster", "Clusters"]

ANY_HOST, SECURE_ANY_HOST = "http://any.host", "https://any.host"
"""URLs of the clusters that represent all addresses."""
MIB = 1 << 20
TOLD = 100
"""Maximum number of unknown names that are logged, because filters may invent names."""
logger = logging.getLogger("proxywasm_host.driver")
ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?")
PORTS = range(1, 1 << 16)


@dataclass(frozen=True)
class Cluster:
    """A service that filters call.

    Args:
        url: scheme, host and port (``https://auth.example:8443``); each callout has its own path. For Redis
            ``redis://[user:password@]host[:port][/database]`` (``rediss`` with TLS); a filter may override user,
            password and database.
        verify: whether the server's certificate is checked, or a file with the authorities to trust.
        certificate: files with our own certificate and its key, for mutual TLS.
        connect_timeout: seconds for connecting (Envoy's default).
        timeout: seconds for a callout for which the filter sets no timeout; ``None`` for no limit, as in Envoy.
        max_connections: maximum number of connections; further callouts wait up to `connect_timeout`, and then get 503.
        max_callouts: maximum number of concurrent callouts from one plugin; more are refused with INTERNAL_FAILURE.
        max_response: maximum bytes of a reply's body; more is a reset. For gRPC, of a message; more is status 8.
        http2: offer HTTP/2 over TLS (extra ``http2``). gRPC always uses it.
        authority: ``:authority`` of gRPC calls, and the name that a certificate must have, for HTTP too; ``None`` for
            the URL's.
        keep_alive: seconds of silence after which a gRPC connection with calls is pinged; without an answer within the
            same time, its calls end with status 14. ``None`` for never. After two pings without a message between
            them, grpcio pings only once a minute, because servers close connections that ping more often.
        redis_cluster: whether Redis runs in cluster mode. The URL names one of its nodes.

    Raises: ValueError, for an invalid URL, or one with a path; TypeError or ValueError, for an invalid number.
    """

    url: str
    verify: bool | str = True
    certificate: tuple[str, str] | None = None
    connect_timeout: float = 5.0
    timeout: float | None = None
    max_connections: int = 1024
    max_callouts: int = MAX_CALLOUTS
    max_response: int = 16 * MIB
    http2: bool = False
    authority: str | None = None
    keep_alive: float | None = None
    redis_cluster: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            raise TypeError(f"a cluster's URL is text, https://idp.example for example, not {self.url!r}")
        for name in ("connect_timeout", "timeout", "max_connections", "max_callouts", "max_response", "keep_alive"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) and not (name in ("timeout", "keep_alive") and value is None):
                raise TypeError(f"{name} of a cluster is a number, not {value!r}")
            if value is not None and not value > 0:
                raise ValueError(f"{name} of a cluster is more than 0, not {value!r}")
        if self.http2 and find_spec("h2") is None:
            raise ValueError(f"http2 of a cluster needs h2, which is not installed: {install_extra('http2')}")
        parts = urlsplit(self.url)
        if parts.scheme in ("redis", "rediss") and parts.hostname:
            if not (parts.path.strip("/") or "0").isdigit() or parts.query:
                raise ValueError(f"a Redis cluster's URL is redis[s]://host[:port][/database], not {self.url!r}")
        elif parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"a cluster's URL is http(s)://host[:port] without a path, not {self.url!r}")

    @cached_property
    def tls(self) -> ssl.SSLContext | bool:
        """The settings of TLS. Raises: OSError, for files that are missing or contain no certificate."""
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

    With `any_host`, any other name like ``host:port`` is itself the target, over TLS if the call's ``:scheme`` is
    ``https``. Filters can then call all hosts that this machine can reach. A `Cluster` as `any_host` has the options of
    such calls, and lets filters leave the port out, as in nginx. An unknown name that a filter calls is logged once.

    Raises: TypeError, for a value that is not a cluster; ValueError, for an invalid URL.
    """

    def __init__(
        self, clusters: Mapping[str, Cluster | str] | None = None, *, any_host: bool | Cluster = False
    ) -> None:
        self._named: dict[str, Cluster] = {}
        given: Mapping[Any, Any] = {} if clusters is None else clusters
        if not isinstance(given, Mapping):
            raise TypeError(f"clusters are a mapping of names to URLs: {{'idp': 'https://idp.example'}}, not {given!r}")
        for name, cluster in given.items():
            if not isinstance(name, str) or not isinstance(cluster, (str, Cluster)):
                raise TypeError(f"clusters are URLs or Clusters by name, not {name!r}: {cluster!r}")
            self._named[name] = Cluster(cluster) if isinstance(cluster, str) else cluster
        self.any_host = any_host
        options = any_host if isinstance(any_host, Cluster) else Cluster(ANY_HOST)
        secure = replace(options, url=SECURE_ANY_HOST, http2=False)
        self._anywhere = {False: replace(options, url=ANY_HOST), True: secure}
        self._unknown: set[str] = set()

    def __repr__(self) -> str:
        return f"Clusters({self._named!r}{f', any_host={self.any_host!r}' if self.any_host else ''})"

    @property
    def reachable(self) -> bool:
        """Whether any cluster exists."""
        return bool(self.any_host or self._named)

    def __getitem__(self, name: str) -> Cluster:
        return self.called(name)

    def called(self, name: str, authority: str | None = None) -> Cluster:
        """The cluster for a call. With an `authority`, a call to an address uses TLS. Raises: KeyError."""
        found = self._named.get(name)
        if found is not None:
            return found
        address = ADDRESS.fullmatch(name) if self.any_host else None
        if address is None or not (address["port"] or isinstance(self.any_host, Cluster)):
            raise KeyError(name)
        if address["port"] and int(address["port"][1:]) not in PORTS:
            raise KeyError(name)
        url = f"{'http' if authority is None else 'https'}://{name}"
        return replace(self._anywhere[authority is not None], url=url, authority=authority)

    def client_of(self, name: str, cluster: Cluster) -> Cluster:
        """The cluster whose client makes a call. All addresses share one, so that a guest cannot create many."""
        return cluster if name in self._named else self._anywhere[cluster.url.startswith("https:")]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if self.get(name) is not None:
            return True
        if name.isprintable() and name not in self._unknown and len(self._unknown) < TOLD:
            self._unknown.add(name)
            known = ", ".join(map(repr, self._named)) or "none"
            logger.warning("a filter calls the unknown cluster %r; the clusters are %s", name, known)
        return False

    def get(self, name: str, default: Any = None) -> Any:
        """The cluster with this name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

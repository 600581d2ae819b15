"""The servers behind the filters, how requests are sent to them, and options of TLS towards a server.

Names and defaults are those of Envoy's clusters and retry policies where Envoy has such an option.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from proxywasm_host.serve.model import File, Model, Seconds, Size

__all__ = ["TCP", "OutlierDetection", "Retry", "Server", "Tls", "Upstream", "UpstreamTls", "web"]

TCP = {"tcp": "http", "tls": "https"}
"""Schemes of servers for other protocols than HTTP, and the schemes that connect in the same way."""


def web(value: str) -> str:
    """The URL of a server. Raises: ValueError."""
    if not re.fullmatch("[!-~]+", value):
        raise ValueError(f"{value!r} is not a URL: percent-encode what is in its path, and write the name as xn--…")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not a URL of a server: write it as http://HOST:PORT or https://HOST")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{value!r} is more than a server: leave out user, query and fragment")
    _ = parts.port  # raises ValueError
    return value


def reachable(value: str) -> str:
    """The URL of a server, of HTTP or of another protocol on TCP. Raises: ValueError."""
    scheme, _, place = value.partition("://")
    if scheme not in TCP:
        return web(value)
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}", place, re.ASCII) or urlsplit(value).port is None:
        raise ValueError(f"{value!r} is not a server: write it as {scheme}://HOST:PORT")
    return value


class Tls(Model):
    """TLS towards a server."""

    verify: bool = True
    """Whether its certificate is checked."""
    ca: File | None = None
    """PEM file of authorities to trust instead of the system's."""
    certificate: File | None = None
    """PEM file of our certificate, for servers that require one."""
    key: File | None = None
    """PEM file of its key, if it is not in the same file."""


class UpstreamTls(Tls):
    """TLS towards upstream."""

    server_name: str | None = None
    """Name for SNI and for the check of the certificate, instead of the URL's host."""


class Server(Model):
    """One of an upstream's servers."""

    short = "url"

    url: str
    """``http://HOST:PORT`` or ``https://HOST``; its path is put before that of each request. For `tcp` listeners
    ``tcp://HOST:PORT``, or ``tls://HOST:PORT``.
    """
    weight: Annotated[int, Field(gt=0, le=1000)] = 1
    """Its share of the requests, relative to other servers."""

    _url = field_validator("url")(reachable)


class OutlierDetection(Model):
    """When a failing server gets no requests for a while."""

    consecutive_5xx: Annotated[int, Field(gt=0)] = 5
    """Number of consecutive failures (a status from 500 on, or no response) that eject a server."""
    base_ejection_time: Seconds = 30.0
    """Seconds of an ejection, multiplied by the number of ejections in a row."""
    max_ejection_time: Seconds = 300.0
    """Most seconds of an ejection."""
    max_ejection_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Most of an upstream's servers that may be ejected, at least one. If all are ejected, all get requests."""


class Retry(Model):
    """When a request is sent again, to another server if there are several."""

    retry_on: Annotated[
        list[
            Literal[
                "5xx",
                "gateway-error",
                "reset",
                "connect-failure",
                "refused-stream",
                "retriable-status-codes",
                "cancelled",
                "deadline-exceeded",
                "internal",
                "resource-exhausted",
                "unavailable",
            ]
        ],
        Field(min_length=1),
    ]
    """Events that lead to a retry, with Envoy's names; the last five are gRPC statuses."""
    num_retries: Annotated[int, Field(ge=0, le=100)] = 1
    """Most retries of a request."""
    per_try_timeout: Seconds | None = None
    """Seconds within which the response to each attempt must begin; else the attempt counts as reset."""
    retriable_status_codes: list[Annotated[int, Field(ge=200, le=599)]] = []
    """Statuses, for ``retriable-status-codes``."""
    base_interval: Seconds = 0.025
    """Most seconds of the first wait; each further wait may be twice as long."""
    max_interval: Seconds = 0.25
    """Most seconds of any wait."""
    max_body: Annotated[Size, Field(ge=0)] = 1 << 20
    """Bytes of a request's body that are kept for a retry; a larger request is sent once."""


class Upstream(Model):
    """The server behind the filters, or several equivalent ones."""

    short = "url"

    url: str | None = None
    """Its only server, as in `servers`."""
    servers: list[Server] = []
    """Its servers, if there are several."""
    balance: Literal["round_robin", "least_requests"] = "round_robin"
    """Which server gets a request: each in turn, or the one with the fewest requests, both by weight."""
    protocol: Literal["http1", "http2", "auto"] = "http1"
    """``http2``: always, with and without TLS. ``auto``: as chosen in TLS (ALPN), and HTTP/1.1 without TLS."""
    outlier_detection: OutlierDetection | None = None
    """Leave out servers that fail; off if not given."""
    retry: Retry | None = None
    """Send failed requests again; off if not given."""
    connect_timeout: Seconds = 5.0
    """Seconds within which a server must accept a connection; else 503."""
    max_headers: Annotated[int, Field(gt=0)] = 100
    """Most headers, and most trailers, of a response; with more, 502."""
    max_header_size: Size = 60 << 10
    """Most bytes of a response's head; with more, 502."""
    timeout: Seconds = 15.0
    """Seconds from the end of the request within which its response must begin; else 504."""
    total_timeout: Seconds | None = None
    """Seconds from the request's head to the end of the response; after that, 504, or the response breaks off."""
    idle_timeout: Seconds = 300.0
    """Seconds that a body may make no progress; after that, the stream breaks off."""
    max_connections: Annotated[int, Field(gt=0)] = 1024
    """Most requests over HTTP/1.1, each with a connection, of one process or each of its `threads`; others wait up to
    `connect_timeout`."""
    max_requests: Annotated[int, Field(gt=0)] = 1024
    """The same for any protocol: requests over HTTP/2 share connections."""
    max_pending_requests: Annotated[int, Field(ge=0)] = 1024
    """Most waiting requests; further ones are answered 503 at once."""
    keepalive: Seconds = 4.0
    """Seconds for which an idle connection is kept; choose fewer than the server's."""
    rewrite_host: bool = False
    """Send the URL's host as Host, and the client's Host as X-Forwarded-Host."""
    tls: UpstreamTls = UpstreamTls()

    @field_validator("url")
    @classmethod
    def _web(cls, value: str | None) -> str | None:
        return value and reachable(value)

    @model_validator(mode="after")
    def _has_servers(self) -> Upstream:
        if (self.url is None) is not bool(self.servers):
            raise ValueError("give either url or servers")
        return self

    @property
    def all_servers(self) -> list[Server]:
        """The servers, in either form."""
        return self.servers or [Server(url=self.url or "")]

    @property
    def is_tcp(self) -> bool:
        """Whether one of the servers has another protocol than HTTP."""
        return any(server.url.partition("://")[0] in TCP for server in self.all_servers)

    @property
    def urls(self) -> str:
        """The URLs of the servers, for messages."""
        return ", ".join(server.url for server in self.all_servers)

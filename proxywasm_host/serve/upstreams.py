"""The servers behind the filters, and how requests are sent to them; and what all of TLS towards a server is told.

Names and defaults are those of Envoy's clusters and retry policies where there is one.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from proxywasm_host.serve.model import File, Model, Seconds, Size

__all__ = ["OutlierDetection", "Retry", "Server", "Tls", "Upstream", "UpstreamTls", "web"]


def web(value: str) -> str:
    """The URL of a server. Raises: ValueError."""
    if not re.fullmatch("[!-~]+", value):
        raise ValueError(f"{value!r} is not a URL: percent-encode what is in its path, and write the name as xn--…")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not a URL of a server: write it as http://HOST:PORT or https://HOST")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{value!r} has more in it than a server: leave out user, query and fragment")
    _ = parts.port  # raises ValueError
    return value


class Tls(Model):
    """TLS towards a server."""

    verify: bool = True
    """Whether its certificate is checked."""
    ca: File | None = None
    """PEM file of the authorities to trust, instead of the system's."""
    certificate: File | None = None
    """PEM file of our own certificate, for servers that ask for one."""
    key: File | None = None
    """PEM file of its key, if that is not in the same file."""


class UpstreamTls(Tls):
    """TLS towards upstream."""

    server_name: str | None = None
    """Name to ask for (SNI) and to check, instead of the URL's."""


class Server(Model):
    """One of an upstream's servers."""

    short = "url"

    url: str
    """``http://HOST:PORT`` or ``https://HOST``; a path is put before that of each request."""
    weight: Annotated[int, Field(gt=0, le=1000)] = 1
    """Its share of the requests, beside those of the others."""

    _url = field_validator("url")(web)


class OutlierDetection(Model):
    """Which servers get no request for a while, because they failed."""

    consecutive_5xx: Annotated[int, Field(gt=0)] = 5
    """So many responses of 500 and above, or requests without a response, one after the other."""
    base_ejection_time: Seconds = 30.0
    """Seconds that it lasts, times how often it has come to that."""
    max_ejection_time: Seconds = 300.0
    """Seconds that it lasts at most."""
    max_ejection_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Of the servers of an upstream; one at least. If all are ejected, all get requests."""


class Retry(Model):
    """When a request is sent once more, to another server if there is one."""

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
    """What must have happened, under Envoy's names; the last five are statuses of gRPC."""
    num_retries: Annotated[int, Field(ge=0, le=100)] = 1
    """How often, after the first time."""
    per_try_timeout: Seconds | None = None
    """Seconds until the response to each must have begun; else it is given up, as by a reset."""
    retriable_status_codes: list[Annotated[int, Field(ge=200, le=599)]] = []
    """Statuses, for ``retriable-status-codes``."""
    base_interval: Seconds = 0.025
    """Seconds of the first wait at most; each may be twice as long as the one before."""
    max_interval: Seconds = 0.25
    """Seconds of every wait at most."""
    max_body: Annotated[Size, Field(ge=0)] = 1 << 20
    """Bytes of a request's body that are kept to be sent again; a request with more is sent once."""


class Upstream(Model):
    """The server behind the filters, or several that do the same."""

    short = "url"

    url: str | None = None
    """Its only server: ``http://HOST:PORT`` or ``https://HOST``; a path is put before that of each request."""
    servers: list[Server] = []
    """Its servers, if there are several."""
    balance: Literal["round_robin", "least_requests"] = "round_robin"
    """Which server gets a request: each in its turn, or the one with the fewest under way; by their weights."""
    protocol: Literal["http1", "http2", "auto"] = "http1"
    """``http2`` needs no asking, with TLS or without; ``auto`` lets TLS choose (ALPN), and is HTTP/1.1 without."""
    outlier_detection: OutlierDetection | None = None
    """Leave out servers that fail; none is left out if this is not given."""
    retry: Retry | None = None
    """Send requests once more; none is if this is not given."""
    connect_timeout: Seconds = 5.0
    """Seconds until it must have taken a connection; else 503."""
    max_headers: Annotated[int, Field(gt=0)] = 100
    """Headers of a response, and trailers; more is 502."""
    max_header_size: Size = 60 << 10
    """Bytes of a response's head; more is 502."""
    timeout: Seconds = 15.0
    """Seconds from the end of the request until its response must have begun; else 504."""
    total_timeout: Seconds | None = None
    """Seconds from the request's head to the end of the response; else 504, or it is broken off."""
    idle_timeout: Seconds = 300.0
    """Seconds that a body may make no progress; then the stream is broken off."""
    max_connections: Annotated[int, Field(gt=0)] = 1024
    """Requests under way in one process over HTTP/1.1, where each has a connection; more wait for `connect_timeout`."""
    max_requests: Annotated[int, Field(gt=0)] = 1024
    """The same, whatever the protocol: requests of HTTP/2 share connections."""
    max_pending_requests: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait; others are answered 503 at once."""
    keepalive: Seconds = 4.0
    """Seconds that an idle connection is kept; less than the server keeps it."""
    rewrite_host: bool = False
    """Send the URL's host as Host, and the client's as X-Forwarded-Host, instead of the client's Host."""
    tls: UpstreamTls = UpstreamTls()

    @field_validator("url")
    @classmethod
    def _web(cls, value: str | None) -> str | None:
        return value and web(value)

    @model_validator(mode="after")
    def _has_servers(self) -> Upstream:
        if (self.url is None) is not bool(self.servers):
            raise ValueError("give either url or servers")
        return self

    @property
    def all_servers(self) -> list[Server]:
        """Its servers, however they were given."""
        return self.servers or [Server(url=self.url or "")]

    @property
    def urls(self) -> str:
        """Its servers, for people."""
        return ", ".join(server.url for server in self.all_servers)

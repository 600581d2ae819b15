"""The settings of ``proxywasm ext-proc`` and ``proxywasm ext-authz``."""

from __future__ import annotations

from proxywasm_host.serve.config import Address, HostSettings
from proxywasm_host.serve.model import Seconds

__all__ = ["ExtAuthzSettings", "ExtProcSettings"]


class ExtProcSettings(HostSettings):
    """The configuration of ``proxywasm ext-proc``."""

    listen: Address = ("127.0.0.1", 9002)
    """``HOST:PORT`` of the gRPC server; port 0 lets the system choose."""
    message_timeout: Seconds | None = None
    """Seconds to ask Envoy for while a filter holds an answer, up to its ``max_message_timeout``; none by default."""


class ExtAuthzSettings(HostSettings):
    """The configuration of ``proxywasm ext-authz``."""

    listen: Address = ("127.0.0.1", 9003)
    """``HOST:PORT`` of the gRPC server; port 0 lets the system choose."""
    http: Address | None = None
    """``HOST:PORT`` of the HTTP server, for ``http_service``; none by default."""

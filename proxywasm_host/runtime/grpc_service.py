"""Which cluster a guest means by the service argument of a gRPC callout.

Filters send either a cluster's name or Envoy's message ``envoy.config.core.v3.GrpcService``, of which two fields count
here: ``envoy_grpc`` (1) and, in it, ``cluster_name`` (1).
"""

from __future__ import annotations

from collections.abc import Container

from proxywasm_host.abi.protobuf import fields

__all__ = ["cluster_of"]


def _first_field(message: bytes) -> bytes | None:
    """Content of field 1 of a protobuf message, if it is length-delimited. Raises: ValueError, IndexError."""
    found = None
    for number, content in fields(message):
        if number == 1 and isinstance(content, bytes):
            found = content
    return found


def cluster_of(service: bytes, clusters: Container[str]) -> str | None:
    """The name of a configured cluster that `service` is, or holds; ``None`` if it is neither."""
    name = service.decode("utf-8", "surrogateescape")
    if name in clusters:
        return name
    try:
        envoy_grpc = _first_field(service)
        inner = _first_field(envoy_grpc) if envoy_grpc else None
    except (ValueError, IndexError):
        return None
    name = (inner or b"").decode("utf-8", "surrogateescape")
    return name if name in clusters else None

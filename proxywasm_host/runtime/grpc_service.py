"""Which cluster a guest means by the service argument of a gRPC callout.

Filters send either a cluster's name or Envoy's message ``envoy.config.core.v3.GrpcService``, of which two fields count
here: ``envoy_grpc`` (1) and, in it, ``cluster_name`` (1).
"""

from __future__ import annotations

from proxywasm_host.abi.protobuf import fields

__all__ = ["cluster_of"]


def _first_field(message: bytes) -> bytes | None:
    """Content of field 1 of a protobuf message, if it is length-delimited. Raises: ValueError, IndexError."""
    found = None
    for number, content in fields(message):
        if number == 1 and isinstance(content, bytes):
            found = content
    return found


def cluster_of(service: bytes) -> str:
    """The name of the cluster that `service` holds, if it is such a message, or is."""
    try:
        envoy_grpc = _first_field(service)
        name = _first_field(envoy_grpc) if envoy_grpc else None
    except (ValueError, IndexError):
        name = None
    return (name or service).decode("utf-8", "surrogateescape")

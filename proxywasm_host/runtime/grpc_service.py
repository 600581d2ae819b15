"""Finds the cluster that a guest names in the service argument of a gRPC callout.

Filters send either a cluster's name or Envoy's message ``envoy.config.core.v3.GrpcService``, of which these fields are
read: ``envoy_grpc`` (1) and, in it, ``cluster_name`` (1); or ``google_grpc`` (2) and, in it, ``target_uri`` (1), which
is then the cluster's name.

Source: ``grpcCall`` in ``context.cc`` of Envoy.
"""

from __future__ import annotations

from proxywasm_host.protobuf import fields

__all__ = ["cluster_of"]

ENVOY_GRPC, GOOGLE_GRPC = 1, 2


def _last(message: bytes, *numbers: int) -> bytes | None:
    """The content of the last length-delimited field with one of these numbers in a protobuf message.

    Raises: ValueError, IndexError.
    """
    found = None
    for number, content in fields(message):
        if number in numbers and isinstance(content, bytes):
            found = content
    return found


def cluster_of(service: bytes) -> str:
    """The name of a cluster: the one in `service`, if that is such a message, else `service` itself."""
    try:
        target = _last(service, ENVOY_GRPC, GOOGLE_GRPC)
        name = _last(target, 1) if target else None
    except (ValueError, IndexError):
        name = None
    return (name or service).decode("utf-8", "surrogateescape")

"""Which cluster a guest means by the service argument of a gRPC callout.

Filters send either a cluster's name or Envoy's message ``envoy.config.core.v3.GrpcService``, of which these fields
count here: ``envoy_grpc`` (1) and, in it, ``cluster_name`` (1); or ``google_grpc`` (2) and, in it, ``target_uri`` (1),
which is then the cluster's name.
"""

from __future__ import annotations

from proxywasm_host.protobuf import fields

__all__ = ["cluster_of"]

ENVOY_GRPC, GOOGLE_GRPC = 1, 2


def _last(message: bytes, *numbers: int) -> bytes | None:
    """Content of the last of these fields of a protobuf message that is length-delimited, which is the one that counts.

    Raises: ValueError, IndexError.
    """
    found = None
    for number, content in fields(message):
        if number in numbers and isinstance(content, bytes):
            found = content
    return found


def cluster_of(service: bytes) -> str:
    """The name of the cluster that `service` holds, if it is such a message, or is."""
    try:
        target = _last(service, ENVOY_GRPC, GOOGLE_GRPC)
        name = _last(target, 1) if target else None
    except (ValueError, IndexError):
        name = None
    return (name or service).decode("utf-8", "surrogateescape")

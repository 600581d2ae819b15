"""Which cluster a guest means by the service argument of a gRPC callout.

Filters send either a cluster's name or Envoy's message ``envoy.config.core.v3.GrpcService``, of which two fields count
here: ``envoy_grpc`` (1) and, in it, ``cluster_name`` (1).
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ["cluster_of"]

LENGTH_DELIMITED = 2
FIXED_SIZES = {1: 8, 5: 4}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint of more than 64 bits")


def _first_field(data: bytes) -> bytes | None:
    """Content of field 1 of a protobuf message, if it is length-delimited. Raises: ValueError, IndexError."""
    at, found = 0, None
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(data, at)
        elif wire == LENGTH_DELIMITED:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field reaches beyond the message")
            if tag >> 3 == 1:
                found = data[at : at + size]
            at += size
        elif wire in FIXED_SIZES:
            at += FIXED_SIZES[wire]
        else:
            raise ValueError(f"wire type {wire}")
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

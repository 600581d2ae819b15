"""Properties that do not depend on a stream, and that every host has which serves."""

from __future__ import annotations

from collections.abc import Mapping
from socket import gethostname

from proxywasm_host.abi.values import PropertyValue

__all__ = ["of_this_node"]


def of_this_node(given: Mapping[str, PropertyValue]) -> Mapping[str, PropertyValue]:
    """What the embedder gave, and the machine's name as ``xds.node.id``, which SDKs put into log lines and metrics."""
    return {"xds.node": {"id": gethostname()}, **given}

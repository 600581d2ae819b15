"""Properties that do not depend on a stream, for every host that serves requests."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from socket import gethostname
from typing import Any

from proxywasm_host.abi.values import PropertyValue, check_properties

__all__ = ["of_this_node"]


def of_this_node(given: Mapping[str, PropertyValue]) -> Mapping[str, PropertyValue]:
    """The embedder's properties, and the machine's name as ``xds.node.id``, which SDKs put into log lines and metrics.

    The result also shows properties that are added to `given` later. Raises: as `check_properties`.
    """
    check_properties(given)
    maps: tuple[Any, ...] = given, {"xds.node": {"id": gethostname()}}  # `ChainMap` is typed for mutable ones
    return ChainMap(*maps)

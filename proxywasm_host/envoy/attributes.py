"""Converts Envoy's attributes and metadata to properties, and stored properties of filters to dynamic metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxywasm_host.abi.values import PropertyValue

__all__ = ["METADATA_NAMESPACE", "add_attributes", "add_metadata", "store_metadata"]

METADATA_NAMESPACE = "wasm"
"""The namespace of filters' stored properties in dynamic metadata, and their prefix in Envoy's filter state."""


def add_attributes(properties: dict[str, PropertyValue], entries: Any) -> None:
    """Add ``ProcessingRequest.attributes``: a ``Struct`` for each filter, with attributes by dotted name."""
    for entry in entries:
        properties.update(_fields(entry.value))


def add_metadata(properties: dict[str, PropertyValue], name: str, metadata: Any) -> None:
    """Add a ``Metadata`` as a property: ``metadata``, ``xds.route_metadata``."""
    namespaces = {entry.key: dict(_fields(entry.value)) for entry in metadata.filter_metadata}
    if namespaces:
        properties[name] = {"filter_metadata": namespaces}


def store_metadata(filter_state: Mapping[str, bytes], metadata: Any) -> None:
    """Fill a ``Struct`` with properties that filters stored, as text; invalid UTF-8 becomes U+FFFD."""
    stored = metadata.fields[METADATA_NAMESPACE].struct_value
    for name, value in filter_state.items():
        stored.fields[name].string_value = value.decode("utf-8", "replace")


def _fields(struct: Any) -> Iterator[tuple[str, PropertyValue]]:
    for name, value in struct.fields.items():
        yield name, _value(value)


def _value(value: Any) -> PropertyValue:
    """Convert a ``Value``. All its numbers are doubles; whole ones become integers, as Envoy's attributes are."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return dict(_fields(value.struct_value))
    if kind == "list_value":
        return [_value(each) for each in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)

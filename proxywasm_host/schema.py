"""Protobuf messages described in Python by names, numbers and types, without generated code.

    rows = {"Header": ((1, "key", "string"), (2, "value", "bytes")), "Headers": ((1, "all", "Header*"),)}
    described("example", rows)["Headers"].FromString(data).all[0].key

A row is (number, name, type). The type is a protobuf scalar, a message or enum of the same description, or ``Struct``.
A suffix "*" makes the field a list, "?" makes it optional, and "|name" makes it a member of that oneof.

The descriptions are in a separate pool, so a program may also have generated code for the same messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

__all__ = ["Rows", "described"]

Rows = Mapping[str, tuple[tuple[int, str, str], ...]]


def described(package: str, messages: Rows, enums: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """The classes of these messages, by name. `enums` are lists of the names of values, numbered from 0."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for name, values in (enums or {}).items():
        file.enum_type.add(name=name, value=[{"name": value, "number": at} for at, value in enumerate(values)])
    types = {
        "Struct": (descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, ".google.protobuf.Struct"),
        **{name: (descriptor_pb2.FieldDescriptorProto.TYPE_ENUM, f".{package}.{name}") for name in enums or ()},
        **{name: (descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{name}") for name in messages},
    }
    for name, rows in messages.items():
        message = file.message_type.add(name=name)
        for number, field, type in rows:
            _add(message, number, field, type, types)
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def _add(
    message: descriptor_pb2.DescriptorProto, number: int, name: str, type: str, types: Mapping[str, tuple[Any, str]]
) -> None:
    kind, _, oneof = type.partition("|")
    word = kind.rstrip("*?")
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    if word in types:
        field.type, field.type_name = types[word]
    else:
        field.type = field.Type.Value(f"TYPE_{word.upper()}")
    if kind.endswith("?"):  # in proto3, presence is a oneof with one field
        field.proto3_optional = True
        oneof = f"_{name}"
    if oneof:
        names = [one.name for one in message.oneof_decl]
        if oneof not in names:
            message.oneof_decl.add(name=oneof)
            names.append(oneof)
        field.oneof_index = names.index(oneof)

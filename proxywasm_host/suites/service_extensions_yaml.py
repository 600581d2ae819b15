"""Google's ``tests.yaml``: the same suite as in protobuf's text format, with its names as keys.

A field's type decides how the text of a scalar is read; an enumeration's value may be a name or a number.
Source: ``plugins/test/yaml_proto_converter.cpp`` of GoogleCloudPlatform/service-extensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

__all__ = ["YAML", "NotASuite", "fill", "is_suite"]

YAML = (".yaml", ".yml")
TRUE, FALSE = ("true", "yes", "on", "y"), ("false", "no", "off", "n")


class NotASuite(ValueError):
    """An error in a suite, with its line (counted from 1)."""

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line = line


def is_suite(text: str) -> bool:
    """Whether YAML is such a suite, judging by its top-level keys."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return False
    keys = {key.value for key, _ in tree.value} if isinstance(tree, yaml.MappingNode) else set()
    return bool(keys) and keys <= {"env", "test"}


def fill(text: str, message: Any) -> Any:
    """Fill a protobuf message with a suite. Raises: NotASuite."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise NotASuite(mark.line + 1 if mark else 1, str(getattr(error, "problem", error))) from None
    if tree is not None:
        _fill(tree, message)
    return message


def _fill(tree: yaml.Node, message: Any) -> None:
    named = message.DESCRIPTOR.name
    if not isinstance(tree, yaml.MappingNode):
        raise NotASuite(tree.start_mark.line + 1, f"{named} is a mapping")
    for key, node in tree.value:
        field = message.DESCRIPTOR.fields_by_name.get(key.value)
        line = key.start_mark.line + 1
        if field is None:
            raise NotASuite(line, f"{named} has no field {key.value!r}")
        several = getattr(message, field.name) if field.is_repeated else None
        if several is not None and not isinstance(node, yaml.SequenceNode):
            raise NotASuite(line, f"{field.name} is a list")
        for each in node.value if several is not None else [node]:
            if field.message_type is not None:
                inner = getattr(message, field.name) if several is None else several.add()
                inner.SetInParent()
                _fill(each, inner)
            elif several is None:
                setattr(message, field.name, _scalar(each, field))


def _scalar(node: yaml.Node, field: Any) -> Any:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise NotASuite(line, f"{field.name} is one value")
    read: Callable[[str], Any] = {
        field.CPPTYPE_BOOL: _bool,
        field.CPPTYPE_ENUM: lambda text: int(text) if text.isdigit() else field.enum_type.values_by_name[text].number,
        field.CPPTYPE_STRING: str.encode if field.type == field.TYPE_BYTES else str,
    }.get(field.cpp_type, int)
    try:
        return read(node.value)
    except (ValueError, KeyError):
        raise NotASuite(line, f"{field.name} cannot be {node.value!r}") from None


def _bool(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE

"""The declarative part of Kong's schemas: types, defaults and checks of a record's fields.

Plugin servers describe the configurations of their plugins in this form. Messages are Kong's
(``kong/db/schema/init.lua``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxywasm_host.errors import ConfigError

__all__ = ["check_record"]

NAMES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
    "map": Mapping,
    "record": Mapping,
}
MESSAGES = {
    "string": "expected a string",
    "boolean": "expected a boolean",
    "number": "expected a number",
    "integer": "expected an integer",
    "array": "expected an array",
    "set": "expected a set",
    "map": "expected a map",
    "record": "expected a record",
}


def check_record(fields: Sequence[Mapping[str, Any]], values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The values with their defaults. Each of `fields` maps one name to its description.

    Raises: ConfigError, with a line for each error.
    """
    wrong: list[str] = []
    checked = _record(fields, values, path, wrong)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return checked


def _record(fields: Sequence[Mapping[str, Any]], values: Any, path: str, wrong: list[str]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        wrong.append(f"{path}: {MESSAGES['record']}")
        return {}
    known = {name: field for each in fields for name, field in each.items()}
    wrong += [f"{path}.{name}: unknown field" for name in values if name not in known]
    checked: dict[str, Any] = {}
    for name, field in known.items():
        value = values.get(name)
        if value is None:
            value = field.get("default")
        if value is None and field.get("type") == "record" and field.get("required"):
            value = {}
        if value is None:
            if field.get("required"):
                wrong.append(f"{path}.{name}: required field missing")
            continue
        checked[name] = _value(field, value, f"{path}.{name}", wrong)
    return checked


def _value(field: Mapping[str, Any], value: Any, path: str, wrong: list[str]) -> Any:
    kind = field.get("type", "string")
    if kind in {"array", "set"}:
        if not isinstance(value, (list, tuple)):
            wrong.append(f"{path}: {MESSAGES[kind]}")
            return value
        each = field.get("elements") or {}
        checked = [_value(each, item, f"{path}[{number}]", wrong) for number, item in enumerate(value, 1)]
        distinct = kind == "set" and all(isinstance(one, str) for one in checked)
        return list(dict.fromkeys(checked)) if distinct else checked
    expected = NAMES.get(kind)
    is_bool = isinstance(value, bool)
    right = expected is None or (isinstance(value, expected) and not (is_bool and kind in {"number", "integer"}))
    if not right and not (kind == "integer" and isinstance(value, float) and value.is_integer()):
        wrong.append(f"{path}: {MESSAGES[kind]}")
        return value
    if kind == "record":
        return _record(field.get("fields") or [], value, path, wrong)
    if kind == "map":
        of_values = field.get("values") or {}
        return {str(key): _value(of_values, item, f"{path}.{key}", wrong) for key, item in value.items()}
    one_of = field.get("one_of")
    if one_of and value not in one_of:
        wrong.append(f"{path}: expected one of: {', '.join(map(str, one_of))}")
    between = field.get("between")
    if between and isinstance(value, (int, float)) and not between[0] <= value <= between[1]:
        wrong.append(f"{path}: value should be between {between[0]} and {between[1]}")
    match = field.get("match")
    if match and isinstance(value, str) and not re.search(match, value):
        wrong.append(f"{path}: invalid value: {value}")
    if kind == "string" and value == "" and field.get("len_min", 1) > 0:
        wrong.append(f"{path}: length must be at least 1")
    return value

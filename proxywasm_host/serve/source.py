"""The source of a configuration: a file, and options of the command line on top of it.

The file is in our own form, in YAML or TOML, or in that of another host (`proxywasm_host.configuration`).

An error names the file and line, the path of the value, and what is wrong with it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import yaml
from pydantic import ValidationError

from proxywasm_host import configuration
from proxywasm_host.configuration.node import Key, dotted
from proxywasm_host.errors import ConfigError
from proxywasm_host.serve import files
from proxywasm_host.serve.config import HostSettings, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Source", "error_lines", "read_configuration", "read_file"]

logger = logging.getLogger("proxywasm_host.configuration")
FOREIGN = "listen", "tls", "routes", "upstreams", "upstream", "forwarded", "stream_idle_timeout"
"""Settings of other hosts' configurations that only ``proxywasm serve`` uses."""
FORMATS = (".toml", ".yaml", ".yml", ".json")
ALIASED = 100_000
TIMES = 10
"""How large a configuration may be with its aliases expanded: absolutely, and relative to its text."""


AnySettings = TypeVar("AnySettings", bound=HostSettings)


@dataclass(frozen=True)
class Source(Generic[AnySettings]):
    """A configuration that can be read again: the content of `file`, into which `overrides` are merged.

    A list replaces a list. `model` is the type of the configuration, and `command` the command that runs it.
    """

    file: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    model: type[AnySettings] = Settings  # type: ignore[assignment]
    command: str = "serve"

    def load(self) -> AnySettings:
        """Read and check the configuration. Raises: ConfigError."""
        data: dict[str, Any] = {}
        lines: Mapping[Key, int] = {}
        base = Path.cwd()
        if self.file is not None:
            data, lines, foreign = read_configuration(self.file, self.model.least)
            if foreign or self.command == "run":
                data = self._known(data)
            base = self.file.absolute().parent
        try:
            return self.model.model_validate(_merged(data, self.overrides), context=base)
        except ValidationError as error:
            raise ConfigError(
                "\n".join(
                    error_lines(error, self.file, lines, f"proxywasm {self.command} --schema", "the configuration")
                )
            ) from None

    def _known(self, data: dict[str, Any]) -> dict[str, Any]:
        """The supported part of another host's configuration. Raises: ConfigError, if the rest is needed."""
        if issubclass(self.model, Settings):
            return data
        if any(route.get("filters") for route in data.get("routes", ())):
            raise ConfigError(f"{self.file}: filters of single routes: proxywasm {self.command} has one chain for all")
        ignored = [key for key in FOREIGN if key in data]
        if ignored:
            said = "%s: ignored: %s: proxywasm %s does not use it"
            logger.warning(said, self.file, ", ".join(ignored), self.command)
        return {key: value for key, value in data.items() if key not in ignored}


def error_lines(
    error: ValidationError, file: Path | None, lines: Mapping[Key, int], known_by: str, whole: str
) -> Iterator[str]:
    """A line for each error: file, line, path, and message.

    `known_by` is the command that prints the schema; `whole` names the whole configuration.
    """
    for one in error.errors(include_url=False):
        path = (*one["loc"], *one.get("ctx", {}).get("path", ()))
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "missing":
            message = "is missing"
        elif one["type"] == "extra_forbidden":
            message = f"is not known; see {known_by}"
        elif one["type"] not in ("value_error", "no_json") and not isinstance(one["input"], (dict, list)):
            message = f"{one['input']!r}: {message}"
        known = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in lines), None)
        place = f"{file}:{lines[known]}: " if known is not None else ""
        yield f"{place}{dotted(path) or whole}: {message}"


def _merged(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def read_configuration(file: Path, least: str = "filters") -> tuple[dict[str, Any], Mapping[Key, int], bool]:
    """A file's content in our own form, the line of each value, and whether the file was in another host's form.

    `least` is the key that an error names if the file is not a mapping. Raises: ConfigError.
    """
    what = "the configuration"
    text = _text(file, what)
    if file.suffix not in FORMATS and (found := configuration.of_nginx(file, text)) is not None:
        return *found, True
    documents = _parsed(file, text)
    if file.suffix != ".toml" and (found := configuration.translate(file, documents)) is not None:
        return *found, True
    return *_one(file, documents, f"a configuration is a mapping with at least the key {least!r}"), False


def read_file(file: Path, what: str, mapping: str) -> tuple[dict[str, Any], Mapping[Key, int]]:
    """The content of a file in YAML or TOML, and the line of each value.

    `what` names the file in messages, as in ``the configuration``; `mapping` is the message if it is not a mapping.

    Raises: ConfigError.
    """
    return _one(file, _parsed(file, _text(file, what)), mapping)


def _text(file: Path, what: str) -> str:
    try:
        return files.read(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read {what} {file}: {reason}") from None


def _parsed(file: Path, text: str) -> list[tuple[Any, dict[Key, int]]]:
    try:
        return [_toml(text)] if file.suffix == ".toml" else _yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: this is not YAML: {error.problem}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}{error}") from None
    except Exception as error:  # noqa: BLE001 - parsers raise anything, such as KeyError for !!bool x
        raise ConfigError(f"{file}: this is not {'TOML' if file.suffix == '.toml' else 'YAML'}: {error}") from None


def _one(
    file: Path, documents: list[tuple[Any, dict[Key, int]]], mapping: str
) -> tuple[dict[str, Any], dict[Key, int]]:
    if len(documents) > 1:
        raise ConfigError(f"{file}: it has {len(documents)} documents instead of one")
    data, lines = documents[0] if documents else ({}, {})
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: {mapping}")
    return data, lines


def _yaml(text: str) -> list[tuple[Any, dict[Key, int]]]:
    """The documents of a file, with the line of each value."""
    documents = []
    loader = Loader(text)
    while loader.check_node():
        root = loader.get_node()
        assert root is not None  # noqa: S101 - `check_node` was true
        lines: dict[Key, int] = {}
        _check_aliases(root)
        _mark(root, (), lines)
        documents.append((loader.construct_document(root), lines))
    return documents


def _check_aliases(root: yaml.Node) -> None:
    """Check aliases. Raises: ConfigError, if they make the content infinite, or much larger than its text."""
    sizes: dict[int, int] = {}
    written = 0

    def expanded(node: yaml.Node) -> int:
        nonlocal written
        size = sizes.get(id(node))
        if size == 0:
            raise ConfigError(f":{node.start_mark.line + 1}: an alias refers to a value that contains it")
        if size is None:
            sizes[id(node)] = 0
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in children for child in pair]
            own = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
            written += own
            size = sizes[id(node)] = own + sum(map(expanded, children))
        return size

    size = expanded(root)
    if size > max(ALIASED, TIMES * written):
        raise ConfigError(f": its aliases make it {size // written} times as large as its text")


class Loader(yaml.SafeLoader):
    """Loads YAML's plain values; a date stays text."""

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        **yaml.SafeLoader.yaml_constructors,
        "tag:yaml.org,2002:timestamp": yaml.SafeLoader.construct_yaml_str,
    }


def _mark(node: yaml.Node, path: Key, lines: dict[Key, int]) -> None:
    """Note the line of each value. Raises: ConfigError, if a mapping has a key twice."""
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            if place in lines:  # YAML would silently use the last one
                raise ConfigError(f":{key.start_mark.line + 1}: {dotted(place)} is given twice")
            _mark(value, place, lines)
            lines[place] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _mark(value, (*path, number), lines)


TABLE = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
ENTRY = re.compile(r"\s*([\w.\"' -]+?)\s*=")


def _toml(text: str) -> tuple[Any, dict[Key, int]]:
    """A TOML file, and the line of each value, found in the text because `tomllib` has none. Some may be missing."""
    data = _dates_as_text(tomllib.loads(text))
    lines: dict[Key, int] = {(): 1}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if found := TABLE.match(line):
            table = _table(data, found[2], found[1] == "[[", lines)
            lines.setdefault(table, number)
        elif found := ENTRY.match(line):
            path = (*table, *_parts(found[1]))
            if _has(data, path):
                lines.setdefault(path, number)
    return data, lines


def _dates_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dates_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(item) for item in value]
    return value.isoformat() if isinstance(value, (date, time)) else value


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", name)]


def _table(data: Any, name: str, array: bool, lines: dict[Key, int]) -> Key:
    """The path of a table; in an array of tables, of the last one."""
    path: Key = ()
    parts = _parts(name)
    for place, part in enumerate(parts):
        path = (*path, part)
        if isinstance(_at(data, path), list):
            begun = sum(1 for known in lines if known[:-1] == path and isinstance(known[-1], int))
            path = (*path, begun if array and place == len(parts) - 1 else max(begun - 1, 0))
    return path


def _at(data: Any, path: Key) -> Any:
    try:
        for part in path:
            data = data[part]
    except (KeyError, IndexError, TypeError):
        return None
    return data


def _has(data: Any, path: Key) -> bool:
    return _at(data, path) is not None

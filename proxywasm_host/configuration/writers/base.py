"""The base of writers: it takes our form apart, and lists the settings that the other form does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from proxywasm_host.configuration.node import Key, dotted
from proxywasm_host.fetch.reference import is_remote, local_path


class Part:
    """A mapping of the own form, from which a writer takes the keys that it can express."""

    def __init__(self, value: Any, path: Key, writer: Writer, short: str = "") -> None:
        self.value: dict[str, Any] = {short: value} if short and isinstance(value, str) else dict(value or {})
        self.path = path
        self._writer = writer

    def take(self, key: str, default: Any = None) -> Any:
        """Take the value of a key, which the writer expresses."""
        return self.value.pop(key, default)

    def rest(self) -> None:
        """Note all keys that were not taken in `Writer.cannot`."""
        for key in self.value:
            self._writer.cannot.append(dotted((*self.path, key)))
        self.value = {}


class Writer:
    """Base of the writers. `cannot` lists the paths of settings that the other form does not have."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.cannot: list[str] = []
        self._own = Part(own, (), self)

    def write(self) -> str:
        """The text of the other form."""
        raise NotImplementedError

    def _filters(self) -> list[Part]:
        return [Part(each, ("filters", at), self, "file") for at, each in enumerate(self._own.take("filters", []))]

    def _upstreams(self) -> dict[str, Part]:
        if (single := self._own.take("upstream")) is not None:
            return {"upstream": Part(single, ("upstream",), self, "url")}
        given = self._own.take("upstreams", {})
        return {name: Part(each, ("upstreams", name), self, "url") for name, each in given.items()}

    def _routes(self, upstreams: Mapping[str, Part]) -> list[Part]:
        given = self._own.take("routes", [])
        if not given and upstreams:
            return [Part({"upstream": next(iter(upstreams))}, ("routes", 0), self)]
        return [Part(each, ("routes", at), self) for at, each in enumerate(given)]

    def _address(self, name: str, default: str) -> tuple[str, int]:
        return host_and_port(self._own.take(name, default))


def host_and_port(written: object) -> tuple[str, int]:
    """The parts of ``HOST:PORT``."""
    host, _, port = str(written).rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


INLINE = "data:application/wasm;base64,"
"""The beginning of a module that is contained in a configuration."""


def module(given: Part) -> str:
    """The location of a filter's module: a path, or a URL."""
    file = str(given.take("file", ""))
    return file if is_remote(file) else local_path(file)


def as_text(value: Any) -> Any:
    """A configuration as the filter gets it: text or bytes."""
    return value if isinstance(value, (str, bytes)) else json.dumps(value, ensure_ascii=False)


def to_yaml(*documents: Any) -> str:
    """Documents in YAML, with their keys in the given order."""
    return str(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120))

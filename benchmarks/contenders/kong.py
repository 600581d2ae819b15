"""The parts of Kong's table `kong` that the plugins need, on header maps that are Python lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.headers import HeaderList


class Kong:
    """`headers` are those of the current phase; `methods` has the functions by the names that plugins use."""

    def __init__(self) -> None:
        self.headers: HeaderList = []
        self.methods: dict[bytes, Callable[..., Any]] = {
            b"kong.request.get_path": self.get_path,
            b"kong.request.get_header": self.get,
            b"kong.service.request.add_header": self.add,
            b"kong.service.request.clear_header": self.clear,
            b"kong.service.response.get_header": self.get,
            b"kong.response.add_header": self.add,
            b"kong.response.set_header": self.set,
        }

    def get_path(self) -> bytes | None:
        return self.get(b":path")

    def get(self, wanted: bytes) -> bytes | None:
        for name, value in self.headers:
            if name == wanted:
                return value
        return None

    def add(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def clear(self, unwanted: bytes) -> None:
        self.headers[:] = [pair for pair in self.headers if pair[0] != unwanted]

    def set(self, wanted: bytes, value: bytes) -> None:
        for place, (name, _) in enumerate(self.headers):
            if name == wanted:
                self.headers[place] = (name, value)
                return
        self.headers.append((wanted, value))

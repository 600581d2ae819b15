"""Instances of modules, with short methods for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxywasm_host.engine.protocol import FunctionType, HostFunction, Instance, Limits, Memory, Module

__all__ = ["Guest", "type_of"]


def type_of(text: str) -> FunctionType:
    """A function type from text like ``"i32 i64 -> i32"``."""
    params, _, results = text.partition("->")
    return FunctionType(tuple(params.split()), tuple(results.split()))


class Guest:
    """An instance of `module`, with `hosts` for its imports, by name. ``guest("name", 1, 2)`` calls it.

    Raises: KeyError for an import that `hosts` lacks; the errors of instantiation.
    """

    def __init__(self, module: Module, limits: Limits, hosts: dict[str, Callable[..., object]]) -> None:
        self._instance: Instance | None = None
        self.bound = 0
        functions = [
            HostFunction(item.module, item.name, item.type or type_of(""), hosts[item.name]) for item in module.imports
        ]
        self._instance = module.instantiate(functions, limits, self._bind)

    def _bind(self, instance: Instance) -> None:
        self.bound += 1
        self._instance = instance

    def __call__(self, name: str, *arguments: float) -> Any:
        """Call the exported function `name`. Raises: AssertionError, if the module does not export it."""
        call = self.instance.function(name)
        assert call is not None, f"the module exports no function {name!r}"  # noqa: S101 - for tests
        return call(*arguments)

    @property
    def instance(self) -> Instance:
        """The instance, after it was bound."""
        assert self._instance is not None, "the instance is not bound yet"  # noqa: S101
        return self._instance

    @property
    def memory(self) -> Memory:
        """The memory exported as ``memory``."""
        memory = self.instance.memory
        assert memory is not None, "the module exports no memory"  # noqa: S101
        return memory

    def read(self, at: int, size: int) -> bytes:
        """A copy of `size` bytes of memory."""
        return bytes(self.memory.view[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        """Write `data` to memory."""
        self.memory.view[at : at + len(data)] = data

    def close(self) -> None:
        """Close the instance, if it was bound."""
        if self._instance is not None:
            self._instance.close()

"""Makes instances of frozen dataclasses quick to make, where many are made for each request."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

__all__ = ["direct_init"]

T = TypeVar("T")


def direct_init(cls: type[T]) -> type[T]:
    """Let a frozen dataclass with slots have an ``__init__`` that sets each slot itself, with the same parameters.

    The one that `dataclass` writes calls ``object.__setattr__`` for each field, which takes twice as long.

    Raises: TypeError, for a field with a default factory.
    """
    scope: dict[str, Any] = {}
    lines = ["  pass"]
    for field in fields(cls):  # type: ignore[arg-type]
        if field.default_factory is not MISSING:
            raise TypeError(f"{cls.__name__}.{field.name} has a default factory, for which there is no direct form")
        scope[f"set_{field.name}"] = getattr(cls, field.name).__set__
        scope[f"default_{field.name}"] = field.default
        lines.append(f"  set_{field.name}(self, {'' if field.init else 'default_'}{field.name})")
    parameters = ", ".join(["self", *(field.name for field in fields(cls) if field.init)])  # type: ignore[arg-type]
    exec("\n".join([f"def __init__({parameters}):", *lines]), scope)  # noqa: S102 - names are those of the class
    written, init = cls.__init__, scope["__init__"]
    for name in ("__defaults__", "__annotations__", "__module__", "__qualname__"):
        setattr(init, name, getattr(written, name))
    cls.__init__ = init  # type: ignore[method-assign]
    return cls

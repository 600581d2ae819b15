"""Makes frozen dataclasses faster to instantiate, for classes with many instances in each request."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

from proxywasm_host.extension import NATIVE

__all__ = ["direct_init"]

T = TypeVar("T")


def direct_init(cls: type[T]) -> type[T]:
    """Give a frozen dataclass with slots an ``__init__`` with the same parameters that sets each slot directly.

    The ``__init__`` of `dataclass` calls ``object.__setattr__`` for each field. The C extension sets all fields at
    once.

    Raises: TypeError, for a field with a default factory.
    """
    scope: dict[str, Any] = {}
    values: dict[str, str] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.default_factory is not MISSING:
            raise TypeError(f"{cls.__name__}.{field.name} has a default factory, for which there is no direct form")
        scope[f"set_{field.name}"] = getattr(cls, field.name).__set__
        scope[f"default_{field.name}"] = field.default
        values[field.name] = field.name if field.init else f"default_{field.name}"
    if NATIVE:
        scope["set_all"] = NATIVE.slot_setter(cls, *(getattr(cls, name) for name in values))
        body = f"set_all({', '.join(['self', *values.values()])})"
    else:
        body = "; ".join(f"set_{name}(self, {value})" for name, value in values.items()) or "pass"
    parameters = ", ".join(["self", *(name for name, value in values.items() if name == value)])
    exec(f"def __init__({parameters}): {body}", scope)  # noqa: S102 - names are those of the class
    written, init = cls.__init__, scope["__init__"]
    for name in ("__defaults__", "__annotations__", "__module__", "__qualname__"):
        setattr(init, name, getattr(written, name))
    cls.__init__ = init  # type: ignore[method-assign]
    return cls

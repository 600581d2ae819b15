"""Types for the models of a configuration: values as people write them, with errors that say what is wrong."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxywasm_host.fetch.reference import is_remote, local_path

__all__ = ["File", "Model", "ModuleSource", "Seconds", "Size"]

INLINE = "data:application/wasm;base64,"
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", value.lower())
    if not found:
        raise ValueError(f"{value!r} is not a size: write it as 1000, 64KiB or 256MiB")
    return int(found[1]) * UNITS[found[2]]


def _beside(value: Path, info: ValidationInfo) -> Path:
    """A path, relative to the directory of the configuration file, which is the context."""
    return value if info.context is None else info.context / value


def _module(value: Any, info: ValidationInfo) -> Any:
    """A URL unchanged, the module of a ``data:`` URL, or a path relative to the configuration file."""
    if isinstance(value, str) and value.startswith(INLINE):
        try:
            return base64.b64decode(value[len(INLINE) :], validate=True)
        except binascii.Error as error:
            raise ValueError(f"the module is not base64: {error}") from None
    if isinstance(value, str):
        value = value if is_remote(value) else Path(local_path(value))
    return _beside(value, info) if isinstance(value, Path) else value


File = Annotated[Path, AfterValidator(_beside)]
ModuleSource = Annotated[Union[str, Path, bytes], BeforeValidator(_module), WithJsonSchema({"type": "string"})]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0), WithJsonSchema({"type": ["integer", "string"]})]
"""Bytes, as a number or with a unit: ``256MiB``."""
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Model(BaseModel):
    """Base of models. An unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    short: ClassVar[str] = ""
    """The field that text instead of a mapping stands for: ``upstream: http://…``."""

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        return {cls.short: value} if cls.short and isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse booleans: YAML reads yes and on as true, and Python treats true as 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind in (int, float, Seconds | None):
            raise ValueError(f"{value!r} is not a number")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.short:
            whole = handler.resolve_ref_schema(schema)
            written_out = dict(whole)
            whole.clear()
            whole.update(anyOf=[written_out, {"type": "string", "description": f"The {cls.short} alone."}])
        return schema

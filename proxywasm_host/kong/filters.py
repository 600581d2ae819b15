"""Filters in a folder, as in Kong: ``<name>.wasm``, and ``<name>.meta.json`` with the schema of its configuration.

Source: ``kong/runloop/wasm.lua``. Without a schema, a configuration is text or nothing. With one, it is checked, and
anything but text is passed to the filter as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft4Validator, SchemaError

from proxywasm_host.driver.filters import Filter
from proxywasm_host.errors import ConfigError, not_among
from proxywasm_host.kong.config import FilterUse
from proxywasm_host.runtime.failure_policy import FailurePolicy

__all__ = ["FilterFolder"]


class FilterFolder:
    """The filters of a folder. Raises: ConfigError, for a file that is not a schema."""

    def __init__(
        self,
        folder: Path | None,
        allowed: Container[str] | None = None,
        isolation: Literal["none", "stream", "filter"] = "none",
    ) -> None:
        """`allowed` are the names of the filters that may be used; ``None`` for all."""
        self.folder = folder
        self._isolation = isolation
        modules = sorted(folder.glob("*.wasm")) if folder else []
        modules = [module for module in modules if allowed is None or module.stem in allowed]
        self.modules = {module.stem: module for module in modules}
        self._schemas = {name: _schema(module.with_suffix(".meta.json")) for name, module in self.modules.items()}

    def filter(self, use: FilterUse) -> Filter:
        """The filter of a chain, after a check of its configuration. Raises: ConfigError, with the place."""
        if self.folder is None:
            raise ConfigError(f"{use.where}: there are no filters: set KONG_WASM_FILTERS_PATH to their folder")
        if use.name not in self.modules:
            raise ConfigError(f"{use.where}: {not_among('filter', use.name, self.modules, f' in {self.folder}')}")
        schema = self._schemas[use.name]
        if schema is None and not (use.config is None or isinstance(use.config, str)):
            raise ConfigError(
                f"{use.where}.config: filter {use.name!r} has no {use.name}.meta.json with a config_schema, "
                "so its configuration is text"
            )
        if schema is not None:
            errors = sorted(schema.iter_errors(use.config), key=lambda error: list(map(str, error.absolute_path)))
            if errors:
                raise ConfigError(
                    "\n".join(
                        f"{use.where}.config{''.join(f'.{part}' for part in error.absolute_path)}: {error.message}"
                        for error in errors
                    )
                )
        text = use.config if isinstance(use.config, str) else "" if use.config is None else json.dumps(use.config)
        # As in Kong, the next request replaces a guest that has failed.
        return Filter(
            self.modules[use.name],
            name=use.name,
            configuration=text,
            failure_policy=FailurePolicy.FAIL_RELOAD,
            reload_interval=0,
            isolation=self._isolation,
        )


def _schema(file: Path) -> Draft4Validator | None:
    """The schema of configurations, if the file has one."""
    if not file.exists():
        return None
    try:
        meta: Any = json.loads(file.read_bytes())
        schema = meta.get("config_schema")
        if schema is None:
            return None
        Draft4Validator.check_schema(schema)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: this is not JSON with a mapping: {error}") from None
    except SchemaError as error:
        raise ConfigError(f"{file}: config_schema is not a schema of draft 4: {error.message}") from None
    return Draft4Validator(schema)

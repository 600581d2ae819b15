"""Writes the form of ``proxywasm serve``."""

from __future__ import annotations

from typing import Any

from proxywasm_host.configuration.writers.base import Writer, to_yaml


class OwnWriter(Writer):
    """The form of ``proxywasm serve``."""

    def write(self) -> str:
        """The whole configuration, unchanged."""
        return to_yaml(plain(self._own.value))


def plain(value: Any) -> Any:
    """A value with plain mappings and lists, as YAML has them. YAML writes bytes as ``!!binary``."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value

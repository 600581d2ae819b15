"""The filters that a suite tests: modules, or those of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxywasm_host.errors import ConfigError
from proxywasm_host.fetch.reference import is_configuration
from proxywasm_host.runtime.filter_config import FilterConfig

__all__ = ["Chain", "chain_of"]


@dataclass(frozen=True)
class Chain:
    """Filters in the order of the request, and the profile of their configuration, if it has one."""

    filters: list[FilterConfig]
    profile: str | None = None


def chain_of(files: Sequence[Path]) -> Chain:
    """The filters of modules, of configurations in any form that ``serve`` accepts, or of both.

    Raises: ConfigError; ModuleNotFoundError, if a package that reads configurations is not installed.
    """
    filters: list[FilterConfig] = []
    profile = None
    for file in files:
        if not is_configuration(file):
            filters.append(FilterConfig(file))
            continue
        from proxywasm_host.serve.filters import chain_in  # noqa: PLC0415 - few suites need it

        try:
            found, profile = chain_in(file)
        except OSError as error:
            raise ConfigError(f"{file}: cannot read the filter {error.filename}: {error.strerror}") from None
        filters += found
    return Chain(filters, profile)

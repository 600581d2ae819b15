"""Suites of tests without Python: our own form in YAML, and Google's ``tests.textpb`` and ``tests.yaml``.

`read` makes cases from a suite's file; `Case.run` runs one on an engine, and returns the unmet expectations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxywasm_host.errors import ConfigError
from proxywasm_host.suites.case import Case, Environment

__all__ = ["Case", "Environment", "read"]

TEXT_PROTO = (".textpb", ".txtpb", ".textproto", ".pbtxt")
YAML = (".yaml", ".yml")


def read(file: Path, filters: Sequence[Path] = (), configuration: bytes | None = None) -> list[Case]:
    """The cases of a suite, in its order.

    Args:
        file: in YAML (``.yaml``, ``.yml``), or in Google's form (``.textpb`` and the like, or YAML).
        filters: run the suite for each of these, instead of the one that it names.
        configuration: the filter's configuration, instead of the suite's.

    Raises: ConfigError, with file, line and path; ModuleNotFoundError, if a package that reads the form is missing.
    """
    if file.suffix in TEXT_PROTO or _is_googles(file):
        from proxywasm_host.suites import service_extensions  # noqa: PLC0415 - protobuf is an extra

        return service_extensions.read(file, filters, configuration)
    if file.suffix in YAML:
        from proxywasm_host.suites import declarative  # noqa: PLC0415 - YAML is an extra

        return declarative.read(file, filters, configuration)
    raise ConfigError(f"{file} is not a suite: those end in {', '.join((*YAML, *TEXT_PROTO))}")


def _is_googles(file: Path) -> bool:
    """Whether a YAML file is a suite in Google's form; false if it cannot be read, which the reader then reports."""
    if file.suffix not in YAML:
        return False
    from proxywasm_host.suites import service_extensions_yaml  # noqa: PLC0415 - YAML is an extra

    try:
        return service_extensions_yaml.is_suite(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return False

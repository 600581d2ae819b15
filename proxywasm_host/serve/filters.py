"""Converts filters and clusters of a configuration into the form for drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.filters import DEFAULTS, Filter
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.filter_config import FilterConfig, plugin_names
from proxywasm_host.runtime.listener import Listener
from proxywasm_host.runtime.rules import Rule, by_rule
from proxywasm_host.serve import config, files
from proxywasm_host.serve.config import HostSettings, Settings
from proxywasm_host.serve.source import Source

__all__ = ["as_written", "chain_in", "chains_of", "cluster_of", "clusters_of", "filters_of", "listener_of", "names"]


class Chain(HostSettings):
    """A configuration that is read only for its filters."""

    model_config = ConfigDict(extra="ignore")


def chain_in(file: Path) -> tuple[list[Filter], str]:
    """The filters for all requests in a configuration of our own form or another host's, and their profile.

    Raises: ConfigError; OSError, for a file of a filter.
    """
    settings = Source(file, model=Chain, command="run").load()
    return [*filters_of(settings)], settings.profile


def as_written(filter: FilterConfig) -> dict[str, Any]:
    """A filter in the form of a configuration, with the options that differ from the defaults."""
    given = {each.name: getattr(filter, each.name) for each in fields(filter) if each.name != "code"}
    return {"file": filter.code, **{name: value for name, value in given.items() if value != DEFAULTS[name]}}


def names(filters: list[config.Filter]) -> list[str]:
    """A name for each filter."""
    return plugin_names([Filter(filter.file, filter.name) for filter in filters])


def filters_of(settings: HostSettings) -> Iterator[Filter]:
    """All filters in the form for drivers; one with rules becomes several.

    Raises: ConfigError; OSError, for a file of a filter.
    """
    for name, filter in zip(names(settings.all_filters), settings.all_filters, strict=True):
        if isinstance(filter.file, Path):
            files.check(filter.file)
        written = {each.name: getattr(filter, each.name) for each in fields(Filter) if hasattr(filter, each.name)}
        rules = _rules(filter, _content)
        otherwise = {
            "name": name,
            "configuration": _content(filter.configuration_file, filter.configuration),
            "vm_configuration": _content(filter.vm_configuration_file, filter.vm_configuration),
            "limits": filter.limits.limits() if filter.limits else None,
            "match": filter.match.match() if filter.match else None,
        }
        loaded = Filter(filter.file, **{**written, **otherwise})
        yield from by_rule(loaded, rules) if rules else [loaded]


def chains_of(settings: Settings) -> list[list[int]]:
    """The chains of `Settings.chains`, as indexes into `filters_of`."""
    placeholder = FilterConfig(b"")
    widths = [len(by_rule(placeholder, _rules(filter, lambda *_: b""))) for filter in settings.all_filters]
    ends = list(accumulate(widths))
    return [[place for at in chain for place in range(ends[at] - widths[at], ends[at])] for chain in settings.chains]


def listener_of(settings: HostSettings) -> Listener | None:
    """The listener for tracing, if it is on. Raises: ConfigError, if an extra is missing."""
    if not settings.tracing:
        return None
    try:
        from proxywasm_host.integrations.opentelemetry import Tracing  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        raise ConfigError(f"tracing: {error}") from None
    return Tracing()


def _rules(filter: config.Filter, content: Callable[[Path | None, bytes], bytes]) -> list[Rule]:
    return [
        Rule(rule.match(), None if rule.disabled else content(rule.configuration_file, rule.configuration or b""))
        for rule in filter.rules
    ]


def _content(file: Path | None, given: bytes) -> bytes:
    """The content of the file, or `given` if there is none. Raises: ConfigError."""
    if file is None:
        return given
    try:
        return files.read(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from None


def clusters_of(settings: HostSettings) -> Clusters:
    """The clusters in the form for drivers. Raises: ConfigError."""
    clusters = {}
    for name, cluster in settings.clusters.items():
        try:
            clusters[name] = cluster_of(cluster.url, cluster)
        except ValueError as error:  # noqa: PERF203 - there are few
            raise ConfigError(f"clusters.{name}.url: {error}") from None
    anywhere = settings.allow_any_host
    any_host = anywhere if isinstance(anywhere, bool) else cluster_of("http://any.host", anywhere)
    return Clusters(clusters, any_host=any_host)


def cluster_of(url: str, calls: config.Calls) -> Cluster:
    """A cluster in the form for drivers. Raises: ValueError."""
    tls = calls.tls
    certificate = (str(tls.certificate), str(tls.key or tls.certificate)) if tls.certificate else None
    verify = str(tls.ca) if tls.ca and tls.verify else tls.verify
    said = calls.model_dump(exclude={"tls", "url"})
    return Cluster(url, **said, verify=verify, certificate=certificate)

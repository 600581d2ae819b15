"""The requests that pass a filter, and other configurations of the filter for some of them.

A plugin has one configuration. So a filter with rules is several plugins, which share a VM, and a request passes one of
them: the plugin of the first rule that fits, else that with the filter's own configuration. It is chosen when the
request arrives, and does not change, even if a filter changes ``:authority`` or clears the route cache.

Source: ``matchRules`` of Higress's WasmPlugin, ``rule_matcher.go`` of its SDK; ``typed_per_filter_config`` of Envoy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.match import Match
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Rule", "by_rule", "matching"]

AnyFilter = TypeVar("AnyFilter", bound=FilterConfig)
ROUTE = "xds.route_name", "route_name"
CLUSTER = "xds.cluster_name", "cluster_name"


@dataclass(frozen=True)
class Rule:
    """A configuration that replaces the filter's own for some requests."""

    match: Match
    configuration: bytes | str | None
    """``None``: these requests skip the filter."""


def by_rule(filter: AnyFilter, rules: Sequence[Rule]) -> list[AnyFilter]:
    """The filters that replace a filter with these rules in a chain. The first rule that fits counts.

    Requests that fit no rule get the filter's own configuration; a rule with ``Match()`` fits all.

    Raises: ValueError, if the filter has a `match` already.
    """
    if filter.match is not None:
        raise ValueError("a filter has a match or rules, not both: write the match into the rules")
    found: list[AnyFilter] = []
    before: list[Match] = []
    for rule in (*rules, Rule(Match(), filter.configuration)):
        if rule.configuration is not None:
            match = replace(rule.match, unless=(*before, *rule.match.unless))
            found.append(replace(filter, configuration=rule.configuration, match=match))
        if rule.match == Match():
            break
        before.append(rule.match)
    return found


def matching(
    plugins: Sequence[Plugin], authority: bytes, path: bytes, properties: Mapping[str, PropertyValue]
) -> list[Plugin]:
    """The plugins of a chain that a request passes, by its ``:authority``, ``:path`` and stream's properties."""
    host = _without_port(authority.decode("latin-1").lower())
    facts = host, path.partition(b"?")[0].decode("latin-1"), _first(properties, ROUTE), _first(properties, CLUSTER)
    return [plugin for plugin in plugins if (match := plugin.config.match) is None or match.fits(*facts)]


def _without_port(authority: str) -> str:
    host, colon, port = authority.rpartition(":")
    return host if colon and "]" not in port else authority


def _first(properties: Mapping[str, PropertyValue], names: tuple[str, ...]) -> str:
    for name in names:
        value = properties.get(name)
        if isinstance(value, (str, bytes)):
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return ""

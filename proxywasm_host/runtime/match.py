"""Which requests a filter is for, and configurations of its own for some of them.

A guest knows one configuration for each plugin. So a filter with rules is several plugins, which share a VM, and a
request passes one of them: that of the first rule that fits, or else the filter's own. It is chosen when the request
comes in, and stays: neither a filter that changes ``:authority`` nor one that has the route chosen anew changes it.

Source: ``matchRules`` of Higress's WasmPlugin, ``rule_matcher.go`` of its SDK; ``typed_per_filter_config`` of Envoy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

from proxywasm_host.abi.values import PropertyValue

if TYPE_CHECKING:
    from proxywasm_host.runtime.filter_config import FilterConfig
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Match", "Rule", "by_rule", "matching"]

AnyFilter = TypeVar("AnyFilter", bound="FilterConfig")
ROUTE = "xds.route_name", "route_name"
CLUSTER = "xds.cluster_name", "cluster_name"


@dataclass(frozen=True)
class Match:
    """Which requests are meant: those that fit each of these that is given.

    A name may begin or end with ``*``, which stands for any text. Raises: TypeError, ValueError.
    """

    hosts: Sequence[str] = ()
    """Of the request's ``:authority``, without its port: ``api.example.com``, ``*.example.com``."""
    paths: Sequence[str] = ()
    """Of the request's path, without its query: ``/login``, ``/api/*``."""
    routes: Sequence[str] = ()
    """Of the property ``xds.route_name`` (or ``route_name``)."""
    clusters: Sequence[str] = ()
    """Of the property ``xds.cluster_name`` (or ``cluster_name``). One of Istio's form
    (``outbound|80||web.default.svc.cluster.local``) is meant by its host, too, with or without ``:80``.
    """
    unless: Sequence[Match] = ()
    """Of these requests, none is meant that fits one of these."""

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if isinstance(given, (str, Match)) or not isinstance(given, Sequence):
                raise TypeError(f"{each.name} are a list, even of one: write [{given!r}]")
            kind = Match if each.name == "unless" else str
            for name in given:
                if not isinstance(name, kind):
                    raise TypeError(f"{each.name} are a list of {kind.__name__}, not of {name!r}")
                if isinstance(name, str) and (not name or "*" in name[1:-1]):
                    raise ValueError(f"{name!r} is none of {each.name}: a * stands at its beginning or at its end")
        object.__setattr__(self, "hosts", tuple(host.lower() for host in self.hosts))

    def fits(self, host: str, path: str, route: str, cluster: str) -> bool:
        """Whether a request is meant: host in lower case and without port, path without query."""
        return (
            _fits(self.hosts, host)
            and _fits(self.paths, path)
            and _fits(self.routes, route)
            and (_fits(self.clusters, cluster) or any(_fits(self.clusters, name) for name in _of_istio(cluster)))
            and not any(match.fits(host, path, route, cluster) for match in self.unless)
        )


def _fits(names: Sequence[str], text: str) -> bool:
    return not names or any(map(_is, names, (text,) * len(names)))


def _is(name: str, text: str) -> bool:
    if name[0] == "*":
        return text.endswith(name[1:])
    return text.startswith(name[:-1]) if name[-1] == "*" else text == name


def _of_istio(cluster: str) -> tuple[str, ...]:
    parts = cluster.split("|")  # direction|port|subset|host
    return (parts[3], f"{parts[3]}:{parts[1]}") if len(parts) == 4 else ()


@dataclass(frozen=True)
class Rule:
    """What a filter is configured with for some requests, instead of its own configuration."""

    match: Match
    configuration: bytes | str | None
    """``None``: they pass without the filter."""


def by_rule(filter: AnyFilter, rules: Sequence[Rule]) -> list[AnyFilter]:
    """A filter with these rules, as filters that stand in its place in a chain. The first rule that fits counts.

    What fits none gets the filter's own configuration; a rule of ``Match()`` fits all. Raises: ValueError, if the
    filter has a `match` already.
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
    """Those plugins of a chain that a request passes: its ``:authority`` and ``:path``, and its stream's properties."""
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

"""Selects requests by host, path, route and upstream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

__all__ = ["Match"]


@dataclass(frozen=True)
class Match:
    """Selects the requests that fit each of the given conditions.

    A name may begin or end with ``*``, which stands for any text. Raises: TypeError, ValueError.
    """

    hosts: Sequence[str] = ()
    """Names in the request's ``:authority``, without the port: ``api.example.com``, ``*.example.com``."""
    paths: Sequence[str] = ()
    """Paths of the request, without the query: ``/login``, ``/api/*``."""
    routes: Sequence[str] = ()
    """Values of the property ``xds.route_name`` (or ``route_name``)."""
    clusters: Sequence[str] = ()
    """Values of the property ``xds.cluster_name`` (or ``cluster_name``). The host of a cluster of Istio's form
    (``outbound|80||web.default.svc.cluster.local``) selects it too, with or without ``:80``.
    """
    unless: Sequence[Match] = ()
    """Excludes requests that fit one of these."""

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
                    raise ValueError(f"{name!r} is not one of {each.name}: a * stands at the beginning or the end")
        object.__setattr__(self, "hosts", tuple(host.lower() for host in self.hosts))

    def fits(self, host: str, path: str, route: str, cluster: str) -> bool:
        """Whether it selects a request; `host` is in lower case and without port, `path` without query."""
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

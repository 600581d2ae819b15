"""The order in which Envoy and nginx try the names of servers, or virtual hosts, to find the one for a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypeVar

__all__ = ["most_specific_first"]

Of = TypeVar("Of")


def most_specific_first(named: Iterable[tuple[Of, Sequence[str]]]) -> list[tuple[Of, list[str]]]:
    """The servers with their names in the order of precedence: whole names, the longest wildcards, ``*``.

    A server with names of several kinds may appear several times.
    """
    pairs = [(of, name) for of, names in named for name in names]
    ordered = sorted(pairs, key=lambda pair: _rank(pair[1]))
    groups = [[*group] for _, group in groupby(ordered, key=lambda pair: id(pair[0]))]
    return [(group[0][0], [name for _, name in group]) for group in groups]


def _rank(name: str) -> tuple[int, int]:
    """Envoy: ``RouteMatcher::findVirtualHost``; nginx: "Server names"."""
    if "*" not in name:
        return 0, 0
    return (3 if name == "*" else 1 if name.startswith("*") else 2), -len(name)

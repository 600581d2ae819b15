"""Finds the route and the upstream path of a request, like Kong's router of the flavour ``traditional``.

Rules, from ``kong/router/traditional.lua``:

* A route with several paths counts as one route for each of them.
* A route with more kinds of conditions (hosts, headers, paths, methods) comes before one with fewer. Of routes with the
  same number, those with hosts come first, then those with headers, paths, methods.
* Then: a wildcard host with a port, hosts without wildcards, a regular expression as path, more headers, a higher
  ``regex_priority``, a longer path, an earlier place in the configuration.
* The path is normalised before it is compared and sent upstream.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from proxywasm_host.kong.context import Entity, Headers

__all__ = [
    "Address",
    "Match",
    "Router",
    "is_served",
    "may_match",
    "normalize",
    "regex",
    "route_of",
    "split_port",
    "stream_routes",
]

UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
HOST, HEADER, PATH, METHOD = 0x40, 0x20, 0x10, 0x08
REGEX_PATH, PLAIN_HOSTS, WILDCARD_WITH_PORT = 1, 2, 4
Pattern = Any
"""A compiled expression of RE2."""
REMEMBERED = 5000
"""Number of requests whose route is remembered, as in Kong."""


@dataclass(frozen=True)
class Match:
    """The route of a request."""

    route: Entity
    prefix: str = ""
    """The part of the path that the route's path has matched."""
    postfix: str | None = None
    """The part after it; ``None`` if the route has no path."""
    captures: Mapping[str, str] = field(default_factory=dict)
    unnamed_captures: tuple[str, ...] = ()

    def upstream_path(self, base: str, path: str) -> str:
        """The path for upstream, where the service's path is `base` and the request's is `path`."""
        strip = bool(self.route.get("strip_path"))
        postfix = path[1:] if self.postfix is None else self.postfix
        if self.route.get("path_handling") == "v1":
            if not strip:
                return base + path[1:]
            return base[:-1] + postfix if base.endswith("/") and postfix.startswith("/") else base + postfix
        if not strip:
            if base.endswith("/"):
                return base + path[1:]
            return base if path == "/" else base + path
        if not postfix:
            if base == "/":
                return "/"
            base = base.removesuffix("/")
            return base + "/" if len(path) > 1 and path.endswith("/") else base
        return base.removesuffix("/") + "/" + postfix.removeprefix("/")


@dataclass(frozen=True)
class _Candidate:
    """One path of a route, prepared for comparison."""

    route: Entity
    hosts: frozenset[str]
    wildcards: tuple[Pattern, ...]
    headers: tuple[tuple[str, frozenset[str], Pattern | None], ...]
    path: str
    expression: Pattern | None
    methods: frozenset[str]
    order: tuple[int, ...]

    def match(self, method: str, path: str, host: str, headers: Headers) -> Match | None:
        """The match with a request; ``None`` if it does not fit."""
        if self.methods and method not in self.methods:
            return None
        if (self.hosts or self.wildcards) and not self._is_of(host):
            return None
        for name, values, pattern in self.headers:
            given = [value.lower() for value in headers.all(name)]
            if not any(value in values or (pattern and pattern.search(value.encode("latin-1"))) for value in given):
                return None
        if self.expression is not None:
            found = self.expression.match(path.encode("latin-1"))
            if found is None:
                return None
            postfix = _sanitized(path[found.end() :])
            groups = tuple((value or b"").decode("latin-1") for value in found.groups())
            named = {name.decode(): groups[number - 1] for name, number in self.expression.groupindex.items()}
            return Match(self.route, path[: found.end()], postfix, named, groups)
        if self.path:
            if not path.startswith(self.path):
                return None
            return Match(self.route, self.path, _sanitized(path[len(self.path) :]))
        return Match(self.route)

    def _is_of(self, host: str) -> bool:
        name, with_port, _ = split_port(host, 80)
        if self.hosts & {host, name, with_port}:
            return True
        return any(pattern.match(with_port.encode("latin-1")) for pattern in self.wildcards)


class Router:
    """Finds routes. Raises: ValueError, for an invalid expression."""

    def __init__(self, routes: Iterable[Entity]) -> None:
        found = [candidate for place, route in enumerate(routes) for candidate in _candidates(route, place)]
        self._candidates = sorted(found, key=lambda candidate: candidate.order)
        self._headers = sorted({name for candidate in found for name, _, _ in candidate.headers})
        self._match = lru_cache(REMEMBERED)(self._find)

    def match(self, method: str, path: str, host: str, headers: Headers) -> Match | None:
        """The route of a request; ``None`` if none fits. `path` is normalised, `host` as in the header."""
        looked_at = tuple(
            (name.encode(), value.encode("latin-1")) for name in self._headers for value in headers.all(name)
        )
        return self._match(method, path, host.lower(), looked_at)

    def _find(self, method: str, path: str, host: str, looked_at: tuple[tuple[bytes, bytes], ...]) -> Match | None:
        headers = Headers(list(looked_at))
        for candidate in self._candidates:
            match = candidate.match(method, path, host, headers)
            if match is not None:
                return match
        return None


def _candidates(route: Entity, place: int) -> Iterable[_Candidate]:
    hosts: list[str] = [host.lower() for host in route.get("hosts") or ()]
    plain = [host for host in hosts if "*" not in host]
    wildcards = [host for host in hosts if "*" in host]
    headers = _headers(route.get("headers") or {})
    methods = frozenset(method.upper() for method in route.get("methods") or ())
    with_port = bool(wildcards) and any(split_port(host, None)[2] for host in wildcards)
    said = (HOST if hosts else 0) | (HEADER if headers else 0) | (METHOD if methods else 0)
    within = (PLAIN_HOSTS if hosts and not wildcards else 0) | (WILDCARD_WITH_PORT if with_port else 0)
    for path in route.get("paths") or ("",):
        expression = regex(path[1:]) if path.startswith("~") else None
        text = "" if expression else normalize(path) if path else ""
        kinds = said | (PATH if path else 0)
        weight = within | (REGEX_PATH if expression else 0)
        priority = int(route.get("regex_priority") or 0) if expression else 0
        order = (-kinds.bit_count(), -kinds, -weight, -len(headers), -priority, -len(text), place)
        patterns = tuple(map(_wildcard, wildcards))
        yield _Candidate(route, frozenset(plain), patterns, headers, text, expression, methods, order)


def _headers(given: Mapping[str, Any]) -> tuple[tuple[str, frozenset[str], Pattern | None], ...]:
    made = []
    for name, values in given.items():
        if name.lower() != "host":
            one = values[0] if len(values) == 1 else ""
            pattern = regex(one[2:]) if one.startswith("~*") else None
            made.append((name.lower(), frozenset(value.lower() for value in values), pattern))
    return tuple(made)


def _wildcard(host: str) -> Pattern:
    text = ".+".join(re.escape(part) for part in host.split("*"))
    return regex(text + ("$" if split_port(host, None)[2] else r"(?::\d+)?$"))


def regex(text: str) -> Pattern:
    """Compile a route's expression, for bytes: RE2's module for Python takes three times as long with text.

    RE2 takes time that is linear in the length of the path, as does the Rust library in Kong's router; neither has
    look-around or back-references. Raises: ValueError.
    """
    options = re2.Options()
    options.encoding, options.log_errors = re2.Options.Encoding.LATIN1, False
    try:
        return re2.compile(re.sub(r"\(\?<(?=\w)", "(?P<", text).encode(), options)
    except re2.error as error:
        said = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{text!r} is not a regular expression: {said}") from None


def split_port(host: str, default: int | None) -> tuple[str, str, bool]:
    """A host without its port, with its port (or the default one), and whether it had one."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", host)
    if not found:  # an IPv6 address without brackets
        return host, host if default is None else f"[{host}]:{default}", False
    name, port = found[1], found[2]
    if port:
        return name.strip("[]"), host, True
    return name.strip("[]"), name if default is None else f"{name}:{default}", False


def _sanitized(postfix: str) -> str:
    """The rest of a path after a prefix, without dot segments that lead out of it."""
    if postfix in (".", ".."):
        return ""
    return postfix.removeprefix("../") if postfix.startswith("../") else postfix.removeprefix("./")


@lru_cache(1024)
def normalize(path: str) -> str:
    """The normalised form of a path (RFC 3986, section 6), as of ``kong.tools.uri.normalize``.

    Characters that need no encoding are decoded, dot segments are resolved, and repeated slashes become one.
    """

    def decoded(found: re.Match[str]) -> str:
        byte = int(found[1], 16)
        return chr(byte) if byte in UNRESERVED else found[0].upper()

    path = re.sub("/{2,}", "/", re.sub("%([0-9A-Fa-f]{2})", decoded, path))
    if "/." not in path:
        return path or "/"
    out: list[str] = []
    parts = path.split("/")
    for part in parts[1:]:
        if part == "..":
            del out[-1:]
        elif part != ".":
            out.append(part)
    if parts[-1] in (".", "..") and (not out or out[-1]):
        out.append("")
    return "/" + "/".join(out)


# -- Connections of TCP ------------------------------------------------------------------------------------------------

Address = tuple[str, int]


def is_served(route: Entity, services: Mapping[str, Entity]) -> bool:
    """Whether a route has no service, or one that is enabled; `services` are by id."""
    service = route.get("service")
    return service is None or bool(services[service["id"]].get("enabled", True))


def stream_routes(routes: Iterable[Entity]) -> list[Entity]:
    """The routes for connections, in the order in which they are tried."""
    found = [route for route in routes if "tcp" in route["protocols"]]
    return sorted(found, key=lambda route: -(bool(route["sources"]) + bool(route["destinations"])))


def route_of(routes: Iterable[Entity], source: Address, destination: Address) -> Entity | None:
    """The first route that fits a connection."""
    for route in routes:
        if _fits(route["sources"], source) and _fits(route["destinations"], destination):
            return route
    return None


def may_match(route: Entity, listener: Address) -> bool:
    """Whether this route may fit connections of a listener."""
    host, port = listener
    wild = ipaddress.ip_address(host).is_unspecified
    return not route["destinations"] or any(
        each["port"] in (None, port) and (wild or _within(each["ip"], host)) for each in route["destinations"]
    )


def _fits(conditions: Sequence[Mapping[str, Any]] | None, address: Address) -> bool:
    ip, port = address
    return not conditions or any(each["port"] in (None, port) and _within(each["ip"], ip) for each in conditions)


def _within(network: str | None, ip: str) -> bool:
    return network is None or ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)

"""Converts headers of Envoy's messages for filters, and the filters' changes to a ``HeaderMutation``.

Envoy first removes, then sets (``MutationUtils::applyHeaderMutations``). A value is sent as ``raw_value``, whose bytes
need not be UTF-8. To append, the older field ``append`` is set as well: versions of Envoy differ in which they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.integrations.headers import CONNECTION_SPECIFIC
from proxywasm_host.integrations.heads import RequestHead, ResponseHead

__all__ = ["changes", "mutate", "pairs_of", "received", "sent_request", "sent_response", "set_all"]

OVERWRITE = 2
OURS = CONNECTION_SPECIFIC | {b"te"}
"""Headers that the exchange hides from filters, so Envoy's stay unchanged."""


def pairs_of(header_map: Any) -> HeaderList:
    """Names and values of a ``HeaderMap``."""
    return [(header.key.encode(), header.raw_value or header.value.encode()) for header in header_map.headers]


def received(pairs: HeaderList) -> HeaderList:
    """Envoy's headers that filters can change, for `mutate`."""
    return [pair for pair in pairs if pair[0] not in OURS]


def sent_request(head: RequestHead) -> HeaderList:
    """The headers of a request that came out of the filters, with pseudo headers."""
    pairs = [(b":method", head.method), (b":path", head.path), (b":scheme", head.scheme)]
    pairs.append((b":authority", head.headers[0][1]))  # `host` comes first
    return pairs + [pair for pair in head.headers[1:] if pair[0] not in OURS]


def sent_response(head: ResponseHead) -> HeaderList:
    """The headers of a response that came out of the filters, with its pseudo header."""
    return [(b":status", b"%d" % head.status)] + [pair for pair in head.headers if pair[0] not in OURS]


def mutate(before: HeaderList, after: HeaderList, mutation: Any) -> bool:
    """Fill a ``HeaderMutation`` that turns `before` into `after`. Returns whether it changes anything.

    The order of values of one name is kept; the order of names is not.
    """
    if before == after:
        return False
    old, new = _by_name(before), _by_name(after)
    changed = False
    for name in old:
        if name not in new:
            mutation.remove_headers.append(name.decode("latin-1"))
            changed = True
    for name, values in new.items():
        had = old.get(name, [])
        if values == had:
            continue
        changed = True
        kept = len(had) if had and values[: len(had)] == had else 0
        for at, value in enumerate(values[kept:], kept):
            _set(mutation.set_headers.add(), name, value, append=at > 0)
    return changed


def changes(before: HeaderList, after: HeaderList) -> HeaderList:
    """Headers of `after` whose values differ from those before, with all of their values."""
    old, new = _by_name(before), _by_name(after)
    return [(name, value) for name, values in new.items() if values != old.get(name) for value in values]


def set_all(pairs: Iterable[tuple[bytes, bytes]], options: Any, *, as_text: bool = False) -> None:
    """Fill a list of ``HeaderValueOption`` with all of these headers.

    `as_text`: use ``value``, the only field that Envoy reads for ``ext_authz``; invalid UTF-8 becomes U+FFFD.
    """
    names: set[bytes] = set()
    for name, value in pairs:
        option = options.add()
        _set(option, name, value, append=name in names)
        if as_text:
            option.header.raw_value, option.header.value = b"", value.decode("utf-8", "replace")
        names.add(name)


def _by_name(pairs: HeaderList) -> dict[bytes, list[bytes]]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _set(option: Any, name: bytes, value: bytes, *, append: bool) -> None:
    option.header.key = name.decode("latin-1")
    option.header.raw_value = value
    if append:
        option.append.value = True
    else:
        option.append_action = OVERWRITE
    if not value:
        option.keep_empty_value = True

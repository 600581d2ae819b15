"""Replies to callouts as they are given: what is wrong is told to who gives it, for a guest could only fail of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxywasm_host.runtime import effects

__all__ = ["check_reply"]

BYTES = {
    effects.HttpCallReply: ("body",),
    effects.GrpcCallReply: ("message",),
    effects.GrpcMessage: ("message",),
    effects.RedisCallReply: ("response",),
}
PAIRS = {
    effects.HttpCallReply: ("headers", "trailers"),
    effects.GrpcInitialMetadata: ("metadata",),
    effects.GrpcTrailingMetadata: ("metadata",),
}
TEXT = {effects.GrpcClosed: ("message",), effects.CalloutFailed: ("reason",)}
U32 = 1 << 32


def check_reply(callout: effects.Callout, reply: Any) -> None:
    """Raises: TypeError, for a reply that this callout cannot have, or that holds what a guest cannot be given."""
    if not isinstance(reply, callout.Reply):
        wanted = " or ".join(kind.__name__ for kind in callout.Reply)
        raise TypeError(f"the reply to {type(callout).__name__} is {wanted}, not {_shown(reply)}")
    kind = type(reply)
    for name in BYTES.get(kind, ()):
        value = getattr(reply, name)
        if not isinstance(value, bytes):
            raise TypeError(f"{kind.__name__}.{name} is bytes, not {_shown(value)}{_encode(value)}")
    for name in PAIRS.get(kind, ()):
        pairs = getattr(reply, name)
        if not isinstance(pairs, list):
            raise TypeError(f"{kind.__name__}.{name} is a list of (name, value) pairs of bytes, not {_shown(pairs)}")
        for pair in pairs:
            if not _is_pair(pair):
                raise TypeError(f"{kind.__name__}.{name} has (name, value) pairs of bytes, not {pair!r}")
    for name in TEXT.get(kind, ()):
        value = getattr(reply, name)
        if not isinstance(value, str):
            raise TypeError(f"{kind.__name__}.{name} is text, not {_shown(value)}")
    status: Any = getattr(reply, "status", 0)
    if not isinstance(status, int) or not 0 <= status < U32:
        raise TypeError(f"GrpcClosed.status is a number of gRPC, not {status!r}")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _encode(value: object) -> str:
    return ": encode it" if isinstance(value, str) else ": bytes(…) of it" if isinstance(value, Iterable) else ""

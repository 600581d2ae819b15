"""Checks replies to callouts when an embedder delivers them: later, a wrong one could only make the guest fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from proxywasm_host.runtime import effects

__all__ = ["check_reply"]

Check = Callable[[Any], str]
"""Returns the fault of a field's value, as text; empty for a valid value."""
U32 = 1 << 32


def _bytes(value: Any) -> str:
    return "" if isinstance(value, bytes) else f"is bytes, not {_shown(value)}{_encode(value)}"


def _address(value: Any) -> str:
    return "" if isinstance(value, bytes) and len(value) in (4, 16) else f"is 4 or 16 bytes, not {_shown(value)}"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else f"is text, not {_shown(value)}"


def _pairs(value: Any) -> str:
    if not isinstance(value, list):
        return f"is a list of (name, value) pairs of bytes, not {_shown(value)}"
    for pair in value:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], bytes) and isinstance(pair[1], bytes)
        ):
            return f"has (name, value) pairs of bytes, not {pair!r}"
    return ""


def _status(value: Any) -> str:
    return "" if isinstance(value, int) and 0 <= value < U32 else f"is a gRPC status, not {value!r}"


FIELDS: dict[type, tuple[tuple[str, Check], ...]] = {
    effects.HttpCallReply: (("body", _bytes), ("headers", _pairs), ("trailers", _pairs)),
    effects.GrpcCallReply: (("message", _bytes),),
    effects.GrpcMessage: (("message", _bytes),),
    effects.GrpcInitialMetadata: (("metadata", _pairs),),
    effects.GrpcTrailingMetadata: (("metadata", _pairs),),
    effects.GrpcClosed: (("message", _text), ("status", _status)),
    effects.RedisCallReply: (("response", _bytes),),
    effects.NameLookupReply: (("address", _address),),
    effects.CalloutFailed: (("reason", _text),),
}


def check_reply(callout: effects.Callout, reply: Any) -> None:
    """Check a reply. Raises: TypeError, if this callout cannot have it, or if it has a wrong field."""
    if reply.__class__ is effects.HttpCallReply and callout.__class__ is effects.HttpCall and _is_usual(reply):
        return
    if not isinstance(reply, callout.Reply):
        wanted = " or ".join(kind.__name__ for kind in callout.Reply)
        raise TypeError(f"the reply to {type(callout).__name__} is {wanted}, not {_shown(reply)}")
    kind = type(reply)
    for name, check in FIELDS.get(kind, ()):
        if problem := check(getattr(reply, name)):
            raise TypeError(f"{kind.__name__}.{name} {problem}")


def _is_usual(reply: effects.HttpCallReply) -> bool:
    """A fast check, true only for a valid reply. It may be false for a valid one with subclasses of list and tuple."""
    headers, trailers = reply.headers, reply.trailers
    if reply.body.__class__ is not bytes or headers.__class__ is not list or trailers.__class__ is not list:
        return False
    for pair in headers + trailers if trailers else headers:
        if pair.__class__ is not tuple or len(pair) != 2:
            return False
        name, value = pair
        if name.__class__ is not bytes or value.__class__ is not bytes:
            return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _encode(value: object) -> str:
    return ": encode it" if isinstance(value, str) else ": bytes(…) of it" if isinstance(value, Iterable) else ""

"""What effects are: records that do not change, of a stream or of a plugin."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import Callout, PluginEffect, StreamEffect

KINDS = [getattr(effects, name) for name in effects.__all__ if isinstance(getattr(effects, name), type)]
MADE = [kind for kind in KINDS if is_dataclass(kind)]
REQUEST = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"example.com"), (b":scheme", b"http")]


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_every_effect_and_reply_is_frozen_and_has_no_room_for_more(kind):
    made = kind(*(None for each in fields(kind) if each.init))
    for name in [fields(kind)[0].name, "anything"]:
        with pytest.raises((FrozenInstanceError, TypeError)):  # CPython 3.10 says TypeError for what is not a field
            setattr(made, name, 1)
    assert not hasattr(made, "__dict__")


def test_an_effect_is_a_streams_or_a_plugins():
    by_base = {
        base.__name__: {kind.__name__ for kind in MADE if issubclass(kind, base)}
        for base in (StreamEffect, PluginEffect, Callout)
    }
    assert by_base == {
        "StreamEffect": {
            *("RequestHeaders", "RequestBody", "RequestTrailers", "ResponseHeaders", "ResponseBody", "ResponseTrailers"),
            *("ResetStream", "ClearRouteCache", "OverrideUpstreamHost"),
            *("DownstreamData", "UpstreamData", "CloseConnection"),
        },
        "PluginEffect": {
            *("SetTickPeriod", "QueueReady", "GrpcSend", "GrpcClose", "CancelCallout"),
            *("HttpCall", "GrpcCall", "GrpcStream", "RedisCall", "NameLookup"),
        },
        "Callout": {"HttpCall", "GrpcCall", "GrpcStream", "RedisCall", "NameLookup"},
    }
    assert all(kind.Reply for kind in Callout.__subclasses__())


def test_what_comes_out_of_a_stream_cannot_be_changed(host, probe):
    """The C form makes effects without a call of their class: they are the same."""
    with host.http_stream([probe("")]) as stream:
        out = stream.request_headers(REQUEST) + stream.request_body(b"x", True)
        assert out == [effects.RequestHeaders(REQUEST, False, stream), effects.RequestBody(b"x", True, stream)]
        assert [repr(effect) for effect in out] == [
            f"RequestHeaders(headers={REQUEST}, end_stream=False)",
            "RequestBody(data=b'x', end_stream=True)",
        ]
        for effect in out:
            assert effect.stream is stream
            with pytest.raises(FrozenInstanceError, match=r"^cannot assign to field 'end_stream'$"):
                effect.end_stream = False

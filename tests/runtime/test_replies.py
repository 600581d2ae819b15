"""Replies to callouts: what no guest can be given is refused where it is given, and the guest lives on."""

from __future__ import annotations

import pytest

from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcCall,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcStream,
    GrpcTrailingMetadata,
    HttpCall,
    HttpCallReply,
    RedisCall,
    RedisCallReply,
)

CALLS = {
    HttpCall: ("0_2_1", 'http_call upstream :method=GET&:path=/&:authority=a "" "" 0'),
    GrpcCall: ("0_2_1", 'grpc_call upstream s m "" "" 0'),
    GrpcStream: ("0_2_1", 'grpc_stream upstream s m ""'),
    RedisCall: ("0_2_100", "redis_init upstream u p 0\nredis_call upstream PING"),
}
OK = [(b":status", b"200")]
WRONG = [
    (HttpCall, HttpCallReply(OK, "text"), "HttpCallReply.body is bytes, not 'text': encode it"),
    (
        HttpCall,
        HttpCallReply(OK, bytearray(b"x")),
        r"HttpCallReply.body is bytes, not bytearray\(b'x'\): bytes\(…\) of it",
    ),
    (HttpCall, HttpCallReply(OK, None), "HttpCallReply.body is bytes, not None"),
    (HttpCall, HttpCallReply([(":status", "200")]), r"has \(name, value\) pairs of bytes, not \(':status', '200'\)"),
    (HttpCall, HttpCallReply([*OK, (b"a", "1")]), r"HttpCallReply.headers has .* not \(b'a', '1'\)"),
    (HttpCall, HttpCallReply({":status": "200"}), "HttpCallReply.headers is a list of"),
    (HttpCall, HttpCallReply(OK, b"", [("a", "b")]), "HttpCallReply.trailers has"),
    (HttpCall, HttpCallReply([(b"a", b"b", b"c")]), "HttpCallReply.headers has"),
    (HttpCall, CalloutFailed(None), "CalloutFailed.reason is text, not None"),
    (HttpCall, "200", "the reply to HttpCall is HttpCallReply or CalloutFailed, not '200'"),
    (GrpcCall, GrpcCallReply("text"), "GrpcCallReply.message is bytes, not 'text': encode it"),
    (GrpcCall, GrpcClosed("0"), "GrpcClosed.status is a gRPC status, not '0'"),
    (GrpcCall, GrpcClosed(-1), "GrpcClosed.status is a gRPC status, not -1"),
    (GrpcCall, GrpcClosed(1, b"text"), "GrpcClosed.message is text, not b'text'"),
    (GrpcStream, GrpcMessage("text"), "GrpcMessage.message is bytes"),
    (GrpcStream, GrpcInitialMetadata([("a", "b")]), "GrpcInitialMetadata.metadata has"),
    (GrpcStream, GrpcTrailingMetadata({}), "GrpcTrailingMetadata.metadata is a list of"),
    (RedisCall, RedisCallReply("+PONG"), "RedisCallReply.response is bytes, not '[+]PONG': encode it"),
]
RIGHT = {
    HttpCall: HttpCallReply(OK, b"x"),
    GrpcCall: GrpcCallReply(b"x"),
    GrpcStream: GrpcMessage(b"x"),
    RedisCall: RedisCallReply(b"+PONG"),
}
ANSWERED = "@on_http_call_response\nsay answered\n@on_grpc_receive\nsay answered\n"


@pytest.mark.parametrize(("kind", "reply", "write"), WRONG)
def test_what_is_no_reply_is_refused_and_the_guest_waits_on(host, probe, log, kind, reply, write):
    version, call = CALLS[kind]
    answered = ANSWERED + ("@on_redis_call_response\nsay answered\n" if kind is RedisCall else "")
    plugin = probe(f"@on_configure\n{call}\n{answered}", version)
    [callout] = [effect for effect in host.drain() if isinstance(effect, kind)]
    with pytest.raises(TypeError, match=write):
        host.deliver(callout, reply)
    assert plugin.failure is None
    log.take()
    host.deliver(callout, RIGHT[kind])
    assert log.take() == ["answered"]

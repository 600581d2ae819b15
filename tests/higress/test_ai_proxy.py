"""gpustack-ai-proxy: one protocol for clients, another for the provider."""

from __future__ import annotations

import json

import pytest

from .transcript import EVENTS, event

ROUTE = {"route_name": "ai-route-1"}
PATH = "/v1/chat/completions"
ASKED = {
    "model": "gpt-4o",
    "max_tokens": 10,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
}


@pytest.fixture
def claude(load):
    return load("gpustack-ai-proxy", provider={"type": "claude", "apiTokens": ["key"], "modelMapping": {"*": "opus"}})


def named_event(data: dict[str, object]) -> bytes:
    return f"event: {data['type']}\n".encode() + event(data)


CLAUDE_STREAM = b"".join(
    map(
        named_event,
        [
            {
                "type": "message_start",
                "message": {"id": "m1", "role": "assistant", "model": "opus", "usage": {"input_tokens": 3}},
            },
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ],
    )
)


def test_the_same_protocol_at_another_address(load, exchange):
    plugin = load(
        "gpustack-ai-proxy",
        provider={"type": "qwen", "apiTokens": ["key"], "modelMapping": {"gpt-*": "qwen-max", "*": "qwen-turbo"}},
    )

    seen = exchange(plugin, **ROUTE).request(PATH, ASKED, authorization="Bearer of the client")

    headers = seen.upstream.headers
    assert headers[":authority"] == "dashscope.aliyuncs.com"
    assert headers[":path"] == "/compatible-mode/v1/chat/completions"
    assert headers["authorization"] == "Bearer key"
    assert headers["x-envoy-original-host"] == "example.com"
    assert headers["x-envoy-original-path"] == PATH
    assert "content-length" not in headers
    assert seen.upstream.json == {**ASKED, "model": "qwen-max"}

    answer = {"model": "qwen-max", "choices": [{"message": {"role": "assistant", "content": "hello"}}]}
    assert seen.respond(answer).client.json == answer


@pytest.mark.parametrize(("model", "mapped"), [("gpt-4o-mini", "qwen-max"), ("o1", "qwen-turbo")])
def test_models_are_mapped_by_prefix(load, exchange, model, mapped):
    mapping = {"gpt-*": "qwen-max", "*": "qwen-turbo"}
    plugin = load("gpustack-ai-proxy", provider={"type": "qwen", "apiTokens": ["key"], "modelMapping": mapping})

    seen = exchange(plugin, **ROUTE).request(PATH, {**ASKED, "model": model})

    assert seen.upstream.json["model"] == mapped


def test_another_protocol(claude, exchange):
    seen = exchange(claude, **ROUTE).request(PATH, ASKED, authorization="Bearer of the client")

    headers = seen.upstream.headers
    assert (headers[":authority"], headers[":path"]) == ("api.anthropic.com", "/v1/messages")
    assert headers["x-api-key"] == "key"
    assert "authorization" not in headers
    assert seen.upstream.json == {
        "model": "opus",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 10,
    }

    seen.respond(
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "opus",
            "content": [{"type": "text", "text": "Hello"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    )
    answer = seen.client.json
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert answer["created"] == 1_700_000_000, "the clock's"


@pytest.mark.parametrize("size", [1, 7, 64, 300, 100_000])
def test_a_stream_of_events_however_it_is_cut(claude, exchange, size):
    seen = exchange(claude, **ROUTE).request(PATH, {**ASKED, "stream": True})
    assert seen.upstream.headers["accept"] == "text/event-stream"
    assert seen.upstream.json["stream"] is True

    chunks = [CLAUDE_STREAM[at : at + size] for at in range(0, len(CLAUDE_STREAM), size)]
    seen.respond(chunks, **EVENTS)

    assert seen.client.headers["content-type"] == "text/event-stream"
    deltas = [choice["delta"] for data in seen.client.events if data != "[DONE]" for choice in data["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello"
    assert {data["object"] for data in seen.client.events if data != "[DONE]"} == {"chat.completion.chunk"}
    finishes = [
        choice["finish_reason"] for data in seen.client.events if data != "[DONE]" for choice in data["choices"]
    ]
    assert finishes[-1] == "stop"
    assert finishes[:-1] == [None] * (len(finishes) - 1)


def test_events_go_to_the_client_as_they_come(claude, exchange):
    seen = exchange(claude, **ROUTE).request(PATH, {**ASKED, "stream": True})
    at = CLAUDE_STREAM.index(b"event: content_block_stop")

    seen.respond([CLAUDE_STREAM[:at], b""], **EVENTS)

    contents = [data["choices"][0]["delta"].get("content") for data in seen.client.events]
    assert contents == ["", "Hel", "lo"]


def test_the_protocol_of_claude_for_a_client(load, exchange):
    plugin = load(
        "gpustack-ai-proxy", provider={"type": "openai", "apiTokens": ["key"], "modelMapping": {"*": "gpt-4o"}}
    )

    seen = exchange(plugin, **ROUTE).request(
        "/v1/messages",
        {
            "model": "opus",
            "max_tokens": 5,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        },
    )
    assert seen.upstream.headers[":path"] == PATH
    assert seen.upstream.json["model"] == "gpt-4o"
    assert [message["role"] for message in seen.upstream.json["messages"]] == ["system", "user"]

    seen.respond(
        {
            "id": "c1",
            "model": "gpt-4o",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    )
    answer = seen.client.json
    assert answer["type"] == "message"
    assert answer["content"] == [{"type": "text", "text": "Hello"}]
    assert answer["stop_reason"] == "end_turn"


def test_a_body_that_is_no_json_is_refused(claude, exchange, log):
    seen = exchange(claude, **ROUTE).request(PATH, b"hi", content_type="application/json")

    assert seen.client.status == 500
    assert b"failed to process request body" in seen.client.body
    assert seen.stream.details == "ai-proxy.proc_req_body_failed"
    assert not seen.forwarded
    (error,) = [line.message for line in log.lines if line.level == 4]
    assert "failed to process request body" in error
    log.take()


def test_an_error_of_the_provider_reaches_the_client(claude, exchange):
    seen = exchange(claude, **ROUTE).request(PATH, ASKED)

    seen.respond({"type": "error", "error": {"message": "overloaded"}}, status=529)

    assert seen.client.status == 529
    assert json.loads(seen.client.body)["error"]["message"] == "overloaded"

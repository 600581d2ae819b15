"""gpustack-ai-proxy: one protocol for clients, another for the provider."""

from __future__ import annotations

import json

import pytest

from proxywasm_host.testing import Response

ROUTE = {"route_name": "ai-route-1"}
CLIENT = {"authorization": "Bearer of the client", "content-length": "120"}
EVENTS = {"content-type": "text/event-stream"}
PATH = "/v1/chat/completions"
ASKED = {
    "model": "gpt-4o",
    "max_tokens": 10,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
}


@pytest.fixture
def claude(filter):
    return filter("gpustack-ai-proxy", provider={"type": "claude", "apiTokens": ["key"], "modelMapping": {"*": "opus"}})


def ask(proxy, asked=ASKED, path=PATH):
    """A request of the route that the plugin is for: what came of it."""
    return proxy.post(path, CLIENT, json=asked, properties=ROUTE)


def named_event(data: dict[str, object]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def contents(response) -> list[str | None]:
    """What the model said, event by event."""
    return [
        choice["delta"].get("content") for data in response.events() if data != "[DONE]" for choice in data["choices"]
    ]


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


def test_the_same_protocol_at_another_address(filter):
    proxy = filter(
        "gpustack-ai-proxy",
        provider={"type": "qwen", "apiTokens": ["key"], "modelMapping": {"gpt-*": "qwen-max", "*": "qwen-turbo"}},
    )
    answer = {"model": "qwen-max", "choices": [{"message": {"role": "assistant", "content": "hello"}}]}
    proxy.upstream = Response(json=answer)

    outcome = ask(proxy)

    upstream = outcome.upstream
    assert (upstream.authority, upstream.path) == ("dashscope.aliyuncs.com", "/compatible-mode/v1/chat/completions")
    assert upstream.headers["authorization"] == "Bearer key"
    assert upstream.headers["x-envoy-original-host"] == "example.com"
    assert upstream.headers["x-envoy-original-path"] == PATH
    assert "content-length" not in upstream.headers
    assert upstream.json() == {**ASKED, "model": "qwen-max"}
    assert outcome.response.json() == answer


@pytest.mark.parametrize(("model", "mapped"), [("gpt-4o-mini", "qwen-max"), ("o1", "qwen-turbo")])
def test_models_are_mapped_by_prefix(filter, model, mapped):
    mapping = {"gpt-*": "qwen-max", "*": "qwen-turbo"}
    proxy = filter("gpustack-ai-proxy", provider={"type": "qwen", "apiTokens": ["key"], "modelMapping": mapping})
    proxy.upstream = Response(json={})
    assert ask(proxy, {**ASKED, "model": model}).upstream.json()["model"] == mapped


def test_another_protocol(claude):
    claude.upstream = Response(
        json={
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "opus",
            "content": [{"type": "text", "text": "Hello"}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    )
    outcome = ask(claude)

    upstream = outcome.upstream
    assert (upstream.authority, upstream.path) == ("api.anthropic.com", "/v1/messages")
    assert upstream.headers["x-api-key"] == "key"
    assert "authorization" not in upstream.headers
    assert upstream.json() == {
        "model": "opus",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 10,
    }
    answer = outcome.response.json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert answer["created"] == 1_700_000_000, "the clock's"


@pytest.mark.parametrize("size", [1, 7, 64, 300, 100_000])
def test_a_stream_of_events_however_it_is_cut(claude, size):
    claude.upstream = Response(200, EVENTS, CLAUDE_STREAM, chunk_size=size)
    outcome = ask(claude, {**ASKED, "stream": True})

    assert outcome.upstream.headers["accept"] == "text/event-stream"
    assert outcome.upstream.json()["stream"] is True
    assert outcome.response.headers["content-type"] == "text/event-stream"
    assert "".join(content or "" for content in contents(outcome.response)) == "Hello"
    events = [data for data in outcome.response.events() if data != "[DONE]"]
    assert {data["object"] for data in events} == {"chat.completion.chunk"}
    finishes = [choice["finish_reason"] for data in events for choice in data["choices"]]
    assert finishes == [*[None] * (len(finishes) - 1), "stop"]


def test_events_go_to_the_client_as_they_come(claude):
    with claude.stream("POST", PATH, CLIENT, json={**ASKED, "stream": True}, properties=ROUTE) as stream:
        stream.send().response_headers(200, EVENTS)
        stream.response_body(CLAUDE_STREAM[: CLAUDE_STREAM.index(b"event: content_block_stop")])
        assert contents(stream.result.response) == ["", "Hel", "lo"]


def test_the_protocol_of_claude_for_a_client(filter):
    proxy = filter(
        "gpustack-ai-proxy", provider={"type": "openai", "apiTokens": ["key"], "modelMapping": {"*": "gpt-4o"}}
    )
    proxy.upstream = Response(
        json={
            "id": "c1",
            "model": "gpt-4o",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    )
    user = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    asked = {"model": "opus", "max_tokens": 5, "system": "Be brief.", "messages": [user]}

    outcome = ask(proxy, asked, "/v1/messages")

    upstream, answer = outcome.upstream, outcome.response.json()
    assert upstream.path == PATH
    assert upstream.json()["model"] == "gpt-4o"
    assert [message["role"] for message in upstream.json()["messages"]] == ["system", "user"]
    assert answer["type"] == "message"
    assert answer["content"] == [{"type": "text", "text": "Hello"}]
    assert answer["stop_reason"] == "end_turn"


def test_a_body_that_is_no_json_is_refused(claude, errors):
    outcome = claude.post(PATH, {"content-type": "application/json"}, "hi", properties=ROUTE)

    assert outcome.status == 500
    assert "failed to process request body" in outcome.response.text
    assert outcome.details == "ai-proxy.proc_req_body_failed"
    assert outcome.upstream is None
    errors += outcome.logs.error
    assert ["failed to process request body" in error for error in errors] == [True]


def test_an_error_of_the_provider_reaches_the_client(claude):
    claude.upstream = Response(529, json={"type": "error", "error": {"message": "overloaded"}})
    response = ask(claude).response
    assert (response.status, response.json()["error"]["message"]) == (529, "overloaded")

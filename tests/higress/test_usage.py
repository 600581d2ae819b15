"""What an answer has cost: ai-statistics for log, metrics and trace, gpustack-token-usage for client and server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .transcript import EVENTS, event, sent

PATH = "/v1/chat/completions"
ROUTE = {
    "route_name": "ai-route-route-1.internal",
    "cluster_name": "outbound|80||model-3-1.static",
    "source__address": "192.0.2.9:40000",
    "upstream__address": "10.0.0.1:80",
}
ASKED = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
USAGE = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
CONSUMER = "alice.gpustack-42"


def streamed(seen, clock) -> None:
    """An answer in events: the first after half a second, the last after another one and a half."""
    clock.advance(0.5)
    seen.begin(**EVENTS)
    seen.chunk(event({"model": "large", "choices": [{"index": 0, "delta": {"content": "one"}}]}))
    clock.advance(1.5)
    seen.chunk(event({"model": "large", "choices": [{"index": 0, "delta": {"content": " two"}}]}))
    seen.chunk(event({"model": "large", "choices": [], "usage": USAGE}))
    seen.chunk(event("[DONE]"), end=True)


# -- ai-statistics -----------------------------------------------------------------------------------------------------


@pytest.fixture
def statistics(load):
    return load(
        "ai-statistics",
        attributes=[
            {"key": "who", "value_source": "request_header", "value": "x-mse-consumer", "apply_to_log": True},
            {
                "key": "question",
                "value_source": "request_body",
                "value": "messages.@reverse.0.content",
                "apply_to_log": True,
                "apply_to_span": True,
            },
            {
                "key": "answer",
                "value_source": "response_streaming_body",
                "value": "choices.0.delta.content",
                "rule": "append",
                "apply_to_log": True,
            },
            {
                "key": "answer",
                "value_source": "response_body",
                "value": "choices.0.message.content",
                "apply_to_log": True,
            },
        ],
    )


def logged(seen) -> dict[str, Any]:
    """What a plugin has put into the access log."""
    return json.loads(json.loads(f'"{seen.state("ai_log")}"'))


def measured(metrics) -> dict[str, int]:
    prefix = "route.ai-route-route-1.internal.upstream.outbound|80||model-3-1.static.model.large.consumer."
    values = {name: value for (_, name), value in metrics.values.items()}
    assert all(name.startswith(prefix + CONSUMER) for name in values)
    return {name.rpartition(".metric.")[2]: value for name, value in values.items()}


def test_statistics_of_a_stream(statistics, exchange, clock, metrics):
    seen = exchange(statistics, **ROUTE).request(PATH, {**ASKED, "stream": True}, x_mse_consumer=CONSUMER)
    assert seen.upstream.json == {**ASKED, "stream": True}

    streamed(seen, clock)
    seen.close()

    assert [data["usage"] for data in seen.client.events[:-1] if "usage" in data] == [USAGE]
    assert (
        logged(seen).items()
        >= {
            "who": CONSUMER,
            "question": "hello",
            "answer": "one two",
            "model": "large",
            "input_token": 5,
            "output_token": 10,
            "total_token": 15,
            "llm_first_token_duration": 500,
            "llm_service_duration": 2000,
            "response_type": "stream",
        }.items()
    )
    assert measured(metrics) == {
        "input_token": 5,
        "output_token": 10,
        "total_token": 15,
        "llm_first_token_duration": 500,
        "llm_service_duration": 2000,
        "llm_duration_count": 1,
        "llm_stream_duration_count": 1,
    }
    assert seen.stream.span_tags["question"] == b"hello"
    assert seen.stream.span_tags["gen_ai.usage.total_tokens"] == b"15"


def test_statistics_of_a_whole_answer(statistics, exchange, clock, metrics):
    seen = exchange(statistics, **ROUTE).request(PATH, ASKED, x_mse_consumer=CONSUMER)
    clock.advance(1)
    answer = {"model": "large", "choices": [{"message": {"content": "one two"}}], "usage": USAGE}

    seen.respond(answer).close()

    assert seen.client.json == answer
    assert (
        logged(seen).items()
        >= {
            "answer": "one two",
            "output_token": 10,
            "llm_service_duration": 1000,
            "response_type": "normal",
        }.items()
    )
    assert measured(metrics) == {
        "input_token": 5,
        "output_token": 10,
        "total_token": 15,
        "llm_service_duration": 1000,
        "llm_duration_count": 1,
    }


def test_two_exchanges_add_up(statistics, exchange, clock, metrics):
    for _ in range(2):
        seen = exchange(statistics, **ROUTE).request(PATH, {**ASKED, "stream": True}, x_mse_consumer=CONSUMER)
        streamed(seen, clock)
        seen.close()

    assert measured(metrics)["total_token"] == 30
    assert measured(metrics)["llm_stream_duration_count"] == 2


# -- gpustack-token-usage ----------------------------------------------------------------------------------------------


@pytest.fixture
def usage(load):
    return load(
        "gpustack-token-usage",
        endpoint={"service_name": "gpustack.static", "service_port": 80, "path": "/metrics", "timeout_ms": 700},
        realIPHeader="x-real-client",
        header_add={"x-internal-token": "shared"},
    )


def test_usage_of_a_stream(usage, exchange, clock):
    seen = exchange(usage, **ROUTE).request(PATH, {**ASKED, "stream": True}, x_mse_consumer=CONSUMER)
    assert seen.upstream.json == {**ASKED, "stream": True, "stream_options": {"include_usage": True}}

    streamed(seen, clock)
    (told,) = [data["usage"] for data in seen.client.events[:-1] if "usage" in data]
    assert told == {
        **USAGE,
        "time_to_first_token_ms": 500,
        "time_per_output_token_ms": 166.67,
        "tokens_per_second": 6,
    }
    assert seen.client.events[-1] == "[DONE]"
    assert not seen.callouts

    seen.close()
    assert (seen.callout.cluster, seen.callout.timeout) == ("outbound|80||gpustack.static", 700)
    assert sent(seen.callout)[":path"] == "/metrics"
    assert sent(seen.callout)["x-internal-token"] == "shared"
    report = json.loads(seen.callout.body)
    assert (
        report.items()
        >= {
            "model": "large",
            "model_id": 3,
            "model_route_id": 1,
            "user_id": 42,
            "access_key": "alice",
            "input_token": 5,
            "output_token": 10,
            "total_token": 15,
            "completed": True,
            "output_chunk_count": 2,
            "request_content_bytes": len("hello"),
            "started_at": 1_700_000_000_000,
            "completed_at": 1_700_000_002_000,
        }.items()
    )
    seen.reply(status=204)


def test_who_wants_no_usage_is_not_shown_any(usage, exchange, clock):
    asked = {**ASKED, "stream": True, "stream_options": {"include_usage": False}}
    seen = exchange(usage, **ROUTE).request(PATH, asked, x_mse_consumer=CONSUMER)
    assert seen.upstream.json["stream_options"] == {"include_usage": True}

    streamed(seen, clock)
    seen.close()

    assert b"usage" not in seen.client.body
    assert seen.client.events[-1] == "[DONE]"
    assert json.loads(seen.callout.body)["total_token"] == 15


def test_a_stream_that_broke_off_is_not_completed(usage, exchange, clock):
    seen = exchange(usage, **ROUTE).request(PATH, {**ASKED, "stream": True}, x_mse_consumer=CONSUMER)
    seen.begin(**EVENTS)
    seen.chunk(event({"choices": [{"index": 0, "delta": {"content": "one"}}]}))

    seen.close()

    report = json.loads(seen.callout.body)
    assert (report["completed"], report["output_chunk_count"], report["total_token"]) == (False, 1, 0)


@pytest.mark.parametrize(
    ("cluster", "trusted"),
    [
        ("outbound|80||model-3-1.static", True),
        ("outbound|443||provider-5.dns", True),
        ("outbound|443||api.example.com", False),
    ],
)
def test_only_trusted_clusters_get_what_is_secret(usage, exchange, cluster, trusted):
    seen = exchange(usage, **{**ROUTE, "cluster_name": cluster})

    seen.request(PATH, ASKED, x_real_client="forged")

    assert seen.upstream.headers.get("x-real-client") == ("192.0.2.9" if trusted else "forged")
    assert ("x-internal-token" in seen.upstream.headers) is trusted


def test_what_never_went_upstream_is_not_reported(usage, exchange):
    route = {name: value for name, value in ROUTE.items() if name != "upstream__address"}
    seen = exchange(usage, **route).request(PATH, ASKED, x_mse_consumer=CONSUMER)

    seen.respond({"error": "none"}, status=503).close()

    assert not seen.callouts


def test_limits_count_what_statistics_have_found(load, statistics, exchange, clock):
    limit = load(
        "gpustack-rate-limit",
        rule_name="rule",
        limit_combinations=[
            {"name": "each", "match": [{"source": "consumer", "value": "*"}], "token_limits": {"per_minute": 20}}
        ],
    )

    def asks() -> int:
        seen = exchange(limit, statistics, **ROUTE).request(PATH, {**ASKED, "stream": True}, x_mse_consumer=CONSUMER)
        if seen.forwarded:
            streamed(seen, clock)
        seen.close()
        return seen.client.status

    assert [asks() for _ in range(3)] == [200, 200, 429], "15 tokens each"

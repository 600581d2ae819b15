"""gpustack-rate-limit: requests and tokens, counted in Redis or in shared data."""

from __future__ import annotations

import pytest

from proxywasm_host import Host

from .transcript import bulk, command

PATH = "/v1/chat/completions"
MATCH = [{"source": "consumer", "value": "regexp_capture:^(?:[^.]+\\.)?(user-.+)$"}]
REDIS = {"service_name": "redis.static", "username": "user", "password": "secret", "timeout": 500, "database": 2}
TOO_MANY = {"error": {"message": "Too many requests", "type": "rate_limit_exceeded", "code": 429}}


@pytest.fixture
def remote(load):
    combination = {
        "name": "each",
        "match": MATCH,
        "query_limits": {"per_minute": 2},
        "token_limits": {"per_minute": 100},
    }
    return load(
        "gpustack-rate-limit",
        rule_name="rule",
        redis=REDIS,
        show_limit_quota_header=True,
        limit_combinations=[combination],
    )


def counted(callout) -> tuple[list[str], list[list[str]]]:
    """Keys of the script, and the arguments of each: window, quota, mode, count (without the member's random id)."""
    name, _, count, *words = command(callout)
    assert name == "eval"
    keys, (_, *arguments) = words[: int(count)], words[int(count) :]
    groups = [arguments[at : at + 6] for at in range(0, len(arguments), 6)]
    return keys, [[*group[:3], group[4]] for group in groups]


def test_redis_is_asked_and_told(remote, exchange):
    seen = exchange(remote, route_name="r").request(PATH, {}, x_mse_consumer="key.user-1")

    assert not seen.forwarded
    call = seen.callout
    assert (call.cluster, call.username, call.password, call.timeout) == (
        "outbound|80||redis.static",
        b"user",
        b"secret",
        500,
    )
    assert call.options["db"] == "2"
    assert counted(call) == (
        ["rule|each|consumer=user-1|q:60s", "rule|each|consumer=user-1|t:60s"],
        [["60", "2", "check_and_add", "1"], ["60", "100", "check", "0"]],
    )

    seen.redis(bulk("SUCCESS", ""))
    assert seen.upstream.json == {}

    seen.stream.filter_state["ai_log"] = b'{\\"total_token\\":42}'
    seen.respond({"usage": {"total_tokens": 42}}).close()
    assert counted(seen.callout) == (["rule|each|consumer=user-1|t:60s"], [["60", "100", "add", "42"]])
    seen.redis(bulk("SUCCESS", ""))


def test_redis_says_that_it_is_enough(remote, exchange):
    seen = exchange(remote, route_name="r").request(PATH, {}, x_mse_consumer="user-1")

    seen.redis(bulk("LIMITED", "rule|each|consumer=user-1|q:60s"))

    assert seen.client.status == 429
    assert seen.client.json == TOO_MANY
    assert seen.client.headers["x-ratelimit-limited-key"] == "rule|each|consumer=user-1|q:60s"
    assert seen.stream.details == "gpustack-rate-limit.rejected"
    assert not seen.forwarded


@pytest.mark.parametrize("answer", [b"-ERR no script\r\n", b"$-1\r\n", bulk()])
def test_what_redis_says_is_no_verdict(remote, exchange, answer):
    seen = exchange(remote, route_name="r").request(PATH, {}, x_mse_consumer="user-1")

    seen.redis(answer)

    assert seen.forwarded


def test_without_redis_requests_pass(remote, exchange, log):
    seen = exchange(remote, route_name="r").request(PATH, {}, x_mse_consumer="user-1")

    seen.fail()

    assert seen.forwarded
    (error,) = [line for line in log.take() if "cannot connect" in line]
    assert error.startswith("Error occurred while calling redis")


@pytest.fixture
def local(load):
    return load(
        "gpustack-rate-limit",
        rule_name="rule",
        rejected_msg="slow down",
        limit_combinations=[{"name": "each", "match": MATCH, "query_limits": {"per_minute": 2}}],
    )


def test_shared_data_counts_for_each_consumer(local, exchange, clock):
    def asks(consumer: str) -> int:
        seen = exchange(local, route_name="r").request(PATH, {}, x_mse_consumer=consumer)
        return 200 if seen.forwarded else seen.client.status

    assert [asks(consumer) for consumer in ("user-1", "key.user-1", "user-1")] == [200, 200, 429]
    assert [asks(consumer) for consumer in ("user-2", "nobody", "nobody", "nobody")] == [200] * 4
    clock.advance(59)
    assert asks("user-1") == 429
    clock.advance(2)
    assert asks("user-1") == 200


def test_two_workers_with_one_memory_count_together(engine, local, exchange, services):
    first = exchange(local).request(PATH, {}, x_mse_consumer="user-1")
    second = exchange(local).request(PATH, {}, x_mse_consumer="user-1")
    with Host(engine, services=services) as other:
        again = other.load_plugin(local._vm.config.code, name=local.name, configuration=local._configuration)
        stream = other.http_stream([again])
        headers = [
            (b":path", PATH.encode()),
            (b":method", b"POST"),
            (b":authority", b"a"),
            (b"x-mse-consumer", b"user-1"),
        ]
        stream.request_headers(headers, end_stream=True)

    assert first.forwarded
    assert second.forwarded
    assert stream.local is not None
    assert stream.local.status == 429


def test_other_paths_are_not_counted(local, exchange):
    seen = [exchange(local).request("/healthz", x_mse_consumer="user-1") for _ in range(3)]

    assert all(each.forwarded for each in seen)


def test_what_was_decided_is_measured(local, exchange, metrics):
    for _ in range(3):
        exchange(local, route_name="r").request(PATH, {}, x_mse_consumer="user-1")

    prefix = (
        "route.r.upstream.none.model.none.consumer.user-1.metric.gpustack_rate_limit_request_total.rule.rule.result."
    )
    values = {name: value for (_, name), value in metrics.values.items()}
    assert {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)} == {
        "passed": 2,
        "limited": 1,
    }

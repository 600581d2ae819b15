"""gpustack-rate-limit: requests and tokens, counted in Redis or in shared data."""

from __future__ import annotations

import pytest

from proxywasm_host.testing import FAIL, RedisError, Response

SERVICE = "outbound|80||redis.static"
PATH = "/v1/chat/completions"
MATCH = [{"source": "consumer", "value": "regexp_capture:^(?:[^.]+\\.)?(user-.+)$"}]
REDIS = {"service_name": "redis.static", "username": "user", "password": "secret", "timeout": 500, "database": 2}
TOO_MANY = {"error": {"message": "Too many requests", "type": "rate_limit_exceeded", "code": 429}}


@pytest.fixture
def remote(filter):
    combination = {
        "name": "each",
        "match": MATCH,
        "query_limits": {"per_minute": 2},
        "token_limits": {"per_minute": 100},
    }
    return filter(
        "gpustack-rate-limit",
        rule_name="rule",
        redis=REDIS,
        show_limit_quota_header=True,
        limit_combinations=[combination],
    )


def ask(limit, consumer="user-1", path=PATH):
    """What comes of a consumer's request."""
    return limit.post(path, {"x-mse-consumer": consumer}, json={}, properties={"route_name": "r"})


def counted(callout) -> tuple[list[str], list[list[str]]]:
    """Keys of the script, and the arguments of each: window, quota, mode, count (without the member's random id)."""
    name, _, count, *words = [word.decode() for word in callout.command]
    assert name == "eval"
    keys, (_, *arguments) = words[: int(count)], words[int(count) :]
    groups = [arguments[at : at + 6] for at in range(0, len(arguments), 6)]
    return keys, [[*group[:3], group[4]] for group in groups]


def test_redis_is_asked_and_told(remote):
    remote.redis[SERVICE] = [["SUCCESS", ""], ["SUCCESS", ""]]
    with remote.stream(
        "POST", PATH, {"x-mse-consumer": "key.user-1"}, json={}, properties={"route_name": "r"}
    ) as stream:
        stream.send()
        assert stream.result.upstream.json() == {}
        stream.stream.filter_state["ai_log"] = b'{\\"total_token\\":42}'
        stream.respond(Response(json={"usage": {"total_tokens": 42}}))

    first, second = remote.callouts
    assert (first.cluster, first.timeout, first.effect.options["db"]) == (SERVICE, 0.5, "2")
    assert (first.effect.username, first.effect.password) == (b"user", b"secret")
    assert counted(first) == (
        ["rule|each|consumer=user-1|q:60s", "rule|each|consumer=user-1|t:60s"],
        [["60", "2", "check_and_add", "1"], ["60", "100", "check", "0"]],
    )
    assert counted(second) == (["rule|each|consumer=user-1|t:60s"], [["60", "100", "add", "42"]])


def test_redis_says_that_it_is_enough(remote):
    remote.redis[SERVICE] = [["LIMITED", "rule|each|consumer=user-1|q:60s"]]

    outcome = ask(remote)

    assert (outcome.status, outcome.response.json()) == (429, TOO_MANY)
    assert outcome.response.headers["x-ratelimit-limited-key"] == "rule|each|consumer=user-1|q:60s"
    assert outcome.details == "gpustack-rate-limit.rejected"
    assert outcome.upstream is None


@pytest.mark.parametrize("answer", [RedisError("ERR no script"), None, []])
def test_what_redis_says_is_no_verdict(remote, answer):
    remote.redis[SERVICE] = [answer]
    assert ask(remote).status == 200


def test_without_redis_requests_pass(remote, errors):
    remote.redis[SERVICE] = FAIL
    outcome = ask(remote)
    assert outcome.status == 200
    errors += outcome.logs.critical
    assert [error.startswith("Error occurred while calling redis") for error in errors] == [True]
    assert "cannot connect" in errors[0]


@pytest.fixture
def limited(filter):
    """Loads the plugin, which counts in shared data; as often as it is called, each time in a VM of its own."""
    combination = {"name": "each", "match": MATCH, "query_limits": {"per_minute": 2}}
    return lambda: filter(
        "gpustack-rate-limit", rule_name="rule", rejected_msg="slow down", limit_combinations=[combination]
    )


@pytest.fixture
def local(limited):
    return limited()


def test_shared_data_counts_for_each_consumer(local):
    consumers = ["user-1", "key.user-1", "user-1", "user-2", "nobody", "nobody", "nobody"]
    assert [ask(local, consumer).status for consumer in consumers] == [200, 200, 429, *[200] * 4]
    local.clock.advance(59)
    assert ask(local).status == 429
    local.clock.advance(2)
    assert ask(local).status == 200


def test_two_workers_with_one_memory_count_together(local, limited):
    assert [ask(worker).status for worker in (local, local, limited())] == [200, 200, 429]


def test_other_paths_are_not_counted(local):
    assert [ask(local, path="/healthz").status for _ in range(3)] == [200] * 3


def test_what_was_decided_is_measured(local):
    for _ in range(3):
        ask(local)
    prefix = (
        "route.r.upstream.none.model.none.consumer.user-1.metric.gpustack_rate_limit_request_total.rule.rule.result."
    )
    values = {name.removeprefix(prefix): value for name, value in local.metrics.items() if name.startswith(prefix)}
    assert values == {"passed": 2, "limited": 1}

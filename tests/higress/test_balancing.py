"""gpustack-lb: a context that tells the candidates, plugins that rank them, a finisher that chooses; all of them meet
in the properties of one stream.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from .transcript import bulk, command, sent

PATH = "/v1/chat/completions"
TARGET = "x-higress-target-cluster"
NOT_REACHED = 1 << 5
"""Bit of ``response.flags``: the connection to upstream failed."""


def cluster(number: int) -> str:
    return f"outbound|80||model-2-{number}.static"


def candidates(count: int = 3, **more: object) -> list[dict[str, object]]:
    return [{"cluster": cluster(number), "targetId": "2", "kind": "instance", **more} for number in range(1, count + 1)]


@pytest.fixture
def finisher(load):
    return load("gpustack-lb", mode="finisher", health={"unhealthyThreshold": 2, "cooldownMs": 10000})


@pytest.fixture
def least(load):
    return load("gpustack-lb-least-load")


def asks(seen, **headers: str):
    return seen.request(PATH, {"model": "gpt-4o"}, x_higress_llm_model="gpt-4o", **headers)


def test_the_least_busy_is_chosen_until_all_are_full(load, finisher, least, exchange):
    context = load("gpustack-lb", mode="context", candidates=candidates(maxRunningRequests=1))
    seen = [asks(exchange(context, least, finisher)) for _ in range(4)]

    assert sorted(each.upstream.headers[TARGET] for each in seen[:3]) == [cluster(1), cluster(2), cluster(3)]
    assert seen[3].client.status == 429
    assert seen[3].client.json["error"]["type"] == "max_inflight"

    freed = seen[1].upstream.headers[TARGET]
    seen[1].respond({}).close()
    assert asks(exchange(context, least, finisher)).upstream.headers[TARGET] == freed


def test_the_name_of_the_model_is_the_candidates_own(load, finisher, exchange):
    mappers = {"2": {"gpt-*": "qwen3", "*": "other"}}
    context = load("gpustack-lb", mode="context", candidates=candidates(1), modelMappers=mappers)

    seen = asks(exchange(context, finisher))

    assert seen.upstream.json == {"model": "qwen3"}
    assert seen.upstream.headers["x-higress-llm-model-final"] == "qwen3"
    assert json.loads(seen.state("gpustack_lb_candidates"))["candidates"][0]["modelName"] == "qwen3"


def test_who_cannot_be_reached_is_left_out_for_a_while(load, finisher, exchange, clock):
    context = load("gpustack-lb", mode="context", candidates=candidates(2))

    def chosen(broken: str = "") -> str:
        seen = asks(exchange(context, finisher))
        target = seen.upstream.headers[TARGET]
        seen.stream.properties["response.flags"] = NOT_REACHED if target == broken else 0
        seen.respond({}, status=503 if target == broken else 200).close()
        return target

    assert {chosen() for _ in range(4)} == {cluster(1), cluster(2)}
    for _ in range(4):
        chosen(broken=cluster(1))
    assert Counter(chosen() for _ in range(10)) == {cluster(2): 10}

    clock.advance(10.1)
    assert {chosen() for _ in range(4)} == {cluster(1), cluster(2)}


def test_a_session_stays_where_it_is(load, finisher, exchange):
    context = load("gpustack-lb", mode="context", candidates=candidates())
    sticky = load(
        "gpustack-lb-session-affinity", sessionKeys=[{"header": "Session-Id"}, {"bodyKey": "prompt_cache_key"}]
    )

    def chosen(session: str) -> str:
        return asks(exchange(context, sticky, finisher), session_id=session).upstream.headers[TARGET]

    places = {session: {chosen(session) for _ in range(4)} for session in map(str, range(12))}
    assert all(len(place) == 1 for place in places.values())
    assert len(set.union(*places.values())) > 1


def test_a_session_can_be_named_in_the_body(load, finisher, exchange):
    context = load("gpustack-lb", mode="context", candidates=candidates())
    sticky = load("gpustack-lb-session-affinity", sessionKeys=[{"bodyKey": "metadata.user_id"}])
    body = {"model": "m", "metadata": {"user_id": "u"}}

    seen = exchange(context, sticky, finisher).request("/v1/messages", body, end=False)
    assert not seen.forwarded
    seen.part()

    assert seen.upstream.json == body
    (rank,) = json.loads(seen.state("gpustack_lb_ranks"))
    assert sorted(rank["scores"].values()) == [0.25, 0.5, 1]
    best = max(rank["scores"], key=rank["scores"].get)
    assert best.partition("\0")[0] == seen.upstream.headers[TARGET]


def test_without_a_session_there_is_no_opinion(load, finisher, exchange):
    context = load("gpustack-lb", mode="context", candidates=candidates())
    sticky = load("gpustack-lb-session-affinity", sessionKeys=[{"header": "session-id"}])

    seen = asks(exchange(context, sticky, finisher))

    assert "gpustack_lb_ranks" not in seen.stream.filter_state
    assert seen.upstream.headers[TARGET] in (cluster(1), cluster(2), cluster(3))


# -- State in Redis ----------------------------------------------------------------------------------------------------


def test_state_in_redis(load, least, exchange):
    redis = {"service_name": "redis.static", "key_prefix": "lb"}
    context = load("gpustack-lb", mode="context", candidates=candidates(2), redis=redis)
    finisher = load("gpustack-lb", mode="finisher", redis=redis)
    seen = asks(exchange(context, least, finisher))

    name, _, count, *keys = command(seen.callout)
    assert (name, count) == ("eval", "4")
    assert [key.replace("\0", "/") for key in keys[:4]] == [
        f"{{lb}}:inflight:{cluster(1)}/2",
        f"{{lb}}:health:{cluster(1)}",
        f"{{lb}}:inflight:{cluster(2)}/2",
        f"{{lb}}:health:{cluster(2)}",
    ]
    assert not seen.forwarded

    seen.redis(bulk("7", "0", "0", "0", "3", "0", "0", "0"))
    found = json.loads(seen.state("gpustack_lb_candidates"))["candidates"]
    assert [candidate["inflight"] for candidate in found] == [7, 3]
    assert command(seen.callout)[3].replace("\0", "/") == f"{{lb}}:inflight:{cluster(2)}/2", "the first to be reserved"
    assert not seen.forwarded

    seen.redis(b":1\r\n")
    assert seen.upstream.headers[TARGET] == cluster(2)
    assert seen.upstream.json == {"model": "gpt-4o"}

    seen.respond({}).close()
    assert "ok" in command(seen.callout)
    seen.redis(b":1\r\n")


# -- A decision by a model ---------------------------------------------------------------------------------------------


@pytest.fixture
def deciding(load, finisher):
    backends = [{"cluster": cluster(number), "targetId": str(number)} for number in (1, 2)]
    context = load(
        "gpustack-lb", mode="context", candidates=backends, modelMappers={"1": {"*": "large"}, "2": {"*": "small"}}
    )
    decision = load(
        "gpustack-lb-decision-service",
        provider={
            "endpoint": "http://decide.local",
            "cluster": "outbound|80||decide.static",
            "apiTokens": ["first", "second"],
        },
        decisionTimeoutMs=900,
        modelSelection={"instructions": "Choose.", "criteria": {"large": "strong", "small": "cheap"}},
    )
    return context, decision, finisher


def test_a_model_decides_which_model_is_asked(deciding, exchange):
    seen = exchange(*deciding).request(PATH, {"model": "auto", "messages": [{"role": "user", "content": "1+1"}]})
    assert not seen.forwarded
    assert (seen.callout.cluster, seen.callout.timeout) == ("outbound|80||decide.static", 900)
    assert sent(seen.callout)[":path"] == "/v1/systemone"
    assert sent(seen.callout)["authorization"] == "Bearer first"
    question = json.loads(seen.callout.body)
    assert json.loads(question["state"])["messages"] == [{"role": "user", "content": "1+1"}]
    assert question["questions"]["model_selection"] == {
        "type": "choice",
        "instructions": "Choose.",
        "criteria": {"large": "strong", "small": "cheap"},
    }

    verdict = {"choice": "small", "confidence": 0.5, "probabilities": {"large": 0.1, "small": 0.9}}
    seen.reply({"answers": {"model_selection": verdict}})
    (rank,) = json.loads(seen.state("gpustack_lb_ranks"))
    assert rank["weight"] == 5, "ten times the confidence"
    assert sorted(rank["scores"].values()) == [0.1, 0.9]
    assert seen.upstream.headers[TARGET] == cluster(2)
    assert seen.upstream.json["model"] == "small"


def test_another_token_is_tried(deciding, exchange):
    seen = exchange(*deciding).request(PATH, {"model": "auto"})

    seen.reply(status=401)
    assert sent(seen.callout)["authorization"] == "Bearer second"
    verdict = {"choice": "large", "confidence": 1, "probabilities": {"large": 1, "small": 0}}
    seen.reply({"answers": {"model_selection": verdict}})

    assert seen.upstream.headers[TARGET] == cluster(1)


def test_without_a_decision_the_request_goes_on(deciding, exchange):
    seen = exchange(*deciding).request(PATH, {"model": "auto"})

    seen.reply({"answers": {"model_selection": {"choice": "unheard of"}}})

    assert seen.upstream.headers[TARGET] in (cluster(1), cluster(2))
    assert "gpustack_lb_ranks" not in seen.stream.filter_state

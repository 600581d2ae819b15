"""Production plugins of Higress that use Redis or read streams, before a model that answers in events.

The model speaks Claude's protocol, clients OpenAI's. The same chain is in front of it as the middleware of a FastAPI
application, and under ``serve``; Redis is real.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from redis import Redis

from proxywasm_host import Host
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware
from tests.conftest import ENGINES
from tests.higress.conftest import code
from tests.redis_server import Server
from tests.under_uvicorn import under_uvicorn

# Each plugin by itself is tested on all engines; V8 would compile these seven anew for each server.
pytestmark = pytest.mark.parametrize("engine", [ENGINES[-1]], indirect=True)
PATH = "/v1/chat/completions"
PROPERTIES = {"route_name": "ai-route-1", "cluster_name": "outbound|80||model-1-1.static"}
CLUSTER = "outbound|80||redis.static"
TARGETS = [{"cluster": f"outbound|80||model-{number}-1.static", "targetId": str(number)} for number in (1, 2)]
SERVICE = {"service_name": "redis.static", "timeout": 5000}
CHAIN: list[tuple[str, dict[str, Any]]] = [
    (
        "gpustack-rate-limit",
        {
            "rule_name": "rule",
            "redis": {**SERVICE, "database": 2},
            "limit_combinations": [
                {
                    "name": "each",
                    "match": [{"source": "consumer", "value": "*"}],
                    "query_limits": {"per_day": 2},
                    "token_limits": {"per_day": 1000},
                }
            ],
        },
    ),
    ("gpustack-token-usage", {"realIPHeader": "x-real-client"}),
    (
        "ai-statistics",
        {
            "attributes": [
                {
                    "key": "answer",
                    "value_source": "response_streaming_body",
                    "value": "choices.0.delta.content",
                    "rule": "append",
                    "apply_to_log": True,
                }
            ]
        },
    ),
    ("gpustack-lb", {"mode": "context", "candidates": TARGETS, "redis": {**SERVICE, "key_prefix": "lb"}}),
    ("gpustack-lb-least-load", {}),
    ("gpustack-lb", {"mode": "finisher", "redis": {**SERVICE, "key_prefix": "lb"}}),
    ("gpustack-ai-proxy", {"provider": {"type": "claude", "apiTokens": ["key"], "modelMapping": {"*": "opus"}}}),
]
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"id": "m1", "role": "assistant", "model": "opus", "usage": {"input_tokens": 3}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It is "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 39}},
    {"type": "message_stop"},
]


class Model:
    """What it was asked; its answer ends when `rest` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.rest = threading.Event()
        self.application = FastAPI()
        self.application.post("/v1/messages")(self.answer)

    async def answer(self, request: Request) -> StreamingResponse:
        self.asked.append((dict(request.headers), await request.json()))
        return StreamingResponse(self.events(), media_type="text/event-stream")

    def events(self) -> Iterator[str]:
        for number, event in enumerate(EVENTS):
            if number == 4:
                assert self.rest.wait(60)
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The files of the plugins."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, _ in CHAIN:
        (folder / f"{name}.wasm").write_bytes(code(name))
    return {name: str(folder / f"{name}.wasm") for name, _ in CHAIN}


@pytest.fixture(params=["fastapi", "serve"])
def served(request, engine, redis, modules):
    """The model behind the chain: where, and the model."""
    redis.admin.flushall()
    model = Model()
    with Host(engine) as host:  # to compile them, where nothing is cached, may take longer than a server may to start
        for name, configuration in CHAIN:
            host.load_plugin(modules[name], name=name, configuration=json.dumps(configuration))
    if request.param == "fastapi":
        model.application.add_middleware(
            ProxyWasmMiddleware,
            filters=[
                Filter(modules[name], name=f"{name}-{number}", configuration=json.dumps(configuration))
                for number, (name, configuration) in enumerate(CHAIN)
            ],
            engine=engine,
            clusters={CLUSTER: redis.url},
            properties=PROPERTIES,
            limits=Limits(deadline=60),
        )
        with under_uvicorn(model.application) as url:
            yield url, model
            model.rest.set()
        return
    serve = request.getfixturevalue("on_engine")
    with under_uvicorn(model.application) as upstream:
        filters = [
            {"file": modules[name], "name": f"{name}-{number}", "configuration": configuration}
            for number, (name, configuration) in enumerate(CHAIN)
        ]
        settings = {"filters": filters, "properties": PROPERTIES, "clusters": {CLUSTER: redis.url}}
        yield serve(settings=settings, upstream=upstream, log_level="error", deadline="60").url, model
        model.rest.set()


def ask(url: str, consumer: str) -> Any:
    """A stream is asked for."""
    asked = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    return httpx2.stream("POST", url + PATH, json=asked, headers={"x-mse-consumer": consumer}, timeout=300)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_stream_through_six_plugins(served, redis):
    url, model = served
    told: list[Any] = []
    text = ""
    with ask(url, "alice") as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                told.append(json.loads(line[6:]))
                text += "".join(choice["delta"].get("content") or "" for choice in told[-1]["choices"])
            if text == "It is fine." and not model.rest.is_set():  # before the model has said the last
                [(headers, asked)] = model.asked
                chosen = headers["x-higress-target-cluster"]
                [inflight] = [key for key in redis.admin.keys("*inflight*") if chosen in key.decode()]
                model.rest.set()
    assert model.rest.is_set()
    assert (headers["x-api-key"], headers["x-real-client"]) == ("key", "127.0.0.1")
    assert (asked["model"], asked["messages"]) == ("opus", [{"role": "user", "content": "hi"}])
    assert {data["object"] for data in told} == {"chat.completion.chunk"}
    assert told[-1]["usage"].items() >= {"prompt_tokens": 3, "completion_tokens": 39, "total_tokens": 42}.items()
    with Redis(port=redis.port, db=2) as limits:
        spent = "rule|each|consumer=alice|t:86400s"
        wait_for(lambda: [each.rpartition(b"|")[2] for each in limits.zrange(spent, 0, -1)] == [b"42"])
    wait_for(lambda: not redis.admin.exists(inflight))

    statuses = []
    for consumer in ("alice", "alice", "bob"):
        with ask(url, consumer) as response:
            statuses.append(response.status_code)
            response.read()
    assert statuses == [200, 429, 200]
    assert len(model.asked) == 3

"""Five production plugins of Higress in one chain, each doing what it is for, before a real server."""

from __future__ import annotations

import json

import httpx2

from tests.higress.conftest import code

PATH = "/v1/chat/completions?secret=1&page=2"


def asks(text: str) -> dict:
    return {"model": "large", "messages": [{"role": "user", "content": text}]}


def test_production_plugins(on_engine, origin, tmp_path):
    async def model(request, reader, writer) -> bool:
        await request.read(reader)
        answer = {"model": "large", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]}
        body = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        return True

    origin.answers["/v1/chat/completions"] = model
    configurations = {
        "gpustack-set-header-pre-route": {"routeNameHeader": "x-route"},
        "gpustack-ip-acl": {"consumers": {"mallory": {"deniedCidrs": ["127.0.0.0/8"]}}},
        "transformer": {
            "reqRules": [
                {"operate": "remove", "querys": [{"key": "secret"}]},
                {"operate": "add", "headers": [{"key": "x-added", "value": "1"}]},
            ]
        },
        "gpustack-token-usage": {"realIPHeader": "x-real-client", "header_add": {"x-trusted": "yes"}},
        "ai-data-masking": {
            "deny_openai": True,
            "deny_words": ["forbidden"],
            "deny_message": "blocked",
            "replace_roles": [{"regex": "sk-[0-9a-zA-Z]*", "type": "replace", "value": "****"}],
        },
    }
    filters = []
    for name, configuration in configurations.items():
        file = tmp_path / f"{name}.wasm"
        file.write_bytes(code(name))
        filters.append({"file": str(file), "configuration": configuration})
    served = on_engine(
        settings={
            "filters": filters,
            "properties": {"route_name": "ai-route-1", "cluster_name": "outbound|80||model-1-1.static"},
        },
        log_level="error",
        deadline="60",
    )

    def post(text: str, **headers: str) -> httpx2.Response:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.post(served.url + PATH, json=asks(text), headers=headers, timeout=60)

    answer = post("my key is sk-abc123")
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "hello")
    [seen] = origin.requests
    assert seen.target == "/v1/chat/completions?page=2"
    assert (seen["x-added"], seen["x-trusted"], seen["x-real-client"], seen["x-route"]) == (
        "1",
        "yes",
        "127.0.0.1",
        "ai-route-1",
    )
    assert json.loads(seen.body) == asks("my key is ****")

    denied = post("hello", x_mse_consumer="mallory")
    assert (denied.status_code, denied.json()) == (403, {"message": "Client IP denied for this API key"})
    blocked = post("this is forbidden")
    assert "blocked" in blocked.text
    assert len(origin.requests) == 1
    assert "Traceback" not in served.log

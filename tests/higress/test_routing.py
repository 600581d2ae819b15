"""Which model is meant: gpustack-generic-proxy-router reads the path or the body and tells it in headers."""

from __future__ import annotations

import json

import pytest

MODEL, PROVIDER, FINAL = "x-higress-llm-model", "x-higress-llm-provider", "x-higress-llm-model-final"


@pytest.fixture
def router(load):
    return load(
        "gpustack-generic-proxy-router",
        prefix="/model/proxy",
        addProviderHeader=PROVIDER,
        modelToHeader=FINAL,
        aliasNameMapping={"plain": "qwen", "split": "openai/gpt-4"},
        autoRouting={
            "enable": True,
            "defaultModel": "general",
            "rules": [{"pattern": "(?i)\\bcode\\b", "model": "coder"}],
        },
    )


def routed(seen) -> dict[str, str]:
    return {name: value for name, value in seen.upstream.headers.items() if name.startswith("x-higress")}


@pytest.mark.parametrize(
    ("alias", "headers"),
    [
        ("plain", {MODEL: "qwen", FINAL: "qwen"}),
        ("split", {MODEL: "openai/gpt-4", PROVIDER: "openai", FINAL: "gpt-4"}),
    ],
)
def test_a_path_names_the_model(router, exchange, alias, headers):
    seen = exchange(router).request(f"/model/proxy/{alias}/v1/chat/completions?a=b", {"model": "other"}, end=False)

    assert seen.forwarded, "the body is not waited for"
    assert routed(seen) == headers
    assert json.loads(seen.upstream.body) == {"model": "other"}


def test_a_client_cannot_choose_by_header(router, exchange):
    seen = exchange(router).request("/model/proxy/plain/v1/chat/completions", {}, x_higress_llm_model="dear")

    assert routed(seen)[MODEL] == "qwen"


def test_a_body_names_provider_and_model(router, exchange):
    body = {"model": "openai/gpt-4o", "n": 1.5, "messages": []}
    seen = exchange(router).request("/v1/chat/completions", body, end=False)
    assert not seen.forwarded

    seen.part()

    assert routed(seen) == {MODEL: "openai/gpt-4o", PROVIDER: "openai", FINAL: "gpt-4o"}
    assert seen.upstream.json == {**body, "model": "gpt-4o"}
    assert "content-length" not in seen.upstream.headers


@pytest.mark.parametrize(
    ("content", "model"),
    [
        ("Write some code", "coder"),
        ("Sing a song", "general"),
        ([{"type": "text", "text": "some CODE"}, {"type": "image_url", "image_url": {"url": "u"}}], "coder"),
    ],
)
def test_a_question_chooses_the_model(router, exchange, content, model):
    messages = [{"role": "user", "content": "code"}, {"role": "user", "content": content}]

    seen = exchange(router).request("/v1/chat/completions", {"model": "higress/auto", "messages": messages})

    assert routed(seen) == {MODEL: model, FINAL: model}
    assert seen.upstream.json == {"model": model, "messages": messages}


def test_a_form_with_a_file(router, exchange):
    parts = {"model": "openai/whisper-1", "file": "\x00\x01sound"}
    form = "".join(f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts.items())

    seen = exchange(router).request(
        "/v1/audio/transcriptions", f"{form}--b--\r\n".encode(), content_type="multipart/form-data; boundary=b"
    )

    assert routed(seen) == {MODEL: "openai/whisper-1", PROVIDER: "openai", FINAL: "whisper-1"}
    assert b"\r\n\r\nwhisper-1\r\n" in seen.upstream.body
    assert b"\r\n\r\n\x00\x01sound\r\n" in seen.upstream.body


@pytest.mark.parametrize("path", ["/healthz", "/v1/files"])
def test_other_paths_pass(router, exchange, path):
    seen = exchange(router).request(path, {"model": "openai/gpt-4o"}, end=False)

    assert seen.forwarded
    assert routed(seen) == {}


def test_a_large_body_needs_the_limit_that_the_plugin_sets(load, exchange):
    body = {"model": "a/b", "text": "x" * 5000}
    generous = load("gpustack-generic-proxy-router", maxBodyBytes=10_000)
    frugal = load("gpustack-generic-proxy-router", maxBodyBytes=1000)

    taken = exchange(generous, buffer_limit=2000).request("/v1/completions", body, end=False)
    taken.part()
    refused = exchange(frugal, buffer_limit=20_000).request("/v1/completions", body, end=False)

    assert taken.upstream.json == body
    assert refused.client.status == 413


def test_names_of_route_and_cluster(load, exchange):
    plugin = load("gpustack-set-header-pre-route", routeNameHeader="X-Route", clusterNameHeader="X-Cluster")
    names = {"route_name": "ai-route-1", "cluster_name": "outbound|80|v1|model-3-4.static"}

    matched = exchange(plugin, **names).request("/v1/embeddings?a=b", {}).upstream.headers
    by_prefix = exchange(plugin, **names).request("/model/proxy/7/anything", {}).upstream.headers
    other = exchange(plugin, **names).request("/v1/files", {}).upstream.headers

    assert (matched["x-route"], matched["x-cluster"]) == ("ai-route-1", "model-3-4.static")
    assert (by_prefix["x-route"], by_prefix["x-cluster"]) == ("ai-route-1", "model-3-4.static")
    assert "x-route" not in other

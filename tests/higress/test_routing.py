"""Which model is meant: gpustack-generic-proxy-router reads the path or the body and tells it in headers."""

from __future__ import annotations

import json

import pytest

MODEL, PROVIDER, FINAL = "x-higress-llm-model", "x-higress-llm-provider", "x-higress-llm-model-final"
JSON = {"content-type": "application/json"}
BODY = {"model": "openai/gpt-4o", "n": 1.5, "messages": []}


@pytest.fixture
def router(filter):
    return filter(
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


def send(filter, path, body, **properties):
    """What upstream gets of a request with JSON."""
    text = json.dumps(body)
    headers = {**JSON, "content-length": str(len(text))}
    return filter.post(path, headers, text, properties=properties).upstream


def begun(filter, path):
    """What upstream has got when a part of the body has come."""
    with filter.stream("POST", path, JSON) as stream:
        stream.request_headers().request_body(b'{"model": "oth')
        return stream.result.upstream


def routed(request) -> dict[str, str]:
    return {name: request.headers[name] for name in request.headers if name.startswith("x-higress")}


@pytest.mark.parametrize(
    ("alias", "headers"),
    [
        ("plain", {MODEL: "qwen", FINAL: "qwen"}),
        ("split", {MODEL: "openai/gpt-4", PROVIDER: "openai", FINAL: "gpt-4"}),
    ],
)
def test_a_path_names_the_model_and_the_body_is_not_waited_for(router, alias, headers):
    got = begun(router, f"/model/proxy/{alias}/v1/chat/completions?a=b")
    assert routed(got) == headers
    assert got.body == b'{"model": "oth'


def test_a_client_cannot_choose_by_header(router):
    got = router.post("/model/proxy/plain/v1/chat/completions", {**JSON, MODEL: "dear"}, "{}").upstream
    assert routed(got)[MODEL] == "qwen"


def test_a_body_names_provider_and_model(router):
    assert begun(router, "/v1/chat/completions") is None, "the headers wait for it"
    got = send(router, "/v1/chat/completions", BODY)
    assert routed(got) == {MODEL: "openai/gpt-4o", PROVIDER: "openai", FINAL: "gpt-4o"}
    assert got.json() == {**BODY, "model": "gpt-4o"}
    assert "content-length" not in got.headers


@pytest.mark.parametrize(
    ("content", "model"),
    [
        ("Write some code", "coder"),
        ("Sing a song", "general"),
        ([{"type": "text", "text": "some CODE"}, {"type": "image_url", "image_url": {"url": "u"}}], "coder"),
    ],
)
def test_a_question_chooses_the_model(router, content, model):
    messages = [{"role": "user", "content": "code"}, {"role": "user", "content": content}]
    got = send(router, "/v1/chat/completions", {"model": "higress/auto", "messages": messages})
    assert routed(got) == {MODEL: model, FINAL: model}
    assert got.json() == {"model": model, "messages": messages}


def test_a_form_with_a_file(router):
    parts = {"model": "openai/whisper-1", "file": "\x00\x01sound"}
    form = "".join(f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts.items())
    headers = {"content-type": "multipart/form-data; boundary=b"}
    got = router.post("/v1/audio/transcriptions", headers, f"{form}--b--\r\n").upstream
    assert routed(got) == {MODEL: "openai/whisper-1", PROVIDER: "openai", FINAL: "whisper-1"}
    assert b"\r\n\r\nwhisper-1\r\n" in got.body
    assert b"\r\n\r\n\x00\x01sound\r\n" in got.body


@pytest.mark.parametrize("path", ["/healthz", "/v1/files"])
def test_other_paths_pass(router, path):
    assert routed(begun(router, path)) == {}


def test_a_large_body_needs_the_limit_that_the_plugin_sets(filter):
    body = {"model": "a/b", "text": "x" * 5000}
    generous = filter("gpustack-generic-proxy-router", maxBodyBytes=10_000)
    generous.buffer_limit = 2000
    assert send(generous, "/v1/completions", body).json() == body

    frugal = filter("gpustack-generic-proxy-router", maxBodyBytes=1000)
    frugal.buffer_limit = 20_000
    assert frugal.post("/v1/completions", JSON, json.dumps(body), chunk_size=4000).status == 413


def test_names_of_route_and_cluster(filter):
    plugin = filter("gpustack-set-header-pre-route", routeNameHeader="X-Route", clusterNameHeader="X-Cluster")
    names = {"route_name": "ai-route-1", "cluster_name": "outbound|80|v1|model-3-4.static"}
    for path in ("/v1/embeddings?a=b", "/model/proxy/7/anything"):
        headers = send(plugin, path, {}, **names).headers
        assert (headers["x-route"], headers["x-cluster"]) == ("ai-route-1", "model-3-4.static")
    assert "x-route" not in send(plugin, "/v1/files", {}, **names).headers

"""Every plugin of the wheel loads, takes a configuration and lets an exchange through, each in its own way."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.types import AbiVersion

from .transcript import Exchange

CONFIGURATIONS = {
    "ai-data-masking": {"deny_words": ["forbidden"], "replace_roles": [{"regex": "%{IP}", "type": "hash"}]},
    "ai-statistics": {"attributes": [{"key": "question", "apply_to_log": True}]},
    "gpustack-ai-proxy": {"provider": {"type": "openai", "apiTokens": ["token"]}},
    "gpustack-ext-auth": {
        "route_match_regexes": ["^ai-route-"],
        "authz": {"endpoint": {"path": "/token-auth", "service_name": "auth.static", "service_port": 80}},
    },
    "gpustack-generic-proxy-router": {"modelToHeader": "x-model"},
    "gpustack-ip-acl": {"consumers": {"*": {"deniedCidrs": ["192.0.2.0/24"]}}},
    "gpustack-lb": {"mode": "context", "candidates": [{"cluster": "outbound|80||model-1-1.static"}]},
    "gpustack-lb-decision-service": {
        "provider": {"endpoint": "http://decide", "cluster": "outbound|80||decide.static"},
        "modelSelection": {"criteria": {"large": "strong", "small": "cheap"}},
    },
    "gpustack-lb-least-load": {"weight": 2},
    "gpustack-lb-session-affinity": {"sessionKeys": [{"header": "session-id"}]},
    "gpustack-rate-limit": {
        "rule_name": "rule",
        "limit_combinations": [
            {"name": "any", "match": [{"source": "consumer", "value": "*"}], "query_limits": {"per_minute": 5}}
        ],
    },
    "gpustack-set-header-pre-route": {"routeNameHeader": "x-route", "clusterNameHeader": "x-cluster"},
    "gpustack-token-usage": {"realIPHeader": "x-real-client", "header_add": {"x-trusted": "yes"}},
    "transformer": {"reqRules": [{"operate": "add", "headers": [{"key": "x-added", "value": "1"}]}]},
}
ADDED = {
    "gpustack-ai-proxy": {"authorization": "Bearer token", "x-envoy-original-host": "example.com"},
    "gpustack-ext-auth": {"x-mse-consumer": "key.gpustack-7"},
    "gpustack-generic-proxy-router": {"x-higress-llm-model": "large", "x-model": "large"},
    "gpustack-set-header-pre-route": {"x-route": "ai-route-1", "x-cluster": "model-1-1.static"},
    "gpustack-token-usage": {"x-real-client": "198.51.100.7", "x-trusted": "yes"},
    "transformer": {"x-added": "1"},
}
"""Headers that upstream gets of each, beyond those of the client."""

ASKED = {"model": "large", "messages": [{"role": "user", "content": "hi"}]}
ANSWERED = {"model": "large", "choices": [{"message": {"role": "assistant", "content": "hello"}}]}


@pytest.fixture
def through(exchange):
    def through(*plugins) -> Exchange:
        return exchange(
            *plugins,
            route_name="ai-route-1",
            cluster_name="outbound|80||model-1-1.static",
            source__address="198.51.100.7:40000",
        )

    return through


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_exchange_passes(load, through, name):
    plugin = load(name, **CONFIGURATIONS[name])
    contexts = set(plugin._vm.contexts)
    seen = through(plugin)

    seen.request("/v1/chat/completions", ASKED, authorization="Bearer client", x_request_id="r-1")
    if seen.callouts:
        seen.reply(x_mse_consumer="key.gpustack-7")
    assert seen.upstream.json == ASKED
    assert ADDED.get(name, {}).items() <= seen.upstream.headers.items()
    seen.respond(ANSWERED)
    assert seen.client.status == 200
    assert seen.client.json == ANSWERED
    seen.close()

    assert plugin._vm.version is AbiVersion.V0_2_100
    assert plugin.failure is None
    assert set(plugin._vm.contexts) == contexts, "that of the stream is gone"


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name != "ai-data-masking"])
def test_log_lines_tell_the_request(load, through, log, name):
    plugin = load(name, **CONFIGURATIONS[name])
    seen = through(plugin).request("/v1/chat/completions", ASKED, x_request_id="r-1")

    assert f"[{name}] [nil] [nil] plugin start successfully" in log.messages
    assert seen.state("x_request_id") == "r-1"


def test_all_of_them_in_one_chain(load, through):
    plugins = [load(name, **CONFIGURATIONS[name]) for name in CONFIGURATIONS]
    seen = through(*plugins)

    seen.request("/v1/chat/completions", ASKED)
    seen.reply(x_mse_consumer="key.gpustack-7")
    assert seen.upstream.json == ASKED
    added = {key: value for headers in ADDED.values() for key, value in headers.items()}
    assert added.items() <= seen.upstream.headers.items()
    seen.respond(ANSWERED)
    assert seen.client.json == ANSWERED
    seen.close()

    assert [plugin.failure for plugin in plugins] == [None] * len(CONFIGURATIONS)

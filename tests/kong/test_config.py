"""Declarative configurations: what they may say, how they are nested, and what is refused, with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.config import FilterUse, read
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.filters import FilterFolder
from proxywasm_host.kong.schema import check_record
from proxywasm_host.kong.setup import Setup
from tests.support import code

WHOLE = """
_format_version: "1.1"
_transform: true
services:
- name: demo
  url: https://up.example/base
  filter_chains:
  - filters:
    - {name: first, config: {minute: 3}}
  routes:
  - name: r
    paths: [/, '~/a/(?<x>.*)']
    plugins: [{name: cors}]
    filter_chains:
    - name: rc
      filters:
      - {name: left-out, enabled: false, config: x}
      - {name: second, config: foo=bar}
routes:
- {name: top, hosts: [a.example], service: {name: demo}}
plugins:
- {name: key-auth, config: {hide: true}, route: top}
- {name: left-out, enabled: false}
upstreams:
- {name: pool, targets: [{target: 10.0.0.1}, {target: '10.0.0.2:81', weight: 50}]}
consumers:
- username: bob
  keyauth_credentials: [{key: secret}]
  acls: [{group: staff}]
basicauth_credentials:
- {consumer: bob, username: bob, password: p}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "kong.yaml"
        file.write_text(text)
        return file

    return write


def test_what_a_file_says_however_it_is_nested(written):
    configuration = read(written(WHOLE))
    [service] = configuration.of("services")
    assert [service[key] for key in ("protocol", "host", "port", "path", "retries")] == ["https", "up.example", 443, "/base", 5]
    assert [(route["name"], route["service"]["id"] == service["id"]) for route in configuration.of("routes")] == [("r", True), ("top", True)]
    r, top = (route["id"] for route in configuration.of("routes"))
    assert [(use.name, use.service, use.route, dict(use.config)) for use in configuration.plugins] == [("cors", None, r, {}), ("key-auth", None, top, {"hide": True})]
    assert {owner: [(use.name, use.config) for use in chain] for owner, chain in configuration.chains.items()} == {
        service["id"]: [("first", {"minute": 3})],
        r: [("second", "foo=bar")],
    }
    assert [target["target"] for target in configuration.of("targets")] == ["10.0.0.1:8000", "10.0.0.2:81"]
    [bob] = configuration.of("consumers")
    for collection, key in (("keyauth_credentials", "key"), ("acls", "group"), ("basicauth_credentials", "password")):
        [entity] = configuration.of(collection)
        assert (entity["consumer"], bool(entity[key]), bool(entity["id"])) == ({"id": bob["id"]}, True, True)


def test_ids_are_the_same_each_time_a_file_is_read(written):
    assert read(written(WHOLE)).entities == read(written(WHOLE)).entities


ROOT = Path(__file__).parents[2]
HEAD = '_format_version: "3.0"\n'
REFUSED = {
    "no version": ("services: []\n", "_format_version: is missing"),
    "version": ('_format_version: "9"\n', "kong.yaml:1: _format_version: '9': Input should be '1.1', '2.1' or '3.0'"),
    "unknown": (HEAD + "nonsense: 1\n", "kong.yaml:2: nonsense: is not known; see Kong's documentation"),
    "certificates": (HEAD + "certificates:\n- {cert: x}\n", "kong.yaml:2: certificates: is not supported: certificates are not read"),
    "ordering": (HEAD + "plugins:\n- name: a\n  ordering: {before: {access: [b]}}\n", "kong.yaml:4: plugins[0].ordering: is not supported: plugins run by their priorities"),
    "snis": (HEAD + "routes:\n- {paths: [/], snis: [a]}\n", "routes[0].snis: is not supported"),
    "active": (HEAD + "upstreams:\n- {name: a, healthchecks: {active: {unhealthy: {interval: 5}}}}\n", "kong.yaml:3: upstreams[0].healthchecks.active.unhealthy.interval: is not supported: targets are not probed"),
    "url": (HEAD + "services:\n- {name: a, url: example.com}\n", "services[0].url: 'example.com' is not the URL of a service"),
    "route": (HEAD + "routes:\n- {name: a}\n", "must set one of 'methods', 'hosts', 'headers', 'paths'"),
    "path": (HEAD + "routes:\n- {paths: [a]}\n", "routes[0].paths[0]: 'a' should start with: / (fixed path) or ~/ (regex path)"),
    "regex": (HEAD + "routes:\n- {paths: ['~/(']}\n", "is not a regular expression"),
    "service": (HEAD + "routes:\n- {paths: [/], service: none}\n", "kong.yaml:3: routes[0].service: no service is called 'none'"),
    "twice": (HEAD + "plugins:\n- {name: a}\n- {name: a}\n", "kong.yaml:4: plugins[1]: plugin 'a' is configured twice for the same requests"),
    "name twice": (HEAD + "services:\n- {name: a, host: x}\n- {name: a, host: y}\n", "kong.yaml:4: services[1]: another entity of services has the name 'a'"),
    "chain": (HEAD + "filter_chains:\n- filters: [{name: a}]\n", "kong.yaml:3: filter_chains[0]: a filter chain is for one route or for one service"),
    "credentials": (HEAD + "consumers:\n- {username: a, passwords: []}\n", "consumers[0].passwords: is not known"),
    "nobody": (HEAD + "consumers:\n- {tags: [a]}\n", "at least one of username and custom_id must be given"),
    "yaml": (HEAD + "a: [\n", "this is not YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(written, text, expected):
    with pytest.raises(ConfigError) as refused:
        read(written(text))
    assert expected in str(refused.value)


# What Kong Gateway 3 declares, by collection: its own names, and a value of each that is not its default; what is behind
# the line is not supported.
TAKEN = {
    "services": {
        "id": "5e000000-0000-4000-8000-000000000001", "name": "n", "created_at": 1, "updated_at": 1, "tags": ["t"], "enabled": False,
        "host": "h", "port": 81, "path": "/p", "protocol": "https", "retries": 1, "connect_timeout": 1, "read_timeout": 1,
        "write_timeout": 1, "tls_verify": True,
    },
    "routes": {
        "id": "5e000000-0000-4000-8000-000000000002", "name": "n", "created_at": 1, "updated_at": 1, "tags": ["t"], "protocols": ["https"],
        "methods": ["GET"], "hosts": ["a"], "paths": ["/"], "headers": {"a": ["b"]}, "https_redirect_status_code": 301,
        "regex_priority": 1, "strip_path": False, "path_handling": "v1", "preserve_host": True, "request_buffering": False,
        "response_buffering": False, "sources": None, "destinations": None, "service": None,
    },
    "upstreams": {
        "id": "5e000000-0000-4000-8000-000000000003", "name": "n", "created_at": 1, "updated_at": 1, "tags": ["t"],
        "algorithm": "least-connections", "hash_on": "none", "hash_fallback": "none", "hash_on_cookie_path": "/", "slots": 100,
        "host_header": "h", "use_srv_name": False,
        "healthchecks": {
            "threshold": 0,
            "passive": {"type": "http", "healthy": {"successes": 0, "http_statuses": [200]}, "unhealthy": {"http_failures": 3, "tcp_failures": 3, "timeouts": 3, "http_statuses": [429, 500, 503]}},
            "active": {"type": "http", "timeout": 1, "concurrency": 10, "http_path": "/", "https_sni": None, "https_verify_certificate": True, "headers": None, "healthy": {"interval": 0}, "unhealthy": {"interval": 0}},
        },
    },
    "targets": {"id": "5e000000-0000-4000-8000-000000000004", "created_at": 1, "updated_at": 1, "tags": ["t"], "target": "h:1", "weight": 1, "upstream": None},
    "consumers": {"id": "5e000000-0000-4000-8000-000000000005", "username": "u", "custom_id": "c", "created_at": 1, "updated_at": 1, "tags": ["t"]},
    "plugins": {
        "id": "5e000000-0000-4000-8000-000000000006", "name": "n", "instance_name": "i", "config": {"a": 1}, "enabled": False, "created_at": 1,
        "updated_at": 1, "tags": ["t"], "protocols": ["http", "tcp"], "service": None, "route": None, "consumer": None,
    },
    "filter_chains": {
        "id": "5e000000-0000-4000-8000-000000000007", "name": "n", "enabled": False, "created_at": 1, "updated_at": 1, "tags": ["t"],
        "service": None, "route": None, "filters": [{"name": "f", "enabled": False, "config": "x"}],
    },
}  # fmt: skip
NOT_SUPPORTED = {
    "services": {"protocol": "udp", "tls_verify_depth": 1, "ca_certificates": ["c"], "client_certificate": {"id": "c"}},
    "routes": {"protocols": ["tls_passthrough"], "snis": ["a"], "expression": "true", "priority": 1},
    "upstreams": {
        "algorithm": "latency", "hash_on": "ip", "hash_fallback": "ip", "hash_on_header": "a", "hash_fallback_header": "a", "hash_on_cookie": "a",
        "hash_on_query_arg": "a", "hash_fallback_query_arg": "a", "hash_on_uri_capture": "a", "hash_fallback_uri_capture": "a",
        "client_certificate": {"id": "c"}, "use_srv_name": True, "healthchecks.threshold": 50, "healthchecks.passive.healthy.successes": 1,
        "healthchecks.passive.unhealthy.http_statuses": [500], "healthchecks.active.healthy.interval": 1,
    },
    "plugins": {"protocols": ["udp"], "ordering": {"before": {}}, "condition": "x", "consumer_group": "g"},
}  # fmt: skip
NEEDED = {"services": {"host": "h"}, "routes": {"paths": ["/"]}, "upstreams": {"name": "n"}, "plugins": {"name": "n"}}


def nested(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def declared(written, collection, entity):
    extra = {"services": [{"name": "s", "host": "h"}]} if collection == "filter_chains" else {}
    return written(json.dumps({"_format_version": "3.0", **extra, collection: [entity]}))


@pytest.mark.parametrize("collection", TAKEN)
def test_every_field_of_kongs_that_is_taken(written, collection):
    entity = dict(TAKEN[collection])
    if collection == "filter_chains":
        entity["service"] = "s"
    if collection == "targets":
        entity["upstream"] = "u"
        file = written(json.dumps({"_format_version": "3.0", "upstreams": [{"name": "u"}], collection: [entity]}))
    else:
        file = declared(written, collection, entity)
    configuration = read(file)
    if collection not in ("plugins", "filter_chains"):  # those that are left out are left out
        [found] = configuration.of(collection)[-1:]
        assert {name: found[name] for name in entity if name not in ("upstream", "healthchecks")} == {name: entity[name] for name in entity if name not in ("upstream", "healthchecks")}


@pytest.mark.parametrize(
    ("collection", "path", "value"), [(collection, *field) for collection, fields in NOT_SUPPORTED.items() for field in fields.items()]
)
def test_every_field_of_kongs_that_is_not_supported_is_named_with_its_place(written, collection, path, value):
    with pytest.raises(ConfigError) as refused:
        read(declared(written, collection, {**NEEDED[collection], **nested(path, value)}))
    assert f"kong.yaml:1: {collection}[0].{path}: is not supported: " in str(refused.value)


def test_the_page_names_every_field():
    page = (ROOT / "docs/coming-from-kong.md").read_text()
    for collection, fields in TAKEN.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{collection}` |"))
        _, _, taken, refused, _ = row.split("|")
        assert set(re.findall(r"`([a-z_]+)`", taken)) == fields.keys()
        assert set(re.findall(r"`([a-z_]+)[`.: ]", refused)) == {path.partition(".")[0] for path in NOT_SUPPORTED.get(collection, ())}


# -- Filters -----------------------------------------------------------------------------------------------------------

SCHEMA = {"config_schema": {"type": "object", "properties": {"minute": {"type": "integer"}}, "required": ["minute"]}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plain.wasm").write_bytes(code("c/minimal"))
    (tmp_path / "checked.wasm").write_bytes(code("c/minimal"))
    (tmp_path / "checked.meta.json").write_text(json.dumps(SCHEMA))
    return FilterFolder(tmp_path)


def test_the_configuration_of_a_filter(folder):
    assert folder.filter(FilterUse("plain", "text", "f")).configuration == "text"
    assert folder.filter(FilterUse("plain", None, "f")).configuration == ""
    assert folder.filter(FilterUse("checked", {"minute": 3}, "f")).configuration == '{"minute": 3}'


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("plain", {"a": 1}, "f.yaml:3: here.config: filter 'plain' has no plain.meta.json"),
        ("checked", {"minute": "x"}, "f.yaml:3: here.config.minute: 'x' is not of type 'integer'"),
        ("checked", {}, "f.yaml:3: here.config: 'minute' is a required property"),
        ("chekced", None, "f.yaml:3: here: no filter is called 'chekced'"),
    ],
)
def test_a_configuration_that_a_filter_cannot_have(folder, name, config, expected):
    with pytest.raises(ConfigError) as refused:
        folder.filter(FilterUse(name, config, "f.yaml:3: here"))
    assert expected in str(refused.value)


def test_a_schema_that_is_none(tmp_path):
    (tmp_path / "a.wasm").write_bytes(code("c/minimal"))
    (tmp_path / "a.meta.json").write_text('{"config_schema": {"type": "nothing"}}')
    with pytest.raises(ConfigError, match=r"a.meta.json: config_schema is not a schema of draft 4"):
        FilterFolder(tmp_path)


def test_all_that_is_not_there_is_told_at_once(written):
    with pytest.raises(ConfigError) as refused:
        Setup(written(WHOLE), Environment(), [])
    lines = str(refused.value).splitlines()
    assert [line.partition("kong.yaml:")[2].partition(": ")[2] for line in lines] == [
        "services[0].routes[0].filter_chains[0].filters[1]: there are no filters: set KONG_WASM_FILTERS_PATH to their folder",
        "services[0].filter_chains[0].filters[0]: there are no filters: set KONG_WASM_FILTERS_PATH to their folder",
        "services[0].routes[0].plugins[0]: no plugin is called 'cors'. There is none.",
        "plugins[0]: no plugin is called 'key-auth'. There is none.",
    ]


def test_a_plugin_of_streams_alone_needs_a_protocol_of_streams(written):
    schema = {"name": "tcp-only", "fields": [{"config": {"type": "record", "fields": []}}]}
    plugin = {"Name": "tcp-only", "Priority": 1, "Version": "1", "Phases": ["preread"], "Schema": schema}
    server = SimpleNamespace(name="go", plugins=[plugin])
    with pytest.raises(ConfigError) as refused:
        Setup(written(HEAD + "plugins:\n- name: tcp-only\n"), Environment(), [server])
    assert "kong.yaml:3: plugins[0]: is not supported: the plugin has only phases of connections: give it protocols with tcp" in str(refused.value)
    Setup(written(HEAD + "plugins:\n- {name: tcp-only, protocols: [tcp]}\n"), Environment(), [server])


# -- Schemas of plugin servers, and the environment ---------------------------------------------------------------------

FIELDS = [
    {"minute": {"type": "integer", "required": True, "between": [1, 60]}},
    {"policy": {"type": "string", "one_of": ["local", "redis"], "default": "local"}},
    {"tags": {"type": "set", "elements": {"type": "string"}}},
    {"redis": {"type": "record", "required": True, "fields": [{"port": {"type": "integer", "default": 6379}}]}},
]


def test_defaults_of_a_schema():
    checked = check_record(FIELDS, {"minute": 3, "tags": ["a", "a"]}, "config")
    assert checked == {"minute": 3, "policy": "local", "tags": ["a"], "redis": {"port": 6379}}


def test_what_a_schema_refuses():
    with pytest.raises(ConfigError) as refused:
        check_record(FIELDS, {"minute": True, "policy": "x", "tags": "a", "redis": {"port": "x"}, "more": 1}, "config")
    assert str(refused.value).splitlines() == [
        "config.more: unknown field",
        "config.minute: expected an integer",
        "config.policy: expected one of: local, redis",
        "config.tags: expected a set",
        "config.redis.port: expected an integer",
    ]


def test_the_environment(tmp_path, caplog):
    settings = Environment.read(
        {
            "KONG_WASM_FILTERS_PATH": str(tmp_path),
            "KONG_TRUSTED_IPS": "10.0.0.0/8, ::1",
            "KONG_LUA_PACKAGE_PATH": "/opt/?.lua;/opt/?/init.lua;;",
            "KONG_PLUGINSERVER_NAMES": "my-go",
            "KONG_PLUGINSERVER_MY_GO_QUERY_CMD": "/x -dump",
            "KONG_PREFIX": "/tmp/kong",
            "KONG_STATUS_LISTEN": "0.0.0.0:1",
            "KONG_NGINX_WASM_WASMTIME_CACHE_CONFIG": "x",
            "KONG_NGINX_HTTP_PROXY_WASM_ISOLATION": "stream",
            "KONG_NGINX_WASM_SHM_KV_COUNTERS": "64k eviction=lru",
            "KONG_WASM_FILTERS": "bundled,limit",
            "KONG_LUA_MEMORY": "64m",
            "KONG_LUA_HANDLER_TIME": "off",
            "KONG_LUA_WRITABLE": "/var/log/kong, /tmp/x.log",
            "KONG_NGINX_MAIN_ENV": "PATH; MODE=test; NONE",
            "PATH": "/bin",
        }
    )
    assert (settings.filters_path, settings.trusted_ips, [str(each) for each in settings.lua_folders]) == (tmp_path, ("10.0.0.0/8", "::1"), ["/opt"])
    [server] = settings.servers
    assert (server.name, server.socket, server.start_cmd) == ("my-go", "/tmp/kong/my-go.socket", None)
    assert (settings.lua_memory, settings.lua_handler_time) == (64 << 20, None)
    assert [str(each) for each in settings.lua_writable] == ["/var/log/kong", "/tmp/x.log"]
    assert settings.lua_environment == {"PATH": "/bin", "MODE": "test"}
    assert (settings.isolation, settings.wasm_filters) == ("stream", {"limit"})
    assert {name: (zone.size, zone.eviction) for name, zone in settings.shm_kv.items()} == {"*": (12 << 20, "slru"), "counters": (64 << 10, "lru")}
    assert caplog.messages == [
        "KONG_STATUS_LISTEN has no effect here",
        "KONG_NGINX_WASM_WASMTIME_CACHE_CONFIG has no effect here: engines have their own options",
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KONG_NGINX_HTTP_PROXY_WASM_ISOLATION", "all", "must be none, stream or filter, not 'all'"),
        ("KONG_LUA_MEMORY", "much", "'much' is not a limit: write it as 256m, or off"),
        ("KONG_LUA_HANDLER_TIME", "0", "'0' is not a limit: write it as 1s, or off"),
        ("KONG_NGINX_WASM_SHM_KV_X", "4k", "Input should be greater than or equal to 12288"),
        ("KONG_NGINX_WASM_SHM_KV_X", "64k lru", "'64k lru' is not a zone: write it as 12m, or 12m eviction=lru"),
    ],
)
def test_the_environment_is_checked(name, value, said):
    with pytest.raises(ConfigError, match=f"^{name}.*{said}"):
        Environment.read({name: value})


def test_a_plugin_server_without_a_query_command():
    with pytest.raises(ConfigError, match="KONG_PLUGINSERVER_GO_QUERY_CMD is not set"):
        Environment.read({"KONG_PLUGINSERVER_NAMES": "go"})

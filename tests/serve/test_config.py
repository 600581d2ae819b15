"""Configurations: what they may say, and how an error tells where it is."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from proxywasm_host import FilterConfig
from proxywasm_host.cli import serve as cli
from proxywasm_host.driver.filters import Filter
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.filters import filters_of
from proxywasm_host.serve.reload import files_of
from proxywasm_host.serve.source import Source

ROOT = Path(__file__).parent.parent.parent

YAML = """\
upstream:
  url: http://127.0.0.1:9000
listen: :8000
filters:
  - file: auth.wasm
    configuration: {token: secret, list: [1, 2]}
    limits: {memory: 64MiB}
  - file: /opt/two.wasm
    configuration: plain text
properties:
  xds: {cluster_name: backend}
  node.weight: 3
clusters:
  idp: {url: https://idp.example.com, timeout: 2}
"""
TOML = """\
listen = ":8000"

[upstream]
url = "http://127.0.0.1:9000"

[[filters]]
file = "auth.wasm"
configuration = {token = "secret", list = [1, 2]}
limits.memory = "64MiB"

[[filters]]
file = "/opt/two.wasm"
configuration = "plain text"

[properties]
xds = {cluster_name = "backend"}
"node.weight" = 3

[clusters.idp]
url = "https://idp.example.com"
timeout = 2
"""


def source(tmp_path: Path, text: str, name: str = "serve.yaml", **overrides) -> Source:
    file = tmp_path / name
    file.write_text(text)
    return Source(file, overrides)


@pytest.mark.parametrize(("text", "name"), [(YAML, "serve.yaml"), (TOML, "serve.toml")])
def test_both_languages_say_the_same(tmp_path, text, name):
    settings = source(tmp_path, text, name).load()
    assert settings.listen == ("127.0.0.1", 8000)
    assert [filter.file for filter in settings.filters] == [tmp_path / "auth.wasm", Path("/opt/two.wasm")]
    assert [filter.configuration for filter in settings.filters] == [
        b'{"token": "secret", "list": [1, 2]}',
        b"plain text",
    ]
    assert settings.filters[0].limits.memory == 64 << 20
    assert settings.properties == {"xds.cluster_name": "backend", "node.weight": 3}
    assert settings.clusters["idp"].timeout == 2


def test_what_overrides_it(tmp_path):
    settings = source(tmp_path, YAML, upstream={"url": "http://other"}, filters=[{"file": "/x.wasm"}], workers=2).load()
    assert (settings.upstream.url, len(settings.filters), settings.workers) == ("http://other", 1, 2)
    assert settings.listen == ("127.0.0.1", 8000)


def test_a_text_stands_for_the_value_that_there_must_be(tmp_path):
    """A server may be written as its URL alone, a filter as its file."""
    text = "upstream: http://127.0.0.1:9000\nfilters: [auth.wasm, {file: two.wasm}]\nclusters: {idp: https://idp.example}\n"
    settings = source(tmp_path, text).load()
    assert settings.upstream.url == "http://127.0.0.1:9000"
    assert [filter.file for filter in settings.filters] == [tmp_path / "auth.wasm", tmp_path / "two.wasm"]
    assert settings.clusters["idp"].url == "https://idp.example"
    assert source(tmp_path, text, upstream={"url": "http://other"}).load().upstream.url == "http://other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstream: ftp://x", "serve.yaml:1: upstream.url: 'ftp://x' is not a URL of a server"),
        ("upstream: 8000", "serve.yaml:1: upstream: "),
        ("upstream: http://x\nclusters:\n  idp: idp", "serve.yaml:3: clusters.idp.url: 'idp' is not a URL of a server"),
        ("upstream: http://x\nfilters: auth.wasm", "serve.yaml:2: filters: "),
    ],
)
def test_a_text_that_does_not(tmp_path, text, says):
    with pytest.raises(ConfigError) as raised:
        source(tmp_path, text).load()
    assert says in str(raised.value)


def test_no_file_at_all():
    settings = Source(None, {"upstream": {"url": "http://x"}, "filters": [{"file": "a.wasm"}]}).load()
    assert settings.filters[0].file == Path.cwd() / "a.wasm"


WRONG = [
    ("  url: http://127.0.0.1:9000", "  url: ftp://x", 2, "upstream.url: 'ftp://x' is not a URL of a server: write it as http://HOST:PORT or https://HOST"),
    ("  url: http://127.0.0.1:9000", "  urls: http://x", 2, "upstream.urls: is not known; see proxywasm serve --schema"),
    ("  url: http://127.0.0.1:9000", "  timeout: 3", 1, "upstream: give either url or servers"),
    ("upstream:\n  url: http://127.0.0.1:9000\n", "", 1, "upstream: is missing"),
    ("properties:", "routes:\n  - {path: /, upstream: a}\nproperties:", 1, "upstream: upstream is for all requests: give either upstream, or upstreams and routes"),
    ("listen: :8000", "listen: here", 3, "listen: 'here' is not an address: write it as HOST:PORT, 127.0.0.1:8080 or [::1]:8080"),
    ("listen: :8000", "listen: x:99999", 3, "listen: 'x:99999' is not an address"),
    ("listen: :8000", "workers: 0", 3, "workers: 0: Input should be greater than 0"),
    ("listen: :8000", "workers: yes", 3, "workers: True is not a number"),
    ("listen: :8000", "stream_idle_timeout: on", 3, "stream_idle_timeout: True is not a number"),
    ("listen: :8000", "buffer_limit: no", 3, "buffer_limit: False is not a number"),
    ("{memory: 64MiB}", "{deadline: off}", 7, "filters[0].limits.deadline: False is not a number"),
    (", timeout: 2}", ", timeout: yes}", 14, "clusters.idp.timeout: True is not a number"),
    ("listen: :8000", "profile: nginx", 3, "profile: no profile is called 'nginx'. There are envoy, spec"),
    ("{memory: 64MiB}", "{memory: 64XB}", 7, "filters[0].limits.memory: '64XB' is not a size: write it as 1000, 64KiB or 256MiB"),
    ("{memory: 64MiB}", "{deadline: .nan}", 7, "filters[0].limits.deadline: nan: Input should be"),
    ("  - file: /opt/two.wasm", "  - file: /opt/two.wasm\n    nam: x", 9, "filters[1].nam: is not known; see proxywasm serve --schema"),
    ("    configuration: plain text", "    configuration: x\n    configuration_file: y", 8, "filters[1]: configuration and configuration_file are both given"),
    ("    configuration: plain text", "    failure_policy: never", 9, "filters[1].failure_policy: 'never': Input should be"),
    ("  node.weight: 3", "  node.weight: [3]", 12, "properties.node.weight: [3] is not a value of a property"),
    ("  node.weight: 3", '  node.weight: "\\ud800"', 12, "properties.node.weight: '\\ud800' is not Unicode text"),
    ("  node.weight: 3", "  node.weight: 99999999999999999999", 12, "properties.node.weight: "),
    ("  url: http://127.0.0.1:9000", "  url: http://127.0.0.1:9000/a b", 2, "upstream.url: 'http://127.0.0.1:9000/a b' is not a URL: percent-encode"),
    ("  url: http://127.0.0.1:9000", '  url: "http://127.0.0.1:9000/a\\r\\nX: y"', 2, "upstream.url: 'http://127.0.0.1:9000/a\\r\\nX: y' is not a URL"),
    ("  url: http://127.0.0.1:9000", "  url: http://ex\u00e4mple.com", 2, "upstream.url: 'http://ex\u00e4mple.com' is not a URL"),
    ("listen: :8000", "filters: [auth.wasm]\nlisten: :8000", 5, "filters is given twice"),
    ("{memory: 64MiB}", "{memory: 64MiB, memory: 1MiB}", 7, "filters[0].limits.memory is given twice"),
    ("  idp: {url: https://idp.example.com, timeout: 2}", "  idp: {url: idp}", 14, "clusters.idp.url: 'idp' is not a URL of a server"),
]  # fmt: skip


ROUTED = """\
listen: :8000
upstreams:
  one: {servers: [http://127.0.0.1:9000, {url: "http://127.0.0.1:9001", weight: 2}], balance: least_requests}
routes:
  - name: api
    hosts: ["*.example.com"]
    prefix: /v1/
    upstream: one
    filters: [auth.wasm]
"""
WRONG_ROUTES = [
    ("upstream: one", "upstream: two", 8, "routes[0].upstream: no upstream is called 'two'"),
    ("upstream: one", "path: /", 5, "routes[0]: give one of upstream, weighted, cluster_header, redirect and direct_response"),
    ("prefix: /v1/", "prefix: v1", 7, "routes[0].prefix: 'v1': String should match pattern '^/[!-~]*$'"),
    ("prefix: /v1/", "prefix: /v1/\n    path: /", 5, "routes[0]: give only one of path, prefix and regex"),
    ("prefix: /v1/", "regex: /(", 7, "routes[0].regex: '/(' is not a regular expression: unclosed group"),
    ("prefix: /v1/", "regex: /(?=x)", 7, "routes[0].regex: '/(?=x)' is not a regular expression: look-around"),
    ("prefix: /v1/", "regex: /.*\n    prefix_rewrite: /", 5, "routes[0]: prefix_rewrite needs a path or prefix, not a regex"),
    ('["*.example.com"]', '["example.com:80"]', 6, "routes[0].hosts[0]: 'example.com:80' is not a host: write it as"),
    ("weight: 2", "weight: 0", 3, "upstreams.one.servers[1].weight: 0: Input should be greater than 0"),
    ("http://127.0.0.1:9000,", "ftp://x,", 3, "upstreams.one.servers[0].url: 'ftp://x' is not a URL of a server"),
    ("servers:", "url: http://x, servers:", 3, "upstreams.one: give either url or servers"),
    ("balance: least_requests", "balance: random", 3, "upstreams.one.balance: 'random': Input should be"),
    ("balance: least_requests", "retry: {retry_on: [4xx]}", 3, "upstreams.one.retry.retry_on[0]: '4xx': Input should be '5xx'"),
    ("balance: least_requests", "retry: {}", 3, "upstreams.one.retry.retry_on: is missing"),
]  # fmt: skip


def test_routes_and_their_filters(tmp_path):
    settings = source(tmp_path, ROUTED).load()
    assert [(server.url, server.weight) for server in settings.upstreams["one"].all_servers] == [
        ("http://127.0.0.1:9000", 1),
        ("http://127.0.0.1:9001", 2),
    ]
    assert settings.chains == [[], [0]]
    assert tmp_path / "auth.wasm" in files_of(settings, source(tmp_path, ROUTED))


@pytest.mark.parametrize(("old", "new", "line", "says"), WRONG_ROUTES)
def test_an_error_in_routes_says_where(tmp_path, old, new, line, says):
    assert old in ROUTED
    with pytest.raises(ConfigError) as raised:
        source(tmp_path, ROUTED.replace(old, new)).load()
    assert f"{tmp_path}/serve.yaml:{line}: {says}" in str(raised.value)


@pytest.mark.parametrize(("old", "new", "line", "says"), WRONG)
def test_an_error_names_file_line_and_path(tmp_path, old, new, line, says):
    assert old in YAML
    with pytest.raises(ConfigError) as raised:
        source(tmp_path, YAML.replace(old, new)).load()
    assert f"{tmp_path}/serve.yaml:{line}: {says}" in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('memory = "64MiB"', 'memory = "64XB"', 9, "filters[0].limits.memory: '64XB' is not a size"),
        ('file = "/opt/two.wasm"', 'file = "/opt/two.wasm"\nnam = 1', 13, "filters[1].nam: is not known"),
        ("timeout = 2", "timeout = 0", 21, "clusters.idp.timeout: 0: Input should be greater than 0"),
        ('listen = ":8000"', 'listen = "here"', 1, "listen: 'here' is not an address"),
    ],
)
def test_an_error_in_toml(tmp_path, old, new, line, says):
    assert old in TOML
    with pytest.raises(ConfigError) as raised:
        source(tmp_path, TOML.replace(old, new), "serve.toml").load()
    assert f"{tmp_path}/serve.toml:{line}: {says}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("upstream: [", "a.yaml", "a.yaml:1: this is not YAML: "),
        ("- 1", "a.yaml", "a.yaml: a configuration is a mapping with at least the key 'upstream'"),
        ("", "a.yaml", "the configuration: upstream: is missing"[19:]),
        ("x: !!python/object:os.system {}", "a.yaml", "a.yaml:1: this is not YAML: could not determine a constructor"),
        ("a = ", "a.toml", "a.toml: this is not TOML: "),
    ],
)
def test_what_is_no_configuration(tmp_path, text, name, says):
    with pytest.raises(ConfigError) as raised:
        source(tmp_path, text, name).load()
    assert says in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*/none\.yaml: No such file"):
        Source(tmp_path / "none.yaml").load()
    (tmp_path / "latin.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        Source(tmp_path / "latin.yaml").load()


@pytest.mark.parametrize("text", ["upstream: &a {url: *a}", "a: 1\nupstream: &a [[1, *a]]", "upstream: &a\n  <<: *a"])
def test_an_alias_of_itself(tmp_path, text):
    with pytest.raises(ConfigError, match=r"serve\.yaml:\d: an alias refers to a value that contains it"):
        source(tmp_path, text).load()


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 12)
)


@pytest.mark.parametrize("text", [BOMB, MERGED, f"a: &a {'x' * 1000}\nb: [{', '.join(['*a'] * 10_000)}]"])
def test_aliases_that_make_much_of_little_are_not_followed(tmp_path, text):
    """Followed, they would be 10 ** 12 values."""
    with pytest.raises(ConfigError, match=r"serve\.yaml: its aliases make it \d+ times as large as its text"):
        source(tmp_path, text).load()


def test_aliases_are_followed_where_they_spare_writing(tmp_path):
    text = "upstream: {url: http://x}\nfilters:\n  - &a {file: /a.wasm, configuration: {b: 1}}\n  - *a\n  - {<<: *a, name: c}"
    settings = source(tmp_path, text).load()
    assert [(filter.name, filter.configuration) for filter in settings.filters] == [
        ("", b'{"b": 1}'),
        ("", b'{"b": 1}'),
        ("c", b'{"b": 1}'),
    ]


def configured(tmp_path: Path, value: str, name: str) -> bytes:
    text = {
        "serve.yaml": f"upstream: {{url: http://x}}\nfilters:\n  - file: /a.wasm\n    configuration: {{in: [0, {{since: {value}}}]}}",
        "serve.toml": f"upstream = {{url = 'http://x'}}\n[[filters]]\nfile = '/a.wasm'\nconfiguration = {{in = [0, {{since = {value}}}]}}",
    }[name]
    return source(tmp_path, text, name).load().filters[0].configuration


@pytest.mark.parametrize(
    ("name", "value", "json_"),
    [
        ("serve.yaml", "2024-01-01", '"2024-01-01"'),
        ("serve.yaml", "2024-01-01T10:00:00Z", '"2024-01-01T10:00:00Z"'),
        ("serve.yaml", "2024-01-01 10:00:00.5 +2", '"2024-01-01 10:00:00.5 +2"'),
        ("serve.yaml", "2024-13-45", '"2024-13-45"'),
        ("serve.yaml", "!!timestamp 2024-01-01", '"2024-01-01"'),
        ("serve.yaml", "{1: a}", '{"1": "a"}'),
        ("serve.yaml", "null", "null"),
        ("serve.toml", "2024-01-01", '"2024-01-01"'),
        ("serve.toml", "2024-01-01T10:00:00Z", '"2024-01-01T10:00:00+00:00"'),
        ("serve.toml", "2024-01-01T10:00:00", '"2024-01-01T10:00:00"'),
        ("serve.toml", "10:00:00", '"10:00:00"'),
    ],
)
def test_a_date_is_text_to_filters(tmp_path, name, value, json_):
    assert configured(tmp_path, value, name).decode() == f'{{"in": [0, {{"since": {json_}}}]}}'


@pytest.mark.parametrize(
    ("name", "line", "value", "says"),
    [
        ("serve.yaml", 4, ".nan", "in[1].since: nan is not a value of JSON"),
        ("serve.yaml", 4, "-.inf", "in[1].since: -inf is not a value of JSON"),
        ("serve.yaml", 4, "!!binary aGk=", "in[1].since: b'hi' is not a value of JSON"),
        ("serve.yaml", 4, "!!set {a, b}", "in[1].since: {"),
        ("serve.yaml", 4, "{on: 1}", "in[1].since: the key True is not text: put it in quotes"),
        ("serve.yaml", 4, "{null: 1}", "in[1].since: the key None is not text: put it in quotes"),
        ("serve.yaml", 4, "{1.5: 1}", "in[1].since: the key 1.5 is not text: put it in quotes"),
        ("serve.toml", 2, "nan", "in[1].since: nan is not a value of JSON"),
        ("serve.toml", 2, "inf", "in[1].since: inf is not a value of JSON"),
    ],
)
def test_what_json_has_no_form_for_is_told_with_its_path(tmp_path, name, line, value, says):
    with pytest.raises(ConfigError) as raised:
        configured(tmp_path, value, name)
    assert str(raised.value).startswith(
        f"{tmp_path}/{name}:{line + ('toml' in name) * 2}: filters[0].configuration.{says}"
    )


@pytest.mark.parametrize(
    "value", ["!!bool x", "!!int x", "!!float x", "!!binary ä", "9" * 5000, "{[a]: b}", "'\\", '"\\xZZ"']
)
def test_whatever_a_parser_raises_is_an_error_of_the_file(tmp_path, value):
    with pytest.raises(ConfigError, match=r"serve\.yaml.*: this is not YAML: "):
        configured(tmp_path, value, "serve.yaml")


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: it is a pipe or a device, not a file"):
        Source(tmp_path / "pipe.yaml").load()
    with pytest.raises(ConfigError, match=r"[Ii]s a directory"):
        Source(tmp_path).load()
    (tmp_path / "a.wasm").touch()
    for given in (
        {"file": "pipe.yaml"},
        {"file": "a.wasm", "configuration_file": "pipe.yaml"},
        {"file": "a.wasm", "vm_configuration_file": "pipe.yaml"},
    ):
        settings = source(tmp_path, json.dumps({"upstream": {"url": "http://x"}, "filters": [given]})).load()
        with pytest.raises((ConfigError, OSError), match="it is a pipe or a device, not a file"):
            list(filters_of(settings))


def test_the_command_line_names_files_that_are_read_again(tmp_path):
    """So that they can be watched; text is text."""
    file = tmp_path / "auth.json"
    file.write_text("one")
    options = dict.fromkeys(("root_id", "vm_id", "name", "engine", "failure_policy", "env"), ())
    context = cli.command.make_context(
        "serve",
        [
            "/a.wasm",
            "/b.wasm",
            "--upstream",
            "http://x",
            "--filter-config",
            f"@{file}",
            "--filter-config",
            "@@",
            "--vm-config",
            f"@{file}",
        ],
    )
    said = cli.overrides(context.params.pop("filters"), {**options, **context.params})
    settings = Source(None, said).load()
    assert [filter.configuration_file for filter in settings.filters] == [file, Path("@").absolute()]
    assert [filter.vm_configuration_file for filter in settings.filters] == [file, file]
    file.write_text("two")
    assert file in files_of(settings, Source(None, said))


def test_all_files_of_a_configuration_are_watched(tmp_path):
    tls = {name: f"{name}.pem" for name in ("ca", "certificate", "key")}
    settings = {
        "upstream": {"url": "https://x", "tls": tls},
        "clusters": {"c": {"url": "https://y", "tls": {"ca": "other.pem"}}},
        "filters": [
            {"file": "a.wasm", "configuration_file": "a.json", "vm_configuration_file": "b.json"},
            {"file": "b.wasm"},
        ],
    }
    given = source(tmp_path, json.dumps(settings))
    watched = [file.name for file in files_of(given.load(), given)]
    assert watched == [
        "serve.yaml",
        "a.wasm",
        "a.json",
        "b.json",
        "b.wasm",
        "ca.pem",
        "certificate.pem",
        "key.pem",
        "other.pem",
    ]


def test_guests_recover_by_default(tmp_path):
    [filter] = source(tmp_path, '{"upstream": {"url": "http://x"}, "filters": [{"file": "a.wasm"}]}').load().filters
    assert (filter.failure_policy, filter.reload_interval) == (FailurePolicy.FAIL_RELOAD, 0)


def test_the_schema_is_published():
    """Made with: proxywasm serve --schema > docs/serve.schema.json"""
    assert json.loads((ROOT / "docs/serve.schema.json").read_text()) == Settings.model_json_schema()


def test_a_configuration_can_say_whatever_there_is_to_say_of_a_filter():
    """But for what is the whole chain's, or an object of Python."""
    settings = Settings.model_validate({"upstream": "http://x", "filters": ["tests/filters/rust/auth.wasm"]})
    [written], [loaded] = settings.filters, filters_of(settings)
    told = type(written).model_fields
    assert {each.name for each in fields(FilterConfig)} - set(told) == {"code", "profile", "module_limits", "hostcalls"}
    as_from_python = Filter(loaded.code, "auth")
    differing = {
        each.name for each in fields(Filter) if getattr(loaded, each.name) != getattr(as_from_python, each.name)
    }
    assert differing == {"environment"}
    assert (loaded.environment, as_from_python.environment) == ({}, None)

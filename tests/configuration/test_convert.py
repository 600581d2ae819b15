"""``proxywasm convert``: what is written is read as what it was, and what cannot be said is listed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from proxywasm_host.cli.convert import FORMS, command
from proxywasm_host.configuration.writers import WRITERS
from proxywasm_host.serve.source import read_configuration
from tests.configuration.test_forms import APISIX, ENVOY, GATEWAY, HIGRESS, ISTIO, NGINX

OWN = """\
listen: 127.0.0.1:8081
upstreams:
  app: {url: "http://127.0.0.1:9000"}
routes:
- {prefix: /api/, upstream: app, prefix_rewrite: /}
- {path: /exact, upstream: app, methods: [GET]}
filters:
- file: /opt/one.wasm
  name: one
  configuration: {a: 1}
  failure_policy: fail_open
  limits: {memory: 64MiB}
workers: 2
"""


def converted(tmp_path, text: str, form: str, name: str = "given.yaml") -> tuple[str, list[str]]:
    (tmp_path / name).write_text(text)
    result = CliRunner().invoke(command, [str(tmp_path / name), "--to", form], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = [line.partition(": ")[2] for line in result.stderr.splitlines() if line.startswith("cannot be expressed in the form")]
    return result.stdout, said


def test_there_is_a_writer_for_each_form():
    assert tuple(WRITERS) == FORMS


@pytest.mark.parametrize(
    ("form", "cannot"),
    [
        ("own", []),
        ("envoy", ["filters[0].limits", "workers"]),
        ("istio", ["filters[0].limits", "listen", "upstreams", "routes", "workers"]),
        ("higress", ["filters[0].limits", "listen", "upstreams", "routes", "workers"]),
        ("gateway", ["filters[0].file: modules are files there"]),
        ("nginx", ["filters[0].failure_policy", "filters[0].limits", "routes[1].methods", "workers"]),
    ],
)
def test_what_cannot_be_said_is_listed(tmp_path, form, cannot):
    _, said = converted(tmp_path, OWN, form)
    if form == "gateway":
        assert "filters[0].file: modules come from servers and registries there" in said
    else:
        assert said == cannot


FILTERS = {
    "envoy": (
        "file",
        "configuration",
        "failure_policy",
        "root_id",
        "vm_configuration",
        "environment",
        "sha256",
        "capabilities",
    ),
    "istio": ("file", "configuration", "failure_policy", "root_id", "environment", "pull_policy"),
    "higress": ("file", "configuration", "failure_policy", "rules", "root_id", "pull_policy"),
    "gateway": ("file", "configuration", "root_id", "pull_policy"),
    "nginx": ("file", "configuration", "vm_configuration"),
}
"""What each form can say of a filter, as far as these examples have it."""


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        (ENVOY, "e.yaml", "envoy"),
        (ISTIO, "i.yaml", "istio"),
        (HIGRESS, "h.yaml", "higress"),
        (GATEWAY, "g.yaml", "gateway"),
        (NGINX.replace("proxy_wasm auth '{\"a\": 1}'; proxy_wasm headers; ", ""), "nginx.conf", "nginx"),
        (APISIX, "a.yaml", "own"),
        (ISTIO, "i.yaml", "higress"),
        (HIGRESS, "h.yaml", "own"),
    ],
)
def test_what_is_written_is_read_as_what_it_was(tmp_path, text, name, form):
    written, _ = converted(tmp_path, text, form, name)
    again = tmp_path / ("again.conf" if form == "nginx" else "again.yaml")
    again.write_text(written)
    before = read_configuration(tmp_path / name)[0]
    after = read_configuration(again)[0]
    if form == "own":
        assert after == before
        return
    shown = FILTERS[form]
    assert [said(each, shown) for each in after["filters"]] == [said(each, shown) for each in before["filters"]]
    if form in ("envoy", "nginx"):
        assert len(after["routes"]) == len(before["routes"])
        assert [route.get("prefix_rewrite") for route in after["routes"]] == [
            route.get("prefix_rewrite") for route in before["routes"]
        ]


def said(filter: dict, names: tuple[str, ...]) -> dict:
    found = {name: filter.get(name) for name in names}
    found["file"] = found["file"].removeprefix("file://")
    return found


def test_strict_fails_if_something_cannot_be_said(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    assert CliRunner().invoke(command, [str(tmp_path / "own.yaml"), "--to", "envoy", "--strict"]).exit_code == 1


def test_a_module_that_stands_in_the_configuration(tmp_path):
    inline = "data:application/wasm;base64,AGFzbQEAAAA="
    text = OWN.replace("/opt/one.wasm", inline)
    assert inline in text
    envoy, said = converted(tmp_path, text, "envoy")
    assert "inline_bytes: AGFzbQEAAAA=" in envoy
    own, _ = converted(tmp_path, envoy, "own", "envoy.yaml")
    assert inline in own
    _, said = converted(tmp_path, text, "nginx")
    assert "filters[0].file: modules are files there" in said


def test_routes_that_share_redirect_and_answer_are_read_as_they_were(tmp_path):
    own = """\
upstreams:
  old: {url: "http://127.0.0.1:9000"}
  new: {url: "http://127.0.0.1:9001"}
routes:
- {path: /moved, redirect: {scheme: https, host: example.org, port: 8443, path: /here, strip_query: true, status: 308}}
- {prefix: /old/, redirect: {prefix_rewrite: /new/}}
- {path: /says, direct_response: {status: 418, body: A teapot.}}
- {weighted: {old: 9, new: 1}}
filters:
- {file: /opt/one.wasm, name: one}
"""
    written, said = converted(tmp_path, own, "envoy")
    assert said == []
    (tmp_path / "envoy.yaml").write_text(written)
    before, after = (read_configuration(tmp_path / name)[0] for name in ("given.yaml", "envoy.yaml"))
    targets = ("redirect", "direct_response", "weighted")
    assert [[route.get(key) for key in targets] for route in after["routes"]] == [
        [route.get(key) for key in targets] for route in before["routes"]
    ]

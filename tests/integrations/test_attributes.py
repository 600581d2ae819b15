"""docs/attributes.md: who says which of Envoy's attributes."""

from __future__ import annotations

import re
from pathlib import Path

from proxywasm_host import Host
from proxywasm_host.integrations.asgi import scope
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.integrations.wsgi import environ
from proxywasm_host.runtime.properties import STREAM_PROPERTIES
from tests.support import REQUEST

ROOT = Path(__file__).parents[2]
TABLE = re.findall(
    r"^\| `(\S+)` \| (host|carriers|ASGI, serve|serve|you) \|",
    (ROOT / "docs/attributes.md").read_text("utf-8"),
    re.MULTILINE,
)
PLUGIN = {"plugin_name", "plugin_root_id", "plugin_vm_id"}
ENVIRON = {
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "4711",
    "SERVER_NAME": "192.0.2.2",
    "SERVER_PORT": "80",
}


def said_by(*who: str) -> set[str]:
    return {name for name, says in TABLE if says in who}


def test_what_every_host_says():
    assert said_by("host") == {*STREAM_PROPERTIES, *PLUGIN, "filter_state"}


def test_what_carriers_say():
    of_node = set(of_this_node({}))
    assert said_by("carriers", "ASGI, serve") == {*scope.FIND, *of_node}
    assert set(environ.properties(ENVIRON)) <= said_by("carriers")


def test_what_serve_says():
    """Its data plane is in Rust."""
    source = (ROOT / "dataplane/src/filters.rs").read_text("utf-8")
    assert said_by("serve") == set(re.findall(r'"((?:xds|upstream)\.\w+)"', source))


def test_what_is_absent_has_a_reason():
    page = (ROOT / "docs/attributes.md").read_text("utf-8")
    reasons = re.findall(r"^\| `\S+` \| you \| *(.*?) *\|$", page, re.MULTILINE)
    assert len(reasons) == len(said_by("you"))
    assert "" not in reasons


def test_the_rest_is_found_if_it_is_given(engine, probe, log):
    names = sorted(said_by("you", "carriers", "ASGI, serve", "serve"))
    asked = "".join(f"get_property {name.replace('.', '%00')}\n" for name in names)
    plugin = probe(f"@on_request_headers\n{asked}")
    for given, status in (({}, 1), (dict.fromkeys(names, "given"), 0)):
        with plugin.host.http_stream([plugin], properties=given) as stream:
            stream.request_headers(REQUEST)
        answers = [re.search(r"\) = (\d+)", line) for line in log.take()]
        assert [int(found[1]) for found in answers if found] == [status] * len(names)
    assert isinstance(plugin.host, Host)

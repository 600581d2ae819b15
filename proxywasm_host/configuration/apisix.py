"""Reads APISIX: ``wasm.plugins`` of its ``config.yaml``, and the routes and global rules of its ``apisix.yaml``.

One file may have both, in one document or two. The route or rule that uses a plugin has its configuration (``conf``).
Plugins of the phase ``rewrite`` come before those of ``access``; in each phase the highest priority is first. Routes
with a host are tried before others, whole paths before prefixes, and longer prefixes before shorter ones.
Source: APISIX's ``apisix/wasm.lua`` and ``apisix/plugin.lua``, and its documentation of radix trees.
"""

from __future__ import annotations

import json
from typing import Any

from proxywasm_host.configuration.node import Document, Node
from proxywasm_host.configuration.own import Own

__all__ = ["fits", "put"]

OURS = "serve has its own"
Plugins = dict[str, tuple[int, int, dict[str, Any]]]
"""By name: the phase (0 is the first), the priority, and the filter in the own form."""


def fits(data: Any) -> bool:
    """Whether a document is APISIX's."""
    if not isinstance(data, dict):
        return False
    wasm = data.get("wasm")
    return (isinstance(wasm, dict) and "plugins" in wasm) or any(
        isinstance(route, dict) and ("uri" in route or "uris" in route)
        for route in data.get("routes") or ()
        if isinstance(data.get("routes"), list)
    )


def put(documents: list[Document], own: Own) -> None:
    """Put documents into the own form."""
    plugins: Plugins = {}
    for document in documents:
        wasm = document.root.take("wasm")
        for each in wasm.take("plugins").each():
            name = each.take("name").text()
            made = {"file": each.take("file").text(), "name": name, "failure_policy": "fail_closed"}
            phase = each.take("http_request_phase").among({"rewrite": 0, "access": 1}, 1)
            plugins[name] = phase, each.take("priority").number(), made
            each.done()
        wasm.done()
    used = False
    for document in documents:
        root = document.root
        root.drop("wasm")
        root.ignore(
            OURS,
            "apisix",
            "deployment",
            "nginx_config",
            "plugins",
            "plugin_attr",
            "discovery",
            "stream_plugins",
            "ext-plugin",
        )
        upstreams = {str((each.value or {}).get("id")): each for each in root.take("upstreams").each()}
        for each in root.take("global_rules").each():
            each.drop("id")
            used = True
            for made, node in _chain(each.take("plugins"), plugins):
                own.add(made, node, "filters")
            each.done()
        routes: list[tuple[dict[str, Any], int, Node]] = []
        for number, each in enumerate(root.take("routes").each()):
            used = True
            routes += _routes(each, number, upstreams, plugins, own)
        for route, _, each in sorted(routes, key=lambda one: _precedence(*one[:2])):
            own.add(route, each, "routes")
        root.done()
    if not used:  # a config.yaml alone: all of its plugins
        for _, _, made in sorted(plugins.values(), key=lambda each: (each[0], -each[1])):
            own.add(made, documents[0].root, "filters")


def _precedence(route: dict[str, Any], priority: int) -> tuple[bool, bool, int, int]:
    """The sort key of a route: the least one is tried first."""
    path = route.get("path", route.get("prefix", ""))
    return "hosts" not in route, "path" not in route, -len(path), -priority


def _chain(node: Node, plugins: Plugins) -> list[tuple[dict[str, Any], Node]]:
    found: list[tuple[int, int, int, dict[str, Any], Node]] = []
    for name, each in node.entries():
        if name not in plugins:
            each.wrong(f"{name!r} is not one of wasm.plugins; APISIX's own plugins are not supported")
            continue
        phase, priority, made = plugins[name]
        conf = each.take("conf")
        text = (
            conf.value if isinstance(conf.value, str) else json.dumps(conf.value, separators=(",", ":")) if conf else ""
        )
        meta = each.take("_meta")
        disabled = meta.take("disable").flag()
        priority = meta.take("priority").number(priority)
        meta.done()
        each.done()
        if disabled:
            each.warn("it is disabled")
        else:
            found.append((phase, -priority, len(found), made | ({"configuration": text} if text else {}), each))
    return [(made, each) for *_, made, each in sorted(found, key=lambda each: each[:3])]


def _routes(
    node: Node, number: int, upstreams: dict[str, Node], plugins: Plugins, own: Own
) -> list[tuple[dict[str, Any], int, Node]]:
    """A route for each path of a node, with its priority among routes with the same path."""
    name = node.take("id").text() or node.take("name").text()
    node.drop("name", "desc", "labels")
    disabled = node.take("status").number(1) == 0
    uris = [each.text() for each in (node.take("uris") or node.take("uri")).each()]
    hosts = [each.text() for each in (node.take("hosts") or node.take("host")).each()]
    methods = [each.text() for each in node.take("methods").each()]
    priority = node.take("priority").number()
    own_upstream = node.take("upstream") or upstreams.get(node.take("upstream_id").text())
    filters = [made for made, _ in _chain(node.take("plugins"), plugins)]
    if own_upstream is None or not own_upstream:
        node.wrong("has no upstream")
        return []
    label = f"{name or number}"
    upstream = _upstream(own_upstream)
    made = []
    for uri in uris:
        route: dict[str, Any] = {"prefix": uri[:-1]} if uri.endswith("*") else {"path": uri}
        route = {} if uri == "/*" else route
        route |= {"name": name} if name else {}
        route |= {key: value for key, value in (("hosts", hosts), ("methods", methods), ("filters", filters)) if value}
        made.append(({**route, "upstream": label}, priority, node))
    node.done()
    if disabled:
        node.warn("its status is 0")
        return []
    own.put(upstream, own_upstream, "upstreams", label)
    return made


def _upstream(node: Node) -> dict[str, Any]:
    scheme = node.take("scheme").text("http")
    nodes = node.take("nodes")
    servers = []
    if isinstance(nodes.value, dict):
        servers = [{"url": f"{scheme}://{host}", "weight": weight.number(1)} for host, weight in nodes.entries()]
    for each in nodes.each() if isinstance(nodes.value, list) else ():
        servers.append(
            {
                "url": f"{scheme}://{each.take('host').text()}:{each.take('port').number(80)}",
                "weight": each.take("weight").number(1),
            }
        )
        each.done()
    if not servers:
        node.wrong("has no nodes")
    made: dict[str, Any] = {"servers": servers} if len(servers) > 1 else {"url": servers[0]["url"]} if servers else {}
    kind = node.take("type").among(
        {"roundrobin": "round_robin", "least_conn": "least_requests", "chash": "round_robin", "ewma": "least_requests"},
        "round_robin",
    )
    if len(servers) > 1:
        made["balance"] = kind
    if node.take("pass_host").text("pass") == "node":
        made["rewrite_host"] = True
    node.drop("id", "name")
    node.ignore(OURS, "timeout", "retries", "checks", "keepalive_pool", "hash_on", "key")
    node.done()
    return made

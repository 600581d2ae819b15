"""Reads Kubernetes resources that describe filters: of Istio, Higress, Envoy Gateway and Kuma.

They name no upstreams; the command line or our own form does.
"""

from __future__ import annotations

from typing import Any

import yaml

from proxywasm_host.configuration.node import Document, Node
from proxywasm_host.configuration.own import Own
from proxywasm_host.configuration.plugin_config import filter_of, host_variable, plugin_of

__all__ = ["KINDS", "kind_of", "put"]

WHERE = "it runs for all requests here"
PHASES = {"AUTHN": 0, "AUTHZ": 1, "STATS": 2, "UNSPECIFIED_PHASE": 3, "": 3}
STRATEGIES = {"FAIL_CLOSE": "fail_closed", "FAIL_OPEN": "fail_open", "FAIL_RELOAD": "fail_reload"}
PULL = {"UNSPECIFIED_POLICY": None, "IfNotPresent": "IfNotPresent", "Always": "Always"}
OF_METADATA = """
    namespace labels annotations uid resourceVersion generation creationTimestamp managedFields finalizers
    ownerReferences generateName selfLink
""".split()  # noqa: SIM905 - words, which say nothing of what is served
KINDS = ("WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy", "MeshProxyPatch")


def kind_of(data: Any) -> str | None:
    """The kind of a document; ``None`` if it is not one of `KINDS`."""
    if not isinstance(data, dict):
        return None
    kind = data.get("kind") if "apiVersion" in data else data.get("type")
    return kind if kind in KINDS else None


def put(documents: list[Document], own: Own) -> None:
    """Put resources into the own form: filters in the order in which gateways run them."""
    found: list[tuple[tuple[int, int, int], dict[str, Any], Node]] = []
    for number, document in enumerate(documents):
        root = document.root
        kind = kind_of(document.data)
        root.drop("apiVersion", "kind", "status")
        metadata = root.take("metadata")
        name = metadata.take("name").text() or root.take("name").text()
        metadata.drop(*OF_METADATA)
        metadata.done()
        root.drop("type", "mesh", "name")
        spec = root.take("spec")
        spec.ignore(WHERE, "selector", "targetRef", "targetRefs", "targetSelectors")
        if kind == "WasmPlugin":
            higress = "higress" in str(document.data["apiVersion"])
            found.append(_istio(spec, spec, name, number, higress=higress))
        elif kind == "TrafficExtension":
            if spec.has("lua"):
                spec.take("lua").wrong("scripts in Lua are not supported")
            wasm = spec.take("wasm")
            if wasm:
                found.append(_istio(spec, wasm, name, number, higress=False))
                wasm.done()
        elif kind == "EnvoyExtensionPolicy":
            found += [((0, number, at), made, node) for at, (made, node) in enumerate(_gateway(spec, name))]
        else:
            found += [((0, number, at), made, node) for at, (made, node) in enumerate(_kuma(spec))]
        spec.done()
        root.done()
    for _, made, node in sorted(found, key=lambda each: each[0]):
        own.add(made, node, "filters")


def _istio(
    spec: Node, wasm: Node, name: str, number: int, *, higress: bool
) -> tuple[tuple[int, int, int], dict[str, Any], Node]:
    plugin_name = wasm.take("pluginName").text()
    made: dict[str, Any] = {
        "file": _url(wasm.take("url")),
        "sha256": wasm.take("sha256").text(),
        "pull_policy": wasm.take("imagePullPolicy").among(PULL),
        "name": plugin_name or name,
        "root_id": plugin_name,
        "configuration": wasm.take("pluginConfig").value,
        "failure_policy": wasm.take("failStrategy").among(STRATEGIES, "fail_closed"),
        "environment": _environment(wasm.take("vmConfig")),
    }
    if made["failure_policy"] == "fail_reload":
        made["reload_interval"] = 1.0
    wasm.ignore("credentials are Docker's, see `modules.docker_config`", "imagePullSecret", "verificationKey")
    if wasm.take("type").text("HTTP") not in ("HTTP", "UNSPECIFIED_PLUGIN_TYPE"):
        wasm.take("type").wrong("a filter of TCP connections needs a listener: write both under `tcp` in the own form")
    for match in spec.take("match").each():
        if match.take("mode").text() == "CLIENT":
            match.wrong("is for outgoing requests, and serve carries incoming ones")
        match.ignore("there is one port", "ports")
        match.done()
    if higress:
        _rules(spec, made)
    order = PHASES.get(spec.take("phase").text(), 3), -spec.take("priority").number(), number
    return order, {key: value for key, value in made.items() if value not in (None, "", {})}, wasm


def _rules(spec: Node, made: dict[str, Any]) -> None:
    """Convert Higress's rules: configurations for some requests, of which the first that matches counts."""
    rules = []
    for each in spec.take("matchRules").each():
        given = {
            "routes": [item.text() for item in each.take("ingress").each()],
            "hosts": [item.text() for item in each.take("domain").each()],
            "clusters": [item.text() for item in each.take("service").each()],
        }
        given = {key: value for key, value in given.items() if value}
        for one, names in (given or {"": []}).items():  # one match is enough there; a rule here needs all
            rule: dict[str, Any] = {one: names} if one else {}
            if each.take("configDisable").flag():
                rule["disabled"] = True
            else:
                rule["configuration"] = each.take("config").value or {}
            rules.append(rule)
        each.drop("config")
        each.ignore("there is one kind of routes here", "routeType")
        each.done()
    if spec.has("defaultConfig"):
        made["configuration"] = spec.take("defaultConfig").value
    if spec.take("defaultConfigDisable").flag():
        rules.append({"disabled": True})
    if rules:
        made["rules"] = rules


def _url(url: Node) -> str:
    """The location of the module: a path, a URL, or (without a scheme) an image."""
    text = url.text()
    if not text:
        url.wrong("is missing: it says where the module is")
    return text if "://" in text or text[:1] in "./" else f"oci://{text}"


def _environment(vm: Node) -> dict[str, str]:
    made: dict[str, str] = {}
    for each in vm.take("env").each():
        name = each.take("name")
        if each.take("valueFrom").text("INLINE") == "HOST":
            made |= host_variable(name)
        else:
            made[name.text()] = each.take("value").text()
        each.drop("value")
        each.done()
    vm.done()
    return made


def _gateway(spec: Node, name: str) -> list[tuple[dict[str, Any], Node]]:
    for other in ("extProc", "lua", "dynamicModule"):
        for node in spec.take(other).each():
            node.wrong(f"{other} is not a Wasm filter, and is not supported")
    found = []
    for number, wasm in enumerate(spec.take("wasm").each()):
        code = wasm.take("code")
        kind = code.take("type").text()
        source = code.take("http" if kind == "HTTP" else "image")
        source.ignore("see `modules`", "tls", "pullSecretRef")
        url = source.take("url").text()
        if not url:
            code.wrong("has neither http.url nor image.url")
        made = {
            "file": url if "://" in url else f"oci://{url}",
            "sha256": source.take("sha256").text(),
            "pull_policy": code.take("pullPolicy").among(PULL),
            "name": wasm.take("name").text() or f"{name}/{number}",
            "root_id": wasm.take("rootID").text(),
            "configuration": wasm.take("config").value,
            "failure_policy": "fail_open" if wasm.take("failOpen").flag() else "fail_closed",
        }
        environment: dict[str, str] = {}
        env = wasm.take("env")
        for key in env.take("hostKeys").each():
            environment |= host_variable(key)
        env.done()
        made["environment"] = environment
        for each in (source, code, wasm):
            each.done()
        found.append(({key: value for key, value in made.items() if value not in (None, "", {})}, wasm))
    return found


def _kuma(spec: Node) -> list[tuple[dict[str, Any], Node]]:
    """The filters of patches that add a Wasm filter for HTTP, in the order of the chain."""
    first: list[tuple[dict[str, Any], Node]] = []
    last: list[tuple[dict[str, Any], Node]] = []
    default = spec.take("default")
    for each in default.take("appendModifications").each():
        for kind, patch in each.entries():
            if kind != "httpFilter":
                patch.wrong("only patches of httpFilter are supported")
                continue
            operation = patch.take("operation").text()
            patch.ignore(WHERE, "match")
            filter = _written(patch.take("value"))
            plugin = plugin_of(filter) if filter is not None else None
            if operation not in ("AddFirst", "AddLast", "AddBefore", "AddAfter"):
                patch.wrong(
                    f"the operation {operation!r} needs filters that are not here; AddFirst and AddLast are supported"
                )
            elif plugin is None:
                patch.take("value").wrong("is not Envoy's Wasm filter")
            else:
                made = filter_of(plugin), plugin
                if operation == "AddFirst":
                    first.insert(0, made)
                else:
                    last.append(made)
            patch.done()
    default.done()
    return first + last


def _written(value: Node) -> Node | None:
    """A filter that is written as YAML within YAML; ``None`` if it is missing or not YAML."""
    if not isinstance(value.value, str):
        return value or None
    try:
        return Node(yaml.safe_load(value.value), value.path, value.document)
    except yaml.YAMLError as error:
        value.wrong(f"is not YAML: {getattr(error, 'problem', error)}")
        return None

"""Reads Envoy's description of a filter: ``envoy.extensions.wasm.v3.PluginConfig``, in each of its usual forms."""

from __future__ import annotations

import base64
import binascii
import os
import struct
from typing import Any

from proxywasm_host import protobuf
from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, WASI
from proxywasm_host.configuration.node import Node

__all__ = ["NETWORK_WASM", "any_value", "filter_of", "plugin_of", "type_of"]

WASM = ("envoy.extensions.filters.http.wasm.v3.Wasm", "envoy.config.filter.http.wasm.v3.Wasm")
NETWORK_WASM = ("envoy.extensions.filters.network.wasm.v3.Wasm", "envoy.config.filter.network.wasm.v3.Wasm")
TYPED_STRUCT = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
POLICIES = {
    "UNSPECIFIED": "fail_closed",
    "FAIL_RELOAD": "fail_reload",
    "FAIL_CLOSED": "fail_closed",
    "FAIL_OPEN": "fail_open",
}


CAPABILITIES = frozenset(row.name for row in (*HOSTCALLS, *WASI, *CALLBACKS))


def type_of(config: Node) -> str:
    """The type of the message in an ``Any``; for a ``TypedStruct``, the type that it represents."""
    named = config.take("@type").text().rpartition("/")[2]
    return config.take("type_url").text().rpartition("/")[2] if named in TYPED_STRUCT else named


def plugin_of(filter: Node, types: tuple[str, ...] = WASM) -> Node | None:
    """The plugin of a filter, if its type is one of `types`: by default, Envoy's Wasm filters for HTTP."""
    config = filter.take("typed_config") or filter.take("config")
    named = config.value.get("@type", "").rpartition("/")[2] if isinstance(config.value, dict) else ""
    if named in TYPED_STRUCT:
        if type_of(config) not in types:
            return None
        wasm = config.take("value")
        config.done()
    elif named in types:
        config.take("@type")
        wasm = config
    else:
        return None
    plugin = wasm.take("config")
    wasm.done()
    return plugin


def filter_of(plugin: Node) -> dict[str, Any]:
    """The filter that a ``PluginConfig`` describes, in the own form."""
    made: dict[str, Any] = {}
    vm = plugin.take("vm_config")
    made |= code_of(vm.take("code"))
    made |= {
        "name": plugin.take("name").text(),
        "root_id": plugin.take("root_id").text(),
        "vm_id": vm.take("vm_id").text(),
        "configuration": any_value(plugin.take("configuration")),
        "vm_configuration": any_value(vm.take("configuration")),
        "environment": environment_of(vm.take("environment_variables")),
    }
    policy = plugin.take("failure_policy").among(POLICIES, "fail_closed")
    if plugin.take("fail_open").flag():
        if policy != "fail_closed":
            plugin.wrong("fail_open and failure_policy are both given: remove fail_open")
        policy = "fail_open"
    made["failure_policy"] = policy
    reload_config = plugin.take("reload_config")
    reload = reload_config.take("backoff")
    if policy == "fail_reload":
        made["reload_interval"] = reload.take("base_interval").seconds() or 1.0
        reload.ignore("the back-off has its own bound", "max_interval")
        reload.done()
        reload_config.done()
    elif reload_config:
        reload_config.warn("it applies only to FAIL_RELOAD")
    restriction = plugin.take("capability_restriction_config")
    if restriction and restriction.has("allowed_capabilities"):
        allowed = restriction.take("allowed_capabilities")
        made["capabilities"] = [name for name, _ in allowed.entries()] or None
        for name, sanitization in allowed.entries():
            if name not in CAPABILITIES:
                sanitization.note("no hostcall and no callback has this name")
            sanitization.done()  # it has no fields yet, in Envoy either
    restriction.done()
    made["allow_on_headers_stop_iteration"] = plugin.take("allow_on_headers_stop_iteration").flag()
    vm.ignore("`engine` chooses the engine", "runtime")
    vm.ignore("modules are compiled here", "allow_precompiled")
    vm.ignore("requests wait until the module is loaded", "nack_on_code_cache_miss")
    vm.done()
    plugin.done()
    return {name: value for name, value in made.items() if value not in ("", {}, None, False)}


def code_of(code: Node) -> dict[str, Any]:
    """The location of the module in an ``AsyncDataSource``, in the own form."""
    local, remote = code.take("local"), code.take("remote")
    made: dict[str, Any] = {}
    if remote:
        uri = remote.take("http_uri")
        made["file"] = uri.take("uri").text()
        made["sha256"] = remote.take("sha256").text()
        uri.ignore("modules are fetched by their URL, and by `modules`", "cluster", "timeout")
        remote.ignore("see `modules`", "retry_policy")
        uri.done()
        remote.done()
    elif local.has("filename"):
        made["file"] = local.take("filename").text()
        local.done()
    elif local.has("inline_bytes") or local.has("inline_string"):
        given = local.take("inline_bytes")
        data = given.text() or base64.b64encode(local.take("inline_string").text().encode()).decode()
        made["file"] = f"data:application/wasm;base64,{''.join(data.split())}"
        local.done()
    elif local:
        local.wrong("give the module as a file, inline, or by its URL: filename, inline_bytes, or remote")
    else:
        code.wrong("does not say where the module is: write local or remote")
    code.done()
    return made


def environment_of(variables: Node) -> dict[str, str]:
    """Environment variables with their values; those named as ``host_env_keys`` have this process's values."""
    made = {name: value.text() for name, value in variables.take("key_values").entries()}
    for key in variables.take("host_env_keys").each():
        made |= host_variable(key)
    variables.done()
    return made


def host_variable(key: Node) -> dict[str, str]:
    """A variable with its value in this process; nothing if it is not set."""
    name = key.text()
    return {name: os.environ[name]} if name in os.environ else {}


def any_value(node: Node) -> Any:
    """The content of an ``Any`` as a filter gets it, text or bytes; ``None`` if it is missing or wrong."""
    if not node:
        return None
    if not isinstance(node.value, dict) or "@type" not in node.value:
        node.wrong("is an Any: give its @type, such as type.googleapis.com/google.protobuf.StringValue")
        return None
    kind = type_of(node)
    value = node.take("value")
    if kind == "google.protobuf.StringValue":
        made: Any = value.text()
    elif kind == "google.protobuf.BytesValue":
        made = decoded(value)
    elif kind == "google.protobuf.Struct":
        node.note("Envoy passes filters a Struct as a protobuf message, not as JSON: use StringValue")
        made = struct_bytes(value.value or {})
    else:
        node.wrong(f"{kind or 'nothing'} cannot configure a filter: use StringValue, BytesValue or Struct")
        return None
    node.done()
    return made


def struct_bytes(values: dict[str, Any]) -> bytes:
    """The encoding of a ``google.protobuf.Struct``, which Envoy passes to a filter that is configured with one."""
    entries = (protobuf.field(1, str(key)) + protobuf.field(2, _value(values[key])) for key in sorted(values))
    return b"".join(protobuf.field(1, entry) for entry in entries)


def _value(value: Any) -> bytes:
    """The encoding of a ``google.protobuf.Value``."""
    if value is None or isinstance(value, bool):
        return protobuf.field(1 if value is None else 4, int(bool(value)))
    if isinstance(value, (int, float)):
        return b"\x11" + struct.pack("<d", value)
    if isinstance(value, dict):
        return protobuf.field(5, struct_bytes(value))
    if isinstance(value, list):
        return protobuf.field(6, b"".join(protobuf.field(1, _value(item)) for item in value))
    return protobuf.field(3, str(value))


def decoded(value: Node) -> Any:
    """Decode base64: text if it is UTF-8, else bytes; ``None`` if it is not base64."""
    try:
        data = base64.b64decode(value.text(), validate=True)
    except (ValueError, binascii.Error):
        value.wrong("is not base64")
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data

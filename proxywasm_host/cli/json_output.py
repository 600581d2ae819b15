"""Results as JSON. Bytes that are not UTF-8 become ``{"base64": "…"}``."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.cli.exit_codes import summary
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.http import LocalResponse
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.services.log import printable
from proxywasm_host.testing import ExchangeResult, Invocation, Message, Recorder

__all__ = ["dump", "run_result"]

WIDTH = 100


def run_result(result: ExchangeResult, recorder: Recorder, error: ProxyWasmError | Failure | None) -> dict[str, Any]:
    """The output of ``run --json``."""
    return {
        "upstream_request": _request(result.upstream_request),
        "client_response": _response(result.client_response),
        "local_response": _local(result.local_response),
        "callbacks": [_callback(invocation) for invocation in recorder.invocations],
        "logs": [
            {"plugin": line.plugin, "level": LogLevel(line.level).name.lower(), "message": line.message}
            for line in recorder.logs
        ],
        "effects": [_effect(effect) for effect in result.effects],
        "error": summary(error),
    }


def dump(value: Any) -> str:
    """Indented JSON, in which a value that fits on one line is not broken."""
    return _written(plain(value), "")


def _flat(value: Any) -> str:
    """JSON on one line. Characters that control a terminal are escaped, not only those in ASCII as in JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return text if printable(text) == text else json.dumps(value)


def _written(value: Any, indent: str) -> str:
    flat = _flat(value)
    if len(indent) + len(flat) <= WIDTH or not isinstance(value, (dict, list)):
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_written(item, deeper)}" for key, item in value.items()]
    else:
        items = [_written(item, deeper) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(deeper + item for item in items)
    return f"{opening}\n{lines}\n{indent}{closing}"


def plain(value: Any) -> Any:
    """A value in the form of JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return {"base64": b64encode(data).decode()}
    if isinstance(value, Plugin):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        shown = {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.repr}
        return {"type": type(value).__name__, **shown}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _request(message: Message | None) -> dict[str, Any] | None:
    if message is None:
        return None
    return {"method": message.first(b":method"), "path": message.first(b":path"), **_content(message)}


def _response(message: Message | None) -> dict[str, Any] | None:
    if message is None:
        return None
    return {"status": message.status, **_content(message)}


def _content(message: Message) -> dict[str, Any]:
    return {"headers": message.headers, "body": message.body, "trailers": message.trailers}


def _local(local: LocalResponse | None) -> dict[str, Any] | None:
    return None if local is None else {field.name: getattr(local, field.name) for field in fields(local)}


def _callback(invocation: Invocation) -> dict[str, Any]:
    return {
        "plugin": invocation.plugin,
        "name": invocation.name,
        "arguments": invocation.arguments,
        "result": invocation.result,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    values = {each.name: getattr(effect, each.name) for each in fields(effect) if each.init and each.name != "stream"}
    if "plugin" in values:
        values["plugin"] = values["plugin"].name
    return {"effect": type(effect).__name__, **values}

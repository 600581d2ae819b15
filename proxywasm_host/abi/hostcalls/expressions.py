"""Envoy's foreign functions ``expr_create``, ``expr_evaluate`` and ``expr_delete``: CEL expressions over properties.

Expressions belong to the plugin and end with its root context.

Source: ``foreign.cc`` of Envoy.
"""

from __future__ import annotations

from typing import Any

from proxywasm_host.abi.context import Context, VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.types import Status
from proxywasm_host.abi.values import encode_value
from proxywasm_host.errors import UnencodableValue
from proxywasm_host.services import ForeignCallFailed
from proxywasm_host.services.expressions import Expression

__all__ = ["expr_create", "expr_delete", "expr_evaluate"]

TOKEN = 4
"""Bytes of a token, which is little-endian."""
BYTES_STAY = ("filter_state",)
"""Properties whose bytes stay bytes; those of others become text, as in Envoy's attributes."""


def expr_create(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Parse an expression. Returns its token."""
    try:
        text = arguments.decode()
    except UnicodeDecodeError:
        return Refusal(Status.BAD_ARGUMENT, "the expression is not UTF-8")
    try:
        expression = Expression(text)
    except ForeignCallFailed as error:
        return Refusal(error.status, "{0}", str(error))
    return vm.context.root.expressions.add(expression).to_bytes(TOKEN, "little")


def expr_evaluate(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Evaluate the expression with a token, for the current context. Returns its value, encoded as a property."""
    if len(arguments) != TOKEN:
        return Refusal(Status.BAD_ARGUMENT, "a token has 4 bytes, not {0}", len(arguments))
    expression = vm.context.root.expressions.get(int.from_bytes(arguments, "little"))
    if expression is None:
        return Refusal(Status.NOT_FOUND, "no expression has the token {0}", int.from_bytes(arguments, "little"))
    try:
        return encode_value(expression.evaluate(_asked_for(expression, vm.context)))
    except ForeignCallFailed as error:
        return Refusal(error.status, "{0}", str(error))
    except UnencodableValue as error:
        return Refusal(Status.SERIALIZATION_FAILURE, "{0}", str(error))


def expr_delete(vm: VmState, arguments: bytes) -> bytes | Refusal:
    """Delete the expression with a token, if there is one."""
    if len(arguments) != TOKEN:
        return Refusal(Status.BAD_ARGUMENT, "a token has 4 bytes, not {0}", len(arguments))
    vm.context.root.expressions.remove(int.from_bytes(arguments, "little"))
    return b""


def _asked_for(expression: Expression, context: Context) -> dict[str, Any]:
    """The existing properties among those that an expression reads."""
    found: dict[str, Any] = {}
    for path in expression.paths:  # shorter ones first
        into = found
        for name in path[:-1]:
            inner = into.get(name)
            into[name] = into = dict(inner) if isinstance(inner, dict) else {}
        try:
            value = context.get_property(path)
        except (LookupError, UnencodableValue):
            continue
        into[path[-1]] = _text(value) if len(path) > 1 and path[0] not in BYTES_STAY else value
    return found


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return {name: _text(each) for name, each in value.items()} if isinstance(value, dict) else value

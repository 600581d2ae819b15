"""Expressions in CEL, evaluated by the package cel-expr-python (extra ``cel``), which wraps cel-cpp, as used by Envoy.

A deadline does not interrupt a foreign function. So an expression is limited to `MAX_TEXT` characters and a few regular
expressions, which must be small constants, and must have no loop (``all``, ``exists``, ``exists_one``, ``map``,
``filter``). The package limits its depth. It is not evaluated if the properties are so long that this would take more
than some hundredths of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from proxywasm_host import remedy
from proxywasm_host.protobuf import fields
from proxywasm_host.services.foreign_call import ForeignCallFailed
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["Expression", "Expressions"]

NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, INTERNAL_FAILURE = 1, 2, 3, 10
MAX_TEXT = 4096
MAX_SIZE = 4 * MIB
"""Maximum bytes of all expressions of a plugin."""
LAST = 0xFFFFFFFF
"""The highest token."""
MAX_MATCHES = 16
"""Maximum number of calls of ``matches``."""
MAX_STATES = 10_000
"""Maximum states of all regular expressions (`_states`): compiling so many takes some milliseconds."""
MAX_READ = 4 * MIB
"""Maximum characters of properties, counted each time that an expression names a property."""
MAX_MATCHED = 4_000_000
"""Maximum characters times states."""
MAX_COMPARED = 1_000_000_000
"""Maximum characters of texts times those of the text that ``contains`` looks for."""
EXPRESSION, CHARACTER = 4096, 192
"""Memory of an expression and of each of its characters, in bytes."""
CONSTANT, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = range(3, 10)
"""Kinds of ``Expr`` (``cel/expr/syntax.proto``), by field number."""
TEXT = 6
"""The field number of a text constant."""
STANDARD = frozenset(
    [
        *("!_", "-_", "_!=_", "_%_", "_&&_", "_*_", "_+_", "_-_", "_/_", "_<=_", "_<_", "_==_", "_>=_", "_>_"),
        *("_?_:_", "_[_]", "_||_", "@in"),
        *("bool", "bytes", "contains", "double", "dyn", "duration", "endsWith", "getDate", "getDayOfMonth"),
        *("getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth"),
        *("getSeconds", "int", "matches", "size", "startsWith", "string", "timestamp", "type", "uint"),
    ]
)
"""Functions that can be called, which are those of the language. Others are refused when the expression is made."""
Path = tuple[str, ...]


class Expression:
    """A parsed expression. `paths` are the properties that it reads, and `size` is its memory in bytes.

    Raises: ForeignCallFailed, with the status for the guest.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise ForeignCallFailed(BAD_ARGUMENT, f"the expression has {len(text)} characters, at most {MAX_TEXT}")
        try:
            self._compiled = _library().compile(text, disable_check=True)
        except RuntimeError as error:
            raise ForeignCallFailed(BAD_ARGUMENT, f"no expression in CEL: {error}") from None
        calls: list[str] = []
        paths: list[Path] = []
        self._sought: list[int | None] = []
        patterns: list[str] = []
        parsed = _field(self._compiled.serialize(), 2)  # an Any that contains a ParsedExpr
        _look(_field(parsed, 2), calls, paths, patterns, self._sought)
        unknown = [name for name in calls if name not in STANDARD]
        if unknown:
            raise ForeignCallFailed(BAD_ARGUMENT, f"no function of CEL is called {unknown[0]!r}")
        if calls.count("matches") > MAX_MATCHES:
            raise ForeignCallFailed(BAD_ARGUMENT, f"the expression calls matches more than {MAX_MATCHES} times")
        if calls.count("matches") != len(patterns):
            raise ForeignCallFailed(BAD_ARGUMENT, "the regular expression of matches must be a constant")
        self._states = sum(map(_states, patterns))
        if self._states > MAX_STATES:
            raise ForeignCallFailed(
                BAD_ARGUMENT, f"the regular expressions have {self._states} states, at most {MAX_STATES}"
            )
        self._reads = len(paths), "_+_" in calls
        self.paths = sorted(set(paths), key=len)
        self.size = EXPRESSION + CHARACTER * len(text)

    def evaluate(self, properties: Mapping[str, Any]) -> Any:
        """The value for these properties, nested dicts by the segments of names. Raises: ForeignCallFailed."""
        self._check_length(properties)
        try:
            value = self._compiled.eval(data={name: _of_cel(each) for name, each in properties.items()})
        except (RuntimeError, ValueError, TypeError) as error:
            raise ForeignCallFailed(INTERNAL_FAILURE, str(error)) from None
        kind = value.type().name()
        if kind == "ERROR":
            raise ForeignCallFailed(INTERNAL_FAILURE, str(value.value()))
        if kind in ("NULL", "TYPE"):
            raise ForeignCallFailed(SERIALIZATION_FAILURE, f"a value of type {kind} has no form in the ABI")
        return value.plain_value()

    def _check_length(self, properties: Mapping[str, Any]) -> None:
        """Check that evaluation is quick; no value has more text than is read. Raises: ForeignCallFailed."""
        times, joins = self._reads
        length = _length(properties)
        read = times * length
        longest = read if joins else length
        compared = sum(longest * (longest if sought is None else sought) for sought in self._sought)
        for most, count, what in (
            (MAX_READ, read, "to read"),
            (MAX_MATCHED, longest * self._states, "by states of regular expressions"),
            (MAX_COMPARED, compared, "to compare"),
        ):
            if count > most:
                raise ForeignCallFailed(
                    INTERNAL_FAILURE, f"the properties are too long: {count} characters {what}, at most {most}"
                )


class Expressions:
    """The expressions of one plugin, by token."""

    def __init__(self) -> None:
        self._expressions: dict[int, Expression] = {}
        self._next = 0
        self._quota = Quota("the expressions of this plugin", MAX_SIZE)

    def add(self, expression: Expression) -> int:
        """Store an expression and return its token. Raises: QuotaExceeded."""
        self._quota.reserve(expression.size)
        while self._next in self._expressions:
            self._next = (self._next + 1) & LAST
        token = self._next
        self._next = (token + 1) & LAST
        self._expressions[token] = expression
        return token

    def get(self, token: int) -> Expression | None:
        """The expression with this token, or ``None``."""
        return self._expressions.get(token)

    def remove(self, token: int) -> None:
        """Drop the expression with this token, if any."""
        found = self._expressions.pop(token, None)
        if found is not None:
            self._quota.release(found.size)


@cache
def _environment() -> Any:
    from cel_expr_python import cel  # noqa: PLC0415 - from an extra

    return cel.NewEnv()


def _library() -> Any:
    """The environment of the package. Raises: ForeignCallFailed, if the package is not installed."""
    try:
        return _environment()
    except ModuleNotFoundError as error:
        raise ForeignCallFailed(NOT_FOUND, str(remedy.missing("cel", error))) from None


def _of_cel(value: Any) -> Any:
    """A property in the form of the package."""
    if isinstance(value, Mapping):
        return {str(name): _of_cel(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_cel(each) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, (datetime, timedelta)):
        from google.protobuf import duration_pb2, timestamp_pb2  # noqa: PLC0415 - from the extra

        message: Any = timestamp_pb2.Timestamp() if isinstance(value, datetime) else duration_pb2.Duration()
        (message.FromDatetime if isinstance(value, datetime) else message.FromTimedelta)(value)
        return message
    return value


def _length(value: Any) -> int:
    """Number of characters in one or several properties."""
    if isinstance(value, Mapping):
        return sum(map(_length, value)) + sum(map(_length, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_length, value))
    return len(value) if isinstance(value, (str, bytes)) else 1


_ONE = re.compile(
    r"""\\[pP](?:\{[^}]*\}|.) | \\x\{[^}]*\} | \\Q.*?(?:\\E|$) | \\. | \[\^?\]?(?:\[:[^\]]*\]|\\.|[^\]\\])*\]
    | \{(\d+)(?:,(\d*))?\} | .""",
    re.VERBOSE | re.DOTALL,
)
_CLASSES = re.compile(r"\\[DWS]|\[\^|\[:\^|[^\0-\x7f]|^\.")
"""Parts of a pattern that match many characters, which have many encodings in UTF-8."""
_UNICODE = re.compile(r"\\[pP]")
_OF_A_CLASS, _OF_UNICODE = 40, 1500


def _states(pattern: str) -> int:
    """Approximate number of RE2 instructions for a regular expression; nested repetitions multiply."""
    groups, last = [0], 0
    for found in _ONE.finditer(pattern):
        part = found[0]
        if part == "(":
            groups.append(0)
            last = 0
        elif part == ")" and len(groups) > 1:
            last = groups.pop() + 1
            groups[-1] += last
        elif found[1]:
            times = max(int(found[1]), int(found[2] or 0), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = len(part) + _OF_A_CLASS * len(_CLASSES.findall(part)) + _OF_UNICODE * len(_UNICODE.findall(part))
            groups[-1] += last
    return sum(groups) * (2 if "(?" in pattern else 1)


def _look(
    expression: bytes, calls: list[str], paths: list[Path], patterns: list[str], sought: list[int | None]
) -> None:
    """Collect the functions that an ``Expr`` calls, the properties that it reads, its constant regular expressions, and
    for each ``contains`` the length of its argument (``None`` if that is not constant).

    Raises: ForeignCallFailed, for a loop.
    """
    path = _path(expression)
    if path:
        paths.append(path)
        return
    for kind, body in fields(expression):
        if not isinstance(body, bytes) or kind == CONSTANT:
            continue
        if kind == COMPREHENSION:
            raise ForeignCallFailed(BAD_ARGUMENT, "a loop (all, exists, map, filter) is not evaluated here")
        for number, part in fields(body):
            if kind == CALL and number == 2 and isinstance(part, bytes):
                calls.append(part.decode())
            elif isinstance(part, bytes):
                for each in _parts(kind, number, part):
                    _look(each, calls, paths, patterns, sought)
        name = _field(body, 2) if kind == CALL else b""
        if name in (b"matches", b"contains"):
            text = dict(fields(_field(_bytes(list(fields(body))[-1][1]), CONSTANT))).get(TEXT)  # the last argument
            if name == b"contains":
                sought.append(None if text is None else len(_bytes(text)))
            elif text is not None:
                patterns.append(_bytes(text).decode())


def _parts(kind: int, number: int, part: bytes) -> Iterator[bytes]:
    """The expressions in a field of an expression."""
    if (kind, number) in ((SELECT, 1), (CALL, 1), (CALL, 3), (LIST, 1)):
        yield part
    elif (kind, number) == (STRUCT, 2):  # an entry: key and value
        yield from (each for at, each in fields(part) if at in (3, 4) and isinstance(each, bytes))


def _path(expression: bytes) -> Path:
    """The path of an ``Expr`` that is a property, like ``request.headers['a']``; empty for anything else."""
    for kind, body in fields(expression):
        if not isinstance(body, bytes):
            continue
        parts = list(fields(body))
        if kind == IDENT:
            return (_field(body, 1).decode(),)
        if kind == SELECT:
            found = dict(parts)
            before = _path(_bytes(found[1]))
            return (*before, _bytes(found[2]).decode()) if before else ()
        if kind == CALL and (2, b"_[_]") in parts:
            of, at = (_bytes(part) for number, part in parts if number == 3)
            before, key = _path(of), dict(fields(_field(at, CONSTANT))).get(TEXT)
            return (*before, _bytes(key).decode()) if before and key is not None else ()
    return ()


def _field(message: bytes, number: int) -> bytes:
    """The content of a field with a message or text; empty if it is missing."""
    return _bytes(dict(fields(message)).get(number, b""))


def _bytes(part: int | bytes) -> bytes:
    return part if isinstance(part, bytes) else b""

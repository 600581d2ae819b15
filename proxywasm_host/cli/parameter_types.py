"""Parameter types of click for the values of options. Each explains a wrong value in one sentence."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from runpy import run_path
from typing import Any

import click
from click.shell_completion import CompletionItem

from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.values import check_properties
from proxywasm_host.engine.registry import engine_names
from proxywasm_host.errors import UnencodableValue
from proxywasm_host.own_files import replace_file
from proxywasm_host.runtime.effects import (
    Callout,
    CalloutFailed,
    GrpcCall,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcStream,
    GrpcTrailingMetadata,
    HttpCall,
    HttpCallReply,
    NameLookup,
    NameLookupReply,
    RedisCallReply,
    Reply,
)
from proxywasm_host.services.shared import check_shared

__all__ = [
    "CannedReply",
    "Data",
    "DataOrFile",
    "EngineName",
    "Environment",
    "Header",
    "Hostcalls",
    "Output",
    "OutputFile",
    "Property",
    "SharedChoice",
    "Size",
]


def wire(text: str) -> bytes:
    """The bytes of an argument of the command line."""
    return text.encode("utf-8", "surrogateescape")


LONGEST = 1_000_000
"""Seconds that stand for no deadline. With a deadline, however long, Ctrl-C ends a guest that loops."""


class Kind(click.ParamType[Any]):
    """Base of the types. `parse` converts a value, or raises ValueError with the sentence."""

    def parse(self, text: str) -> Any:
        """The value of a text. Raises: ValueError."""
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value)
        except (ValueError, OSError) as error:
            self.fail(str(error), param, ctx)


class Header(Kind):
    """``name: value``."""

    name = "'name: value'"

    def parse(self, text: str) -> tuple[bytes, bytes]:
        """The value of a text. Raises: ValueError."""
        at = text.find(":", 1)
        name = text[:at].rstrip()
        if at < 0 or not name.lstrip(":"):
            raise ValueError(f"{text!r} is not a header: write it as 'name: value'")
        if any(map(str.isspace, name)):
            raise ValueError(f"{text!r} is not a header: its name contains white space")
        if re.search(r"[\r\n\0]", text):
            raise ValueError(f"{text!r} is not a header: it contains a line break or a NUL")
        return wire(name), wire(text[at + 1 :].strip())


class Data(Kind):
    """Text, ``@file`` or ``@-`` (standard input), as bytes."""

    name = "TEXT|@FILE"

    def parse(self, text: str) -> bytes:
        """The value of a text. Raises: ValueError."""
        if text == "@-":
            return sys.stdin.buffer.read()
        if not text.startswith("@"):
            return wire(text)
        if text == "@":
            raise ValueError("'@' names no file: write it as @FILE, or @- for standard input")
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {text[1:]}: {error.strerror}") from None


class DataOrFile(Data):
    """As `Data`, but a file becomes a path, because it may be read again when it changes."""

    def parse(self, text: str) -> bytes | Path:  # type: ignore[override]
        """The value of a text. Raises: ValueError."""
        if text[:1] == "@" and text not in ("@", "@-"):
            return Path(text[1:]).absolute()
        return super().parse(text)


class Output:
    """A file to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: bytes | str) -> None:
        """Write the whole content; readers see the old content until then. Raises: click.UsageError."""
        data = data if isinstance(data, bytes) else data.encode()
        try:
            path = self.path.resolve()
            if path.exists() and (not path.is_file() or not os.access(path.parent, os.W_OK)):
                path.write_bytes(data)  # a device or a pipe, or the folder cannot be written
            else:
                replace_file(path, data, private=False)
        except OSError as error:
            raise click.UsageError(f"cannot write {self.path}: {error.strerror}") from None


class OutputFile(Kind):
    """The name of a file to write. A name that cannot be written is refused before the command begins."""

    name = "file"

    def parse(self, text: str) -> Output:
        """The value of a text. Raises: ValueError."""
        path = Path(text)
        if path.is_dir():
            raise ValueError(f"{text} is a folder, not a file")
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent}")
        return Output(path)


class Size(Kind):
    """A number of bytes, with an optional unit: ``256MiB``."""

    name = "SIZE"
    UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}  # noqa: RUF012 - a table

    def parse(self, text: str) -> int:
        """The value of a text. Raises: ValueError."""
        found = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", text.lower())
        if not found:
            raise ValueError(f"{text!r} is not a size: write it as 1000, 64KiB or 256MiB")
        return int(found[1]) * self.UNITS[found[2]]


class Seconds(Kind):
    """A number of seconds, finite and not negative."""

    name = "SECONDS"

    def parse(self, text: str) -> float:
        """The value of a text. Raises: ValueError."""
        seconds = float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) else -1.0
        if not 0 <= seconds <= LONGEST:
            raise ValueError(f"{text!r} is not a number of seconds between 0 and {LONGEST}")
        return seconds


class Hostcalls(Kind):
    """The hostcalls of a Python module or file: ``package.module`` or ``FILE.py``."""

    name = "MODULE|FILE.py"

    def parse(self, text: str) -> list[CustomHostcall]:
        """The value of a text. Raises: ValueError."""
        try:
            if text.endswith(".py"):
                names = run_path(text)
            else:
                sys.path.insert(0, "")  # the current folder, as for `python -m`
                try:
                    names = vars(import_module(text))
                finally:
                    sys.path.remove("")
        except Exception as error:
            raise ValueError(f"cannot import {text}: {type(error).__name__}: {error}") from error
        found = [value for value in names.values() if isinstance(value, CustomHostcall)]
        if not found:
            raise ValueError(f"{text} has no hostcalls: decorate functions with @hostcall of proxywasm_host.hostcalls")
        return list(dict.fromkeys(found))


class Property(Kind):
    """``path=text`` or ``path:=json``, as (dotted path, value)."""

    name = "PATH=VALUE"

    def parse(self, text: str) -> tuple[str, Any]:
        """The value of a text. Raises: ValueError."""
        path, equals, value = text.partition("=")
        if not equals or not path.rstrip(":"):
            raise ValueError(f"{text!r} is not a property: write it as path=text, or path:=json for a number")
        if not path.endswith(":"):
            return path, value
        try:
            parsed = json.loads(value)
            check_properties({path[:-1]: parsed})
        except json.JSONDecodeError as error:
            raise ValueError(f"{value!r}, the value of property {path[:-1]}, is not JSON: {error}") from None
        except UnencodableValue as error:
            raise ValueError(str(error)) from None
        return path[:-1], parsed


class Environment(Kind):
    """``NAME=value``, or ``NAME`` to pass on a variable of this process."""

    name = "NAME[=VALUE]"

    def parse(self, text: str) -> tuple[str, str]:
        """The value of a text. Raises: ValueError."""
        name, equals, value = text.partition("=")
        if not name:
            raise ValueError(f"{text!r} is not an environment variable: write it as NAME=value")
        if not equals and name not in os.environ:
            raise ValueError(f"the environment has no variable {name}: write {name}=value to set it")
        return name, value if equals else os.environ[name]


class CannedReply(Kind):
    """``CLUSTER=STATUS[:BODY]`` or ``CLUSTER=fail``, as (cluster, function that answers a callout)."""

    name = "CLUSTER=STATUS[:BODY]"

    def parse(self, text: str) -> tuple[str, Any]:
        """The value of a text. Raises: ValueError."""
        cluster, equals, reply = text.partition("=")
        status, _, body = reply.partition(":")
        if not cluster or not equals or not (status.isdecimal() or reply == "fail"):
            raise ValueError(f"{text!r} is not a reply: write it as CLUSTER=STATUS[:BODY], or CLUSTER=fail")
        if reply == "fail":
            return cluster, CalloutFailed()
        if int(status) > 999:
            raise ValueError(f"{status} is not a status: HTTP's are from 100 to 599, gRPC's from 0 to 16")
        content = Data().parse(body)
        return cluster, lambda callout: replies(callout, int(status), content)


def replies(callout: Callout, status: int, body: bytes) -> Sequence[Reply]:
    """Answers a callout. For gRPC, `status` is the gRPC status and `body` the message."""
    if isinstance(callout, HttpCall):
        return [HttpCallReply([(b":status", b"%d" % status)], body)]
    if isinstance(callout, GrpcCall):
        return [GrpcClosed(status, body.decode("utf-8", "replace")) if status else GrpcCallReply(body)]
    if isinstance(callout, GrpcStream):
        return [GrpcInitialMetadata([]), GrpcMessage(body), GrpcTrailingMetadata([]), GrpcClosed(status)]
    if isinstance(callout, NameLookup):
        try:
            return [NameLookupReply(ip_address(body.decode()).packed)]
        except ValueError:
            return [CalloutFailed(f"the reply {body!r} is not an address")]
    return [RedisCallReply(body)]


class SharedChoice(Kind):
    """How filters share state: see `proxywasm_host.services.shared`."""

    name = "WHO"

    def parse(self, text: str) -> str:
        """The text itself, after a check. Raises: ValueError."""
        check_shared(text)
        return text


class EngineName(Kind):
    """The name of an engine. An unknown name is an error when the engine is opened."""

    name = "NAME"

    def parse(self, text: str) -> str:
        """The value of a text. Raises: ValueError."""
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Completions of a text, for shells."""
        return [CompletionItem(name) for name in engine_names() if name.startswith(incomplete)]

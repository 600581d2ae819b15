"""The options that ``run`` and ``bench`` share, which describe a chain of filters and messages to send.

An option of a filter is given once for all filters, or once for each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import click

from proxywasm_host import remedy
from proxywasm_host.abi.profile import PROFILES
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.cli.parameter_types import (
    LONGEST,
    CannedReply,
    Data,
    EngineName,
    Environment,
    Header,
    Hostcalls,
    Property,
    Seconds,
    SharedChoice,
    Size,
)
from proxywasm_host.describe import plural
from proxywasm_host.driver.defaults import DEADLINE, MEMORY
from proxywasm_host.driver.filters import DEFAULTS
from proxywasm_host.engine.cache import ModuleCache, default_directory
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import ConfigError, ModuleError
from proxywasm_host.fetch.reference import is_configuration, is_remote, local_path
from proxywasm_host.runtime.arguments import Check
from proxywasm_host.runtime.filter_config import OPTIONS, FilterConfig, plugin_names
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.listener import Listener
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.rules import matching
from proxywasm_host.services import GuestLog, LogSink, Services
from proxywasm_host.services.shared import open_shared, with_shared
from proxywasm_host.testing import ExchangeResult, Message, Recorder, exchange

__all__ = [
    "FILTER_OPTIONS",
    "CommandLine",
    "Silent",
    "about",
    "check_readable",
    "command_line_options",
    "filter_options",
    "is_kong",
    "names_kong",
    "of_each",
    "sentence",
]

FORMAT_VERSION = re.compile(r"""^\s*[{,]?\s*["']?_format_version["']?\s*:""", re.MULTILINE)
"""The key that marks a configuration of Kong."""
KONG = re.compile(r"^kong\s*[:=]", re.MULTILINE)
"""The key in our own form of a configuration that names one of Kong."""

F = TypeVar("F", bound=Callable[..., Any])
NAMED = [name for name, option in OPTIONS.items() if option.plain]
"""Options of a filter that have the names of the fields of `FilterConfig`: `_option` makes them."""
TYPES: Mapping[Any, Any] = {str: click.STRING, int: click.INT, float: click.FLOAT}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")

CONFIG_OPTIONS = (
    click.option(
        "--config", "--filter-config", "config", type=Data(), multiple=True, help="The filter's configuration."
    ),
    click.option("--vm-config", type=Data(), multiple=True, help="The configuration of its VM."),
)


def _checked(check: Check) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
        try:
            for value in given if isinstance(given, tuple) else [given]:
                check(value)
        except (TypeError, ValueError) as error:
            raise click.BadParameter(str(error), context, parameter) from None
        return given

    return callback


def _option(name: str, *, several: bool = True) -> Callable[[F], F]:
    """The option of the command line for an option of a filter, given once for all filters or once for each."""
    option, flag = OPTIONS[name], f"--{name.replace('_', '-')}"
    help = option.about.partition(". ")[0].rstrip(".").replace("`", "") + "."
    if option.kind is bool:
        return click.option(flag, is_flag=True, help=help)
    defaults = [getattr(value, "value", value) for value in (option.default, DEFAULTS[name])]
    if defaults[0] not in ("", None):
        help += f"  [default: {'; of serve: '.join(map(str, dict.fromkeys(defaults)))}]"
    choices = [getattr(value, "value", value) for value in option.values]
    kind = click.Choice(choices) if choices else TYPES[option.kind]
    default = None if several else option.default
    return click.option(flag, type=kind, multiple=several, default=default, help=help, callback=_checked(option.check))


PLAIN_OPTIONS = tuple(map(_option, NAMED))
FILTER_OPTIONS = (
    *PLAIN_OPTIONS,
    click.option(
        "--engine",
        type=EngineName(),
        multiple=True,
        help="wasmtime, …; see `proxywasm engines`. `run` also accepts all, to compare them.",
    ),
)
UNKNOWN_IMPORTS_OPTION = _option("unknown_imports", several=False)
HOSTCALLS_OPTION = click.option(
    "--hostcalls", type=Hostcalls(), multiple=True, help="A Python module or file with your own hostcalls."
)
SHARED_OPTION = click.option(
    "--shared",
    type=SharedChoice(),
    help="How to share data, queues and metrics of filters: memory, processes or redis://…",
)
REQUEST_OPTIONS = (
    click.option("-X", "--method", metavar="METHOD", help="The same as METHOD before the URL."),
    click.option("-H", "--header", type=Header(), multiple=True, help="A header of the request."),
    click.option("-d", "--data", type=Data(), help="The request's body; makes the method POST."),
    click.option("--chunk", type=Data(), multiple=True, help="A part of the body; may be repeated."),
    click.option("--trailer", type=Header(), multiple=True, help="A trailer of the request."),
)
RESPONSE_OPTIONS = (
    click.option(
        "--response-status", type=click.IntRange(100, 999), default=200, show_default=True, help="Upstream's status."
    ),
    click.option("--response-header", type=Header(), multiple=True, help="A header of upstream's response."),
    click.option("--response-body", type=Data(), help="The response's body."),
    click.option("--response-chunk", type=Data(), multiple=True, help="A part of the body; may be repeated."),
    click.option("--response-trailer", type=Header(), multiple=True, help="A trailer of the response."),
    click.option(
        "--framing",
        type=click.Choice(["http1", "http2"]),
        default="http1",
        show_default=True,
        help="How a body ends: with an extra empty chunk, or with its last chunk.",
    ),
)
HOST_OPTIONS = (
    click.option(
        "--profile",
        type=click.Choice(list(PROFILES)),
        default="envoy",
        show_default=True,
        help="The host to imitate.",
    ),
    click.option(
        "--property", "properties", type=Property(), multiple=True, help="A property; PATH:=JSON for a number."
    ),
    click.option("--env", type=Environment(), multiple=True, help="An environment variable of the guests."),
    click.option(
        "--callout",
        type=CannedReply(),
        multiple=True,
        help="The answer of a cluster to callouts; 'fail' breaks them off. Other clusters are unknown.",
    ),
    click.option(
        "--ticks", type=click.IntRange(0), default=0, show_default=True, help="Ticks that may pass during a pause."
    ),
    click.option(
        "--deadline",
        type=Seconds(),
        default=f"{DEADLINE:g}",
        show_default=True,
        help="Seconds for a callback; 0 for no limit.",
    ),
    click.option("--memory-limit", type=Size(), default=f"{MEMORY >> 20}MiB", show_default=True, help="Per guest."),
    SHARED_OPTION,
    HOSTCALLS_OPTION,
)


def filter_options(function: F) -> F:
    """Add the options of one filter to a command, which gets them as keywords for `of_each`."""
    for option in reversed((*CONFIG_OPTIONS, *PLAIN_OPTIONS)):
        function = option(function)
    return function


def command_line_options(function: F) -> F:
    """Add these options to a command, which gets them as keywords for a `CommandLine`."""
    for option in reversed((*CONFIG_OPTIONS, *FILTER_OPTIONS, *REQUEST_OPTIONS, *RESPONSE_OPTIONS, *HOST_OPTIONS)):
        function = option(function)
    return function


class Silent:
    """A log sink that drops all lines."""

    level: int = LogLevel.INFO

    def log(self, line: GuestLog) -> None:
        """Drop a line."""


@dataclass
class CommandLine:
    """A chain of filters, and a request and its response to send through it. `options` are the command's."""

    filters: list[str]
    request: Message
    response: Message
    options: dict[str, Any]
    engines: list[str | None]
    """The engine of each filter."""
    gateway: Any = None
    """Kong's gateway, if a configuration of Kong was named; set when the chain is loaded."""

    @staticmethod
    def say(sentence: str) -> None:
        """Show progress on standard error."""
        click.echo(f"{sentence} …", err=True)

    @classmethod
    def of(cls, words: Sequence[str], options: dict[str, Any], url: str = "") -> CommandLine:
        """Parse a command line: ``FILTER … [METHOD] URL`` and options. `url` is the default of the URL.

        Raises: click.UsageError.
        """
        filters, method, given = understand(words, url)
        http1 = options["framing"] == "http1"
        try:
            request = _request(options["method"] or method, given, options, http1)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        response = _response(request.first(b":method"), options, http1)
        return cls(filters, request, response, options, each(options, "engine", len(filters), None))

    def host(self, log: LogSink, *, listener: Listener | None = None, cache: ModuleCache | None = None) -> Host:
        """A host with the services and limits of the options. Raises: UnknownEngine, EngineUnavailable."""
        options = self.options
        services = Services(log=log, clusters=dict(options["callout"]).keys())
        if options["shared"]:
            services = with_shared(services, open_shared(options["shared"]))
        return Host(
            self.engines[0],
            profile=self._profile(),
            services=services,
            limits=Limits(options["memory_limit"], options["deadline"] or LONGEST),
            properties=dict(options["properties"]),
            listener=listener,
            cache=cache or ModuleCache(default_directory(), slow=self.say),
            hostcalls=[one for given in options["hostcalls"] for one in given],
        )

    def _profile(self) -> str:
        """The profile of the option, else that of the configuration."""
        said: str = self.options["profile"]
        found = [_configured(path)[1] for path in self.filters if is_configuration(path)] if said == "envoy" else []
        return found[0] if found else said

    def load(self, host: Host) -> list[Plugin]:
        """Load the chain that the request passes.

        Raises: ModuleError (with the file's name), PluginError, EngineUnavailable, UnknownEngine.
        """
        loaded = [self._load_one(host, filter) for filter in self.chain]
        if len(self.filters) == 1 and is_kong(self.filters[0]):
            try:
                setup = _kong(self.filters[0])
                self.gateway = setup.gateway(host, loaded)
            except ConfigError as error:
                raise click.UsageError(str(error)) from None
            click.get_current_context().with_resource(setup.running())
            self.gateway.start()
            return loaded
        authority, path = (self.request.first(name) for name in (b":authority", b":path"))
        return matching(loaded, authority, path, dict(self.options["properties"]))

    @staticmethod
    def _load_one(host: Host, filter: FilterConfig) -> Plugin:
        try:
            return host.load_plugin(filter)
        except ModuleError as error:
            raise about(str(filter.code), error) from None
        except ValueError as error:  # options that do not fit each other
            raise click.UsageError(str(error)) from None

    def send(
        self,
        host: Host,
        plugins: Sequence[Plugin],
        recorder: Recorder | None = None,
        began: Callable[[HttpStream], None] | None = None,
    ) -> ExchangeResult:
        """Send the request through the loaded chain. `began` is called with the stream before it is fed."""
        send: Callable[..., ExchangeResult] = partial(exchange, host, plugins)
        if self.gateway is not None:
            from proxywasm_host.kong.exchange import through  # noqa: PLC0415 - the extra may be missing

            send = partial(through, self.gateway)
        options = self.options
        return send(
            self.request,
            self.response,
            recorder=recorder,
            properties=dict(options["properties"]),
            callouts=dict(options["callout"]),
            ticks=options["ticks"],
            began=began,
        )

    @property
    def chain(self) -> list[FilterConfig]:
        """The filters to load, each with a different name."""
        options = self.options
        chain: list[FilterConfig] = []
        each_says = of_each(options, len(self.filters), "config")
        for path, said, engine in zip(self.filters, each_says, self.engines, strict=True):
            if is_configuration(path):
                chain += [
                    replace(filter, **{**said, "engine": engine or filter.engine}) for filter in _configured(path)[0]
                ]
                continue
            chain.append(FilterConfig(path, environment=dict(options["env"]), **{**said, "engine": engine}))
        return [replace(filter, name=name) for filter, name in zip(chain, plugin_names(chain), strict=True)]

    @property
    def names(self) -> list[str]:
        """A name for each filter."""
        return [filter.name for filter in self.chain]


def of_each(options: dict[str, Any], count: int, configuration: str) -> list[dict[str, Any]]:
    """The options of each of `count` filters, under `FilterConfig`'s names; without options that were not given.

    `configuration` is the command's name for the filter's configuration. Raises: click.UsageError, as `each`.
    """
    called = {"configuration": configuration, "vm_configuration": "vm_config", "engine": "engine"}
    called.update((name, name) for name in NAMED)
    columns = [(name, each(options, option, count, None)) for name, option in called.items()]
    return [{name: values[number] for name, values in columns if values[number] is not None} for number in range(count)]


def about(path: str, error: ModuleError) -> ModuleError:
    """The same error with the name of its file."""
    return type(error)(f"{path}: {sentence(error)}")


def sentence(error: ModuleError) -> str:
    """The text of an error, with the command line's names of options."""
    text = str(error).replace("Host(hostcalls=[…])", "--hostcalls")
    return text.replace("unknown_imports='stub'", "--unknown-imports stub")


def each(options: dict[str, Any], option: str, count: int, default: Any) -> list[Any]:
    """The values of an option for each of `count` filters. Raises: click.UsageError, if their number does not fit."""
    given = options[option]
    values = ([True] if given else []) if isinstance(given, bool) else list(given)  # a flag is for all filters
    if len(values) in (0, 1):
        return (values or [default]) * count
    if len(values) != count:
        flag, times = "--" + option.replace("_", "-"), plural(len(values), "time")
        raise click.UsageError(
            f"{flag} was given {times} for {plural(count, 'filter')}: give it once for all, or once for each"
        )
    return values


def understand(words: Sequence[str], url: str) -> tuple[list[str], str, str]:
    """Filters, method (empty if not given) and URL of ``FILTER … [METHOD] URL``. Raises: click.UsageError."""
    rest = list(words)
    if rest and not _is_file(rest[-1]):
        url = rest.pop()
    elif not url:
        raise click.UsageError("the URL is missing: proxywasm run FILTER.wasm [METHOD] URL")
    method = rest.pop() if len(rest) > 1 and re.fullmatch(r"[A-Z]+", rest[-1]) and not _is_file(rest[-1]) else ""
    if not rest:
        raise click.UsageError("the filter is missing: proxywasm run FILTER.wasm [METHOD] URL")
    for path in rest:
        if not _is_file(path) and ("://" in path or path.startswith("/")) and re.fullmatch(r"[A-Z]+", url):
            raise click.UsageError(f"the method comes before the URL: {url} {path}")
        if not _is_file(path) and path.upper() in METHODS:
            raise click.UsageError(f"there is no file {path}; if it is the method, write it as {path.upper()}")
        check_readable(path)
    return rest, method, url


def _configured(path: str) -> tuple[list[FilterConfig], str]:
    """The filters and the profile of a configuration. Raises: click.UsageError."""
    return _read(path, Path(path).stat().st_mtime_ns)


def is_kong(path: str | Path) -> bool:
    """Whether a file is a configuration of Kong."""
    return _says(path, FORMAT_VERSION)


def names_kong(path: str | Path) -> bool:
    """Whether a file is a configuration in our own form that names one of Kong."""
    return _says(path, KONG)


def _says(path: str | Path, expression: re.Pattern[str]) -> bool:
    file = Path(path)
    known = is_configuration(file) and file.is_file()
    return known and expression.search(file.read_text("utf-8", "replace")) is not None


def _kong(path: str) -> Any:
    """Kong's configuration from a file, with the environment of this process. Raises: click.UsageError."""
    return _read_kong(path, Path(path).stat().st_mtime_ns)


@lru_cache(None)
def _read_kong(path: str, changed: int) -> Any:
    """Cached by the time at which the file `changed`."""
    try:
        from proxywasm_host.kong.environment import Environment  # noqa: PLC0415 - the extra may be missing
        from proxywasm_host.kong.setup import Setup, query  # noqa: PLC0415

        environment = Environment.read(os.environ)
        return Setup(Path(path), environment, query(environment))
    except ModuleNotFoundError as error:
        raise click.UsageError(f"a configuration of Kong needs more: {remedy.missing('kong', error)}") from None
    except (ConfigError, OSError) as error:
        raise click.UsageError(str(error)) from None


@lru_cache(None)
def _read(path: str, changed: int) -> tuple[list[FilterConfig], str]:
    """Cached by the time at which the file `changed`, so that warnings appear once."""
    if is_kong(path):
        return [*_kong(path).filters], "wasmx"
    try:
        from proxywasm_host.serve.filters import chain_in  # noqa: PLC0415 - the extra may be missing

        filters, profile = chain_in(Path(path))
    except ModuleNotFoundError as error:
        raise click.UsageError(f"a configuration needs more: {remedy.missing('serve', error)}") from None
    except (ConfigError, OSError) as error:
        raise click.UsageError(str(error)) from None
    return [*filters], profile


def _is_file(word: str) -> bool:
    return word.endswith((".wasm", ".py")) or word.startswith(("oci://", "file:")) or Path(word).is_file()


def check_readable(path: str) -> None:
    """Check a filter. Raises: click.UsageError, if its file cannot be read or its URL is wrong. Nothing is fetched."""
    try:
        if not is_remote(path):
            Path(local_path(path)).open("rb").close()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.UsageError(f"cannot read the filter {path}: {error.strerror}") from None


def _request(method: str, url: str, options: dict[str, Any], http1: bool) -> Message:
    headers, chunks = _body(options["header"], options["data"], options["chunk"])
    method = method or ("POST" if chunks or options["data"] is not None else "GET")
    return Message.request(method, url, headers, chunks, options["trailer"], http1=http1)


def _response(method: bytes, options: dict[str, Any], http1: bool) -> Message:
    status = options["response_status"]
    data = None if status < 200 or status == 204 else options["response_body"]  # no length: RFC 9110, section 8.6
    headers, chunks = _body(options["response_header"], data, options["response_chunk"])
    trailers = options["response_trailer"]
    if method == b"HEAD" or status < 200 or status in (204, 304):
        chunks = trailers = []
    return Message.response(status, headers, chunks, trailers, http1=http1)


def _body(
    headers: Sequence[tuple[bytes, bytes]], data: bytes | None, chunks: Sequence[bytes]
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """Headers and parts of a message. A body in one part has a content-length."""
    parts = ([data] if data else []) + list(chunks)
    pairs = list(headers)
    if data is not None and not chunks and not any(name.lower() == b"content-length" for name, _ in pairs):
        pairs.append((b"content-length", b"%d" % len(data)))
    return pairs, parts

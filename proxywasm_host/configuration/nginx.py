"""Reads nginx with ngx_wasm_module: ``wasm { module … }``, and ``proxy_wasm`` in http, server and location."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxywasm_host.configuration.hosts import most_specific_first
from proxywasm_host.configuration.node import Document, Node
from proxywasm_host.configuration.own import Own
from proxywasm_host.errors import ConfigError

__all__ = ["Directive", "calls_of", "fits", "parse", "put"]

TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<mark>[{};])
    |"(?P<double>(?:\\.|[^"\\])*)"
    |'(?P<single>(?:\\.|[^'\\])*)'
    |(?P<word>(?:\$\{\w+\}|\\.|[^\s{};\#"'\\])(?:\$\{\w+\}|\\.|[^\s{};\\])*)
    """,
    re.DOTALL | re.VERBOSE,
)
SIZE = re.compile(r"\d+[kKmMgG]?")
TIME = re.compile(r"(\d+)(ms|s|m|h|)")
UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
PROCESS = """
    worker_processes events error_log pid daemon master_process user load_module worker_rlimit_nofile thread_pool
    timer_resolution
""".split()  # noqa: SIM905 - words
SERVING = """
    access_log error_log log_format keepalive_timeout keepalive_requests sendfile tcp_nopush tcp_nodelay
    default_type types server_tokens client_max_body_size client_body_buffer_size proxy_http_version proxy_buffering
    proxy_request_buffering proxy_read_timeout proxy_send_timeout proxy_set_header resolver resolver_timeout
    ssl_protocols ssl_ciphers ssl_session_cache gzip
""".split()  # noqa: SIM905 - words
PROXY_WASM = {
    "proxy_wasm_request_headers_in_access": "no phase of nginx comes before the filters",
    "proxy_wasm_lua_resolver": "names are resolved by the system",
    "proxy_wasm_log_dispatch_errors": "only the filter is informed of a failed callout",
    "resolver_add": "names are resolved by the system: put it into /etc/hosts",
    "wasm_response_body_buffers": "`buffer_limit` limits how much of a body filters may hold",
    "wasm_socket_": "buffers and sockets of callouts are the client's own",
}
"""Directives next to ``proxy_wasm`` that have no effect here, and why."""
OF_WASM = {
    "compiler": "engines have their own options",
    "backtraces": "the report of a failed guest has its backtrace",
    "resolver_add": "names are resolved by the system: put it into /etc/hosts",
    "resolver": "names are resolved by the system: name your own server in /etc/resolv.conf",
    "socket_send_timeout": "the time-out of a callout is for all of it: socket_read_timeout",
    "socket_": "buffers and sockets of callouts are the client's own",
    "tls_verify_host": "a certificate is checked together with its name, or not at all",
    "tls_no_verify_warn": "certificates that are not checked are not logged",
    "proxy_wasm_lua_resolver": "names are resolved by the system",
    "proxy_wasm_log_dispatch_errors": "only the filter is informed of a failed callout",
    "metrics": "metrics have no zone",
    **dict.fromkeys(("wasmtime", "wasmer", "v8"), "engines have their own options"),
}
"""Beginnings of directives in ``wasm`` that have no effect here, and why."""
OF_CALLOUTS: dict[str, tuple[str, ...]] = {
    "socket_connect_timeout": ("connect_timeout",),
    "socket_read_timeout": ("timeout",),
    "tls_trusted_certificate": ("tls", "ca"),
    "tls_verify_cert": ("tls", "verify"),
}
"""Directives in ``wasm`` for filters' calls of addresses, with their paths in ``allow_any_host``. Those of sockets may
also be in ``http``, with the prefix ``wasm_``."""
OF_CHAINS = ("proxy_wasm", "proxy_wasm_isolation")
KINDS = {"=": "path", "^~": "prefix", "~": "regex", "~*": "regex"}


@dataclass
class Directive:
    """One directive, with the block in its braces."""

    name: str
    args: list[str]
    line: int
    block: list[Directive] | None = field(default=None)


def calls_of(said: Mapping[str, str]) -> dict[str, Any]:
    """``allow_any_host`` from the values of these directives, because filters may call any address in nginx.

    Times are 60 s by default, as in nginx. Certificates are checked by default, unlike in nginx. Raises: ConfigError.
    """
    options: dict[str, Any] = {"timeout": 60.0, "connect_timeout": 60.0}
    for name, text in said.items():
        into, last = options, OF_CALLOUTS[name][-1]
        for part in OF_CALLOUTS[name][:-1]:
            into = into.setdefault(part, {})
        into[last] = _option(name, text)
    return options


def _option(name: str, text: str) -> Any:
    if name == "tls_trusted_certificate":
        return text
    if name == "tls_verify_cert":
        if text not in ("on", "off"):
            raise ConfigError(f"{name}: is on or off, not {text!r}")
        return text == "on"
    found = TIME.fullmatch(text)
    if found is None or not int(found[1]):
        raise ConfigError(f"{name}: {text!r} is not a time: write it as 60s")
    return int(found[1]) * UNITS[found[2]]


def fits(text: str) -> bool:
    """Whether a text is nginx's, judging by directives for filters."""
    return re.search(r"^\s*(?:wasm\s*\{|proxy_wasm\s+\S)", text, re.MULTILINE) is not None


def parse(file: Path, text: str) -> list[Directive]:
    """The directives of a file. Raises: ConfigError."""
    stack: list[list[Directive]] = [[]]
    opened: list[int] = []
    words: list[str] = []
    begun = at = 0
    line = 1
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ConfigError(f"{file}:{line}: a quote is not closed")
        at = found.end()
        mark = found["mark"]
        quoted = found["double"] if found["double"] is not None else found["single"]
        if mark is None and (quoted is not None or found["word"] is not None):
            begun = begun if words else line
            words.append(found["word"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        elif mark == "}":
            if words or not opened:
                raise ConfigError(f"{file}:{line}: an unexpected }}: is a ; missing?")
            opened.pop()
            stack.pop()
        elif mark is not None:
            if not words:
                raise ConfigError(f"{file}:{line}: a {mark} without a directive before it")
            directive = Directive(words[0], words[1:], begun, [] if mark == "{" else None)
            stack[-1].append(directive)
            if directive.block is not None:
                stack.append(directive.block)
                opened.append(line)
            words = []
        line += found[0].count("\n")
    if words or opened:
        raise ConfigError(
            f"{file}:{opened[-1] if opened else begun}: {'a { is not closed' if opened else 'a ; is missing'}"
        )
    return stack[0]


def put(file: Path, text: str, own: Own) -> Document:
    """Put a file into the own form."""
    document = Document(file, None, {})
    Reader(document, own).read(parse(file, text))
    return document


@dataclass
class Level:
    """Directives of a level that the levels below inherit, unless they repeat them."""

    filters: list[tuple[Directive, dict[str, Any]]]
    host: str = "$proxy_host"
    """The Host that upstream gets."""
    isolation: str = "none"

    @property
    def made(self) -> list[dict[str, Any]]:
        """The filters in the own form."""
        isolation = {} if self.isolation == "none" else {"isolation": self.isolation}
        return [{**made, **isolation} for _, made in self.filters]


@dataclass
class Server:
    """A server: its names, and its locations with their filters, in the order in which they are tried."""

    names: list[str]
    default: bool
    locations: list[tuple[dict[str, Any], list[dict[str, Any]], Directive]] = field(default_factory=list)


class Reader:
    """Reads one file."""

    def __init__(self, document: Document, own: Own) -> None:
        self._document = document
        self._own = own
        self._modules: dict[str, dict[str, Any]] = {}
        self._upstreams: dict[str, list[dict[str, Any]]] = {}
        self._routes: list[tuple[dict[str, Any], list[dict[str, Any]], Directive]] = []
        self._listens: set[str] = set()
        self._calls: dict[str, str] = {}

    def _wrong(self, at: Directive, what: str) -> None:
        self._document.errors.append(f"{self._document.file}:{at.line}: {at.name}: {what}")

    def _ignored(self, at: Directive, why: str) -> None:
        self._document.ignored.append(f"{self._document.file}:{at.line}: {at.name}: ignored: {why}")

    def _node(self, at: Directive) -> Node:
        return Node(None, (), Document(self._document.file, None, {(): at.line}))

    def read(self, directives: list[Directive]) -> None:
        """Convert the whole file."""
        self._own.data["profile"] = "wasmx"
        for each in directives:
            if each.name == "wasm":
                self._wasm(each)
            elif each.name == "env":
                self._ignored(each, "give filters variables by `environment`")
            elif each.name in PROCESS:
                self._ignored(each, "serve has its own processes")
            elif each.name != "http":
                self._wrong(each, "is not understood here")
        level = Level([])
        for each in directives:
            if each.name == "http":
                self._http(each, level)
        self._finish(level)

    def _wasm(self, wasm: Directive) -> None:
        for each in wasm.block or ():
            if each.name == "module" and len(each.args) in (2, 3):
                name, file, *configuration = each.args
                self._modules[name] = {"file": file, "name": name}
                if configuration:
                    self._modules[name]["vm_configuration"] = configuration[0]
            elif each.name in ("shm_kv", "shm_queue") and len(each.args) >= 2 and SIZE.fullmatch(each.args[1]):
                self._zone(each)
            elif each.name in OF_CALLOUTS and len(each.args) == 1:
                self._call(each, each.name)
            elif why := next((why for name, why in OF_WASM.items() if each.name.startswith(name)), None):
                self._ignored(each, why)
            else:
                self._wrong(each, "is not understood here")

    def _zone(self, at: Directive) -> None:
        """Convert a zone of shared memory."""
        name, size, *options = at.args
        eviction = [each.removeprefix("eviction=") for each in options if each.startswith("eviction=")]
        if len(eviction) < len(options) or (options and at.name == "shm_queue"):
            self._wrong(at, f"{options[0]!r} is not understood here")
        zone = {"size": size, "eviction": eviction[0]} if eviction else size
        self._own.put(zone, self._node(at), at.name, name)

    def _call(self, at: Directive, name: str) -> None:
        """Convert a directive for filters' calls of addresses."""
        try:
            calls_of({name: at.args[0]})
        except ConfigError as error:
            self._wrong(at, str(error).partition(": ")[2])
        else:
            self._calls[name] = at.args[0]

    def _http(self, http: Directive, above: Level) -> None:
        block = http.block or []
        level = self._level(block, above)
        for each in block:
            if each.name == "upstream":
                self._upstream(each)
        servers = []
        for each in block:
            if each.name == "server":
                servers.append(self._server(each, level))
            elif each.name.startswith("wasm_socket") and each.name.removeprefix("wasm_") in OF_CALLOUTS and each.args:
                self._call(each, each.name.removeprefix("wasm_"))
            elif each.name not in ("upstream", *OF_CHAINS):
                self._other(each)
        self._serve(servers)
        above.filters, above.isolation = level.filters, level.isolation

    def _level(self, block: list[Directive], above: Level) -> Level:
        filters = [(each, self._filter(each)) for each in block if each.name == "proxy_wasm"]
        given = [each.args for each in block if each.name == "proxy_set_header"]  # one hides all of the levels above
        hosts = ["$proxy_host", *(args[1] for args in given if args[0].lower() == "host" and len(args) == 2)]
        host = hosts[-1] if given else above.host
        return Level(filters or above.filters, host, self._isolation(block, above.isolation))

    def _isolation(self, block: list[Directive], above: str) -> str:
        for each in block:
            if each.name == "proxy_wasm_isolation":
                if each.args not in (["none"], ["stream"], ["filter"]):
                    self._wrong(each, "must be none, stream or filter")
                    return above
                return each.args[0]
        return above

    def _filter(self, at: Directive) -> dict[str, Any]:
        name, *configuration = at.args or [""]
        module = self._modules.get(name)
        if module is None:
            self._wrong(at, f"no module is called {name!r}: name it in wasm {{ module {name or 'NAME'} FILE; }}")
            return {}
        return module | ({"configuration": configuration[0]} if configuration else {})

    def _other(self, each: Directive) -> None:
        if each.name == "proxy_set_header":
            if each.args[:1] != ["Host"]:
                self._ignored(each, "`forwarded` sets headers that describe the client; a filter can set others")
        elif each.name in SERVING:
            self._ignored(each, "serve has its own")
        elif why := next((why for name, why in PROXY_WASM.items() if each.name.startswith(name)), None):
            if each.args[:1] != ["off"]:
                self._ignored(each, why)
        elif each.name == "include" and each.args[:1] and each.args[0].endswith("mime.types"):
            self._ignored(each, "serve has its own")
        else:
            self._wrong(each, "is not understood here")

    def _upstream(self, at: Directive) -> None:
        servers = []
        for each in at.block or ():
            if each.name == "server" and each.args:
                weight = next((int(arg[7:]) for arg in each.args if re.fullmatch(r"weight=\d+", arg)), 1)
                servers.append({"url": f"http://{each.args[0]}", "weight": weight})
            elif each.name in ("keepalive", "least_conn", "zone"):
                self._ignored(each, "serve has its own")
            else:
                self._wrong(each, "is not understood here")
        self._upstreams[at.args[0] if at.args else ""] = servers

    def _serve(self, servers: list[Server]) -> None:
        """Collect the routes of all servers. The default server also gets the requests that match no other."""
        default = next((each for each in servers if each.default), servers[0] if servers else None)
        named = [(each, [*each.names, *(["*"] if each is default else [])]) for each in servers]
        if len(servers) == 1:
            named = [(servers[0], ["*"])]
        for server, names in most_specific_first(named):
            hosts: dict[str, Any] = {} if "*" in names else {"hosts": names}
            if len(servers) > 1:
                hosts["virtual_host"] = server.names[0] if server.names else f"server {servers.index(server) + 1}"
            self._routes += [({**hosts, **route}, filters, at) for route, filters, at in server.locations]

    def _server(self, server: Directive, above: Level) -> Server:
        block = server.block or []
        level = self._level(block, above)
        made = Server([], default=False)
        for each in block:
            if each.name == "listen" and each.args:
                made.default = made.default or "default_server" in each.args
                self._listens.add(each.args[0])
                address = f"0.0.0.0:{each.args[0]}" if each.args[0].isdigit() else each.args[0]
                self._own.put(address if ":" in address else f"{address}:80", self._node(each), "listen")
            elif each.name == "server_name":
                names = [name for name in each.args if name not in ("_", '""', "")]
                made.names += [one for name in names for one in ([name[1:], f"*{name}"] if name[0] == "." else [name])]
            elif each.name in ("ssl_certificate", "ssl_certificate_key") and each.args:
                key = "certificate" if each.name == "ssl_certificate" else "key"
                self._own.put(each.args[0], self._node(each), "tls", key)
            elif each.name not in ("location", *OF_CHAINS):
                self._other(each)
        if len(self._listens) > 1:
            self._wrong(server, f"serve has one listener, and this file has {len(self._listens)}: keep one")
        for each in self._in_order([each for each in block if each.name == "location"]):
            self._location(each, level, made)
        return made

    def _in_order(self, locations: list[Directive]) -> list[Directive]:
        """Sort locations as nginx tries them.

        These are exact paths, prefixes with ``^~`` from the longest, regular expressions, and other prefixes from the
        longest.
        """
        by_kind: dict[str, list[Directive]] = {kind: [] for kind in ("=", "^~", "~", "")}
        for each in locations:
            modifier = _matched(each)[0]
            if modifier not in ("", *KINDS):
                self._wrong(each, f"{modifier!r} is not understood here")
            else:
                by_kind["~" if modifier == "~*" else modifier].append(each)
        first = by_kind["^~"][:]
        last: list[Directive] = []
        for each in by_kind[""]:
            below = [other for other in by_kind["^~"] if _matched(each)[1].startswith(_matched(other)[1])]
            if below and by_kind["~"]:
                self._wrong(each, "is below a location with ^~, and before regular expressions: that is not supported")
            (first if below else last).append(each)
        longest = [sorted(each, key=lambda one: -len(_matched(one)[1])) for each in (first, last)]
        return [*by_kind["="], *longest[0], *by_kind["~"], *longest[1]]

    def _location(self, at: Directive, above: Level, server: Server) -> None:
        modifier, path = _matched(at)
        block = at.block or []
        level = self._level(block, above)
        route: dict[str, Any] = {}
        if path != "/" or modifier == "=":
            anywhere = f".*(?:{path}).*".replace(".*(?:^", "(?:").replace("$).*", ")")
            expression = {"~": anywhere, "~*": f"(?i:{anywhere})"}
            route[KINDS.get(modifier, "prefix")] = expression.get(modifier, path)
        passes = [each for each in block if each.name == "proxy_pass"]
        for each in block:
            if each.name not in ("proxy_pass", *OF_CHAINS):
                self._other(each)
        if not passes or not passes[0].args:
            self._wrong(at, "has no proxy_pass: responses that nginx makes itself are not supported")
            return
        found = re.fullmatch(r"(https?)://([^/$]+)(/[^$]*)?", passes[0].args[0])
        if found is not None and found[3] is not None and modifier in ("~", "~*"):
            self._wrong(passes[0], "has a path, which nginx does not allow in a location of a regular expression")
        if found is None:
            self._wrong(passes[0], f"{passes[0].args[0]!r} is not a server: write it as http://HOST:PORT")
            return
        scheme, name, uri = found.groups()
        if uri is not None:
            route["prefix_rewrite"] = uri
        if level.host not in ("$host", "$http_host"):
            route["host_rewrite"] = name if level.host == "$proxy_host" else level.host
            if "$" in route["host_rewrite"]:
                known = "$host, $http_host and $proxy_host are"
                self._wrong(at, f"sends {level.host} as Host: that is not supported; {known}")
        route["upstream"] = self._used(scheme, name, passes[0])
        server.locations.append((route, level.made, at))

    def _used(self, scheme: str, server: str, at: Directive) -> str:
        servers = [
            {**each, "url": each["url"].replace("http:", f"{scheme}:", 1)}
            for each in self._upstreams.get(server, [{"url": f"http://{server}", "weight": 1}])
        ]
        made: dict[str, Any] = {"url": servers[0]["url"]} if len(servers) == 1 else {"servers": servers}
        self._own.put(made, self._node(at), "upstreams", server)
        return server

    def _finish(self, whole: Level) -> None:
        """Put filters that all routes have at the top, and others into their routes."""
        self._own.data["allow_any_host"] = calls_of(self._calls)
        chains = [filters for _, filters, _ in self._routes]
        same = bool(chains) and all(each == chains[0] for each in chains)
        if not chains or same:
            for made in chains[0] if same else whole.made:
                self._own.add(made, self._node(Directive("", [], 1)), "filters")
        for route, filters, at in self._routes:
            self._own.add(route if same or not filters else {**route, "filters": filters}, self._node(at), "routes")


def _matched(location: Directive) -> tuple[str, str]:
    """A location's modifier, and its path or expression."""
    *modifier, path = location.args or [""]
    return " ".join(modifier), path

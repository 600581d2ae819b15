"""Reads Envoy's bootstrap, or one of its listeners, as far as a reverse proxy needs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxywasm_host.configuration.hosts import most_specific_first
from proxywasm_host.configuration.node import Node
from proxywasm_host.configuration.own import Own
from proxywasm_host.configuration.plugin_config import NETWORK_WASM, filter_of, plugin_of

__all__ = ["bootstrap", "cluster", "fits"]

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
POLICIES = {
    "ROUND_ROBIN": "round_robin",
    "LEAST_REQUEST": "least_requests",
    "RANDOM": "round_robin",
    "MAGLEV": "round_robin",
    "RING_HASH": "round_robin",
}
OURS = "serve has its own"
OF_MANAGER = """
    access_log stat_prefix codec_type server_name tracing http_protocol_options http2_protocol_options
    common_http_protocol_options normalize_path merge_slashes path_with_escaped_slashes_action request_timeout
    request_headers_timeout drain_timeout delayed_close_timeout preserve_external_request_id
    always_set_request_id_in_response via server_header_transformation skip_xff_append internal_address_config
    upgrade_configs
""".split()  # noqa: SIM905 - words


OF_ROUTER = """
    dynamic_stats start_child_span upstream_log upstream_log_options suppress_envoy_headers strict_check_headers
    respect_expected_rq_timeout suppress_grpc_request_failure_code_stats
""".split()  # noqa: SIM905 - words


def fits(data: Any) -> bool:
    """Whether a document is a bootstrap, a listener, or a list of resources with listeners."""
    if not isinstance(data, dict):
        return False
    return any(
        key in data
        for key in ("static_resources", "staticResources", "filter_chains", "filterChains", "dynamic_resources")
    )


def bootstrap(root: Node, own: Own) -> None:
    """Put a bootstrap, or a listener alone, into the own form."""
    if not (root.has("static_resources") or root.has("dynamic_resources")):
        listener(root, own)
        root.done()
        return
    if root.has("dynamic_resources"):
        root.take("dynamic_resources").wrong("proxywasm uses no control plane: write static_resources")
    resources = root.take("static_resources")
    listeners = resources.take("listeners").each()
    if not listeners:
        resources.take("listeners").wrong("there is no listener: write one")
    for each in listeners:
        listener(each, own)
    named = set(own.data.get("upstreams", ()))
    routed = own.data.get("routes", ())
    of_http = {name for each in routed for name in (each.get("upstream"), *each.get("weighted", ()))}
    for each in resources.take("clusters").each():
        name, said = cluster(each)
        if name in named:
            own.put(said if name in of_http else without_http(said), each, "upstreams", name)
        own.put(callable_cluster(said), each, "clusters", name)
    known = set(own.data.get("clusters", ()))
    for name in sorted(named - known):
        resources.wrong(f"a route goes to the cluster {name!r}, which is not among the clusters")
    resources.done()
    admin = root.take("admin")
    if admin.has("address"):
        own.put(address(admin), admin, "admin")
    admin.ignore(OURS, "access_log", "access_log_path", "profile_path", "ignore_global_conn_limit")
    admin.done()
    node = root.take("node")
    for key in ("id", "cluster"):
        if text := node.take(key).text():
            own.put(text, node, "properties", f"xds.node.{key}")
    node.ignore("filters see id and cluster", "metadata", "locality")
    node.done()
    root.ignore(
        OURS,
        "stats_sinks",
        "stats_config",
        "layered_runtime",
        "overload_manager",
        "watchdogs",
        "bootstrap_extensions",
        "stats_flush_interval",
    )
    root.done()


def listener(node: Node, own: Own) -> None:
    """Convert a listener: its address, TLS, and its HTTP connection manager, or network filters and a TCP proxy."""
    at = address(node)
    chains = node.take("filter_chains").each()
    if len(chains) != 1:
        node.wrong(f"a listener of serve has one filter chain, and this one has {len(chains)}: keep one")
    for chain in chains[:1]:
        socket = chain.take("transport_socket")
        tls = server_tls(socket) if socket else None
        chain.ignore("there is one chain", "name")
        filters: list[dict[str, Any]] = []
        last = ""
        for each in chain.take("filters").each():
            plugin = plugin_of(each, NETWORK_WASM)
            config = each.take("typed_config")
            each.drop("name")
            kind = str((config.value or {}).get("@type", "")).rpartition("/")[2]
            if last:
                each.wrong(f"comes after {last.rpartition('.')[2]}, which ends the chain")
            elif plugin is not None:
                filters.append(filter_of(plugin))
            elif kind == MANAGER:
                last = kind
                if filters:
                    each.wrong("network filters before HTTP are not supported here, only before a TcpProxy")
                elif "listen" in own.data:
                    each.wrong("serve has one listener for HTTP, and this file has several: keep one")
                config.take("@type")
                own.put(at, node, "listen")
                own.put(tls, socket, "tls")
                manager(config, own)
            elif kind == TCP_PROXY:
                last = kind
                said = {"listen": at, "filters": filters, "tls": tls, **tcp_proxy(config)}
                own.add({key: value for key, value in said.items() if value}, node, "tcp")
                own.data.setdefault("upstreams", {}).setdefault(said["upstream"], {})
            else:
                what = kind or each.value
                each.wrong(f"the network filter {what!r} is not supported: HttpConnectionManager, Wasm, TcpProxy are")
            each.done()
        if not last:
            chain.wrong("has neither an HttpConnectionManager nor a TcpProxy")
        chain.done()
    node.ignore("nothing refers to it here", "name", "stat_prefix", "traffic_direction")
    node.ignore(
        OURS,
        "per_connection_buffer_limit_bytes",
        "listener_filters",
        "socket_options",
        "access_log",
        "reuse_port",
        "enable_reuse_port",
        "tcp_backlog_size",
    )
    node.done()


def tcp_proxy(node: Node) -> dict[str, Any]:
    """The upstream and options of a TCP proxy, for an item of `tcp`."""
    node.drop("@type")
    if node.has("weighted_clusters"):
        node.take("weighted_clusters").wrong("a TCP listener has one upstream: write cluster")
    elif not node.has("cluster"):
        node.wrong("has no cluster")
    node.ignore(OURS, "stat_prefix", "access_log", "access_log_options")
    made = {
        "upstream": node.take("cluster").text(),
        "connect_attempts": node.take("max_connect_attempts").number(1),
        "idle_timeout": node.take("idle_timeout").seconds(),
    }
    node.done()
    return made


def without_http(upstream: dict[str, Any]) -> dict[str, Any]:
    """An upstream with the schemes of TCP instead of HTTP."""

    def renamed(url: str) -> str:
        scheme, _, rest = url.partition("://")
        return f"{'tls' if scheme == 'https' else 'tcp'}://{rest}"

    made = {key: value for key, value in upstream.items() if key != "protocol"}
    if "url" in made:
        made["url"] = renamed(made["url"])
    if "servers" in made:
        made["servers"] = [{**each, "url": renamed(each["url"])} for each in made["servers"]]
    return made


def manager(node: Node, own: Own) -> None:
    """Convert an HTTP connection manager: routes and filters."""
    filters = node.take("http_filters").each()
    for each in filters:
        plugin = plugin_of(each)
        config = each.take("typed_config")
        kind = str((config.value or {}).get("@type", "")).rpartition("/")[2]
        each.drop("name", "is_optional")
        if each.take("disabled").flag():
            each.warn("it is disabled")
        elif plugin is not None:
            own.add(filter_of(plugin), plugin, "filters")
        elif kind == ROUTER or each.take("name").text() == "envoy.filters.http.router":
            config.drop("@type")
            config.ignore(OURS, *OF_ROUTER)
            config.done()
        else:
            each.wrong(
                f"the filter {each.take('name').text() or kind!r} is part of Envoy, and proxywasm does not have it"
            )
        each.done()
    if node.has("rds"):
        node.take("rds").wrong("proxywasm uses no control plane: write route_config")
    routes(node.take("route_config"), own)
    own.put(node.take("stream_idle_timeout").seconds(), node, "stream_idle_timeout")
    forwarded = {
        "use_remote_address": node.take("use_remote_address").flag(),
        "xff_num_trusted_hops": node.take("xff_num_trusted_hops").number(),
        "generate_request_id": node.take("generate_request_id").flag(True),
    }
    own.put(forwarded, node, "forwarded")
    node.ignore(OURS, *OF_MANAGER)
    node.done()


def routes(config: Node, own: Own) -> None:
    """Convert a route table to routes of serve: those of each virtual host, in the order of its domains' precedence."""
    named = []
    for host in config.take("virtual_hosts").each():
        domains = dict.fromkeys(_without_port(each.text()) for each in host.take("domains").each())
        if not host.take("name").text():
            host.wrong("has no name")
        made = [(each, one) for each in host.take("routes").each() if (one := route(each))]
        named.append(((host.take("name").text(), made), [*domains]))
        host.done()
    for (name, made), names in most_specific_first(named):
        hosts: dict[str, Any] = {} if "*" in names else {"hosts": names}
        for each, one in made:
            own.add({**one, "virtual_host": name, **hosts}, each, "routes")
            for upstream in [one["upstream"]] if "upstream" in one else one.get("weighted", ()):
                own.data.setdefault("upstreams", {}).setdefault(upstream, {})
    config.ignore("it has no effect on requests", "name", "ignore_port_in_host_matching", "validate_clusters")
    config.done()


def _without_port(domain: str) -> str:
    host, colon, port = domain.rpartition(":")
    return host if colon and port.isdigit() else domain


def route(node: Node) -> dict[str, Any] | None:
    """One route; ``None`` if it is wrong."""
    made: dict[str, Any] = {"name": node.take("name").text()}
    match = node.take("match")
    made |= {"prefix": match.take("prefix").text(), "path": match.take("path").text()}
    if match.has("path_separated_prefix"):
        prefix = match.take("path_separated_prefix").text()
        made["regex"] = f"{prefix}(/.*)?"
    expression = match.take("safe_regex")
    made["regex"] = made.get("regex") or expression.take("regex").text()
    expression.drop("google_re2")
    expression.done()
    for each in match.take("headers").each():
        name, value = each.take("name").text(), each.take("exact_match").text()
        matcher = each.take("string_match")
        value = value or matcher.take("exact").text()
        if name == ":method" and value:
            made["methods"] = [value]
        elif value:
            made.setdefault("headers", {})[name] = value
        else:
            each.wrong("routes match headers by their whole value: write string_match: {exact: …}")
        matcher.done()
        each.done()
    match.done()
    if made["prefix"] == "/":
        made["prefix"] = ""
    action, redirected, answer = node.take("route"), node.take("redirect"), node.take("direct_response")
    if redirected:
        made["redirect"] = redirect(redirected)
    elif answer:
        made["direct_response"] = {"status": answer.take("status").number(200)}
        text = answer.take("body")
        made["direct_response"]["body"] = text.take("inline_string").text()
        text.done()
        answer.done()
    elif not action:
        node.wrong("has none of `route`, `redirect` and `direct_response`")
        return None
    weighted = action.take("weighted_clusters")
    for each in weighted.take("clusters").each():
        made.setdefault("weighted", {})[each.take("name").text()] = each.take("weight").number()
        each.done()
    weighted.drop("total_weight")
    weighted.done()
    made["upstream"] = action.take("cluster").text()
    made["cluster_header"] = action.take("cluster_header").text()
    made["prefix_rewrite"] = action.take("prefix_rewrite").text()
    made["host_rewrite"] = action.take("host_rewrite_literal").text()
    timeout = action.take("timeout").seconds()
    made["timeout"] = timeout or None
    retry = action.take("retry_policy")
    if retry:
        made["retry"] = {
            "retry_on": [word.strip() for word in retry.take("retry_on").text().split(",")],
            "num_retries": retry.take("num_retries").number(1),
            "per_try_timeout": retry.take("per_try_timeout").seconds(),
            "retriable_status_codes": [each.number() for each in retry.take("retriable_status_codes").each()],
        }
        made["retry"] = {name: value for name, value in made["retry"].items() if value not in (None, [])}
        retry.ignore(
            "retries go to another server if there is one", "retry_host_predicate", "host_selection_retry_max_attempts"
        )
        retry.done()
    action.done()
    node.done()
    return {name: value for name, value in made.items() if value not in ("", None, {})}


STATUSES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}


def redirect(node: Node) -> dict[str, Any]:
    """The redirect of a route."""
    made = {
        "scheme": "https" if node.take("https_redirect").flag() else node.take("scheme_redirect").text(),
        "host": node.take("host_redirect").text(),
        "port": node.take("port_redirect").number(0),
        "path": node.take("path_redirect").text(),
        "prefix_rewrite": node.take("prefix_rewrite").text(),
        "strip_query": node.take("strip_query").flag(),
    }
    status = node.take("response_code")
    if status:
        made["status"] = status.among(STATUSES)
    node.done()
    return {name: value for name, value in made.items() if value}


def cluster(node: Node) -> tuple[str, dict[str, Any]]:
    """The name of a cluster, and its upstream in the own form."""
    name = node.take("name").text()
    made: dict[str, Any] = {"connect_timeout": node.take("connect_timeout").seconds()}
    tls = node.take("transport_socket")
    scheme = "https" if tls else "http"
    if tls:
        made["tls"] = upstream_tls(tls)
    assignment = node.take("load_assignment")
    servers = []
    for locality in assignment.take("endpoints").each():
        for each in locality.take("lb_endpoints").each():
            endpoint = each.take("endpoint")
            url = f"{scheme}://{address(endpoint)}"
            servers.append({"url": url, "weight": each.take("load_balancing_weight").number(1)})
            endpoint.ignore("servers are judged by their answers", "health_check_config", "hostname")
            each.ignore(OURS, "health_status", "metadata")
            endpoint.done()
            each.done()
        locality.ignore("all servers are treated alike", "locality", "priority", "load_balancing_weight")
        locality.done()
    assignment.drop("cluster_name")
    assignment.done()
    if not servers:
        node.wrong("has no endpoints: write load_assignment")
    elif len(servers) == 1:
        made["url"] = servers[0]["url"]
    else:
        made["servers"] = servers
    policy = node.take("lb_policy")
    made["balance"] = policy.among(POLICIES) if len(servers) > 1 else None
    if str(policy.value) in ("RANDOM", "MAGLEV", "RING_HASH") and len(servers) > 1:
        policy.warn("servers take turns")
    if protocol(node):
        made["protocol"] = "http2"
    outliers = node.take("outlier_detection")
    if outliers:
        made["outlier_detection"] = {
            "consecutive_5xx": outliers.take("consecutive_5xx").number(5),
            "base_ejection_time": outliers.take("base_ejection_time").seconds() or 30.0,
            "max_ejection_percent": outliers.take("max_ejection_percent").number(10),
        }
        outliers.ignore(
            "only consecutive errors eject a server",
            "interval",
            "success_rate_minimum_hosts",
            "enforcing_consecutive_5xx",
        )
        outliers.done()
    breakers = node.take("circuit_breakers")
    for limits in breakers.take("thresholds").each():
        for key in ("max_connections", "max_pending_requests", "max_requests"):
            if limits.has(key):
                made[key] = limits.take(key).number()
        limits.ignore(OURS, "max_retries", "priority", "track_remaining")
        limits.done()
    breakers.done()
    node.ignore(
        "names are looked up whenever a connection is made",
        "type",
        "dns_lookup_family",
        "respect_dns_ttl",
        "dns_refresh_rate",
    )
    node.ignore("servers are judged by their answers", "health_checks")
    node.ignore(
        OURS,
        "alt_stat_name",
        "per_connection_buffer_limit_bytes",
        "metadata",
        "common_lb_config",
        "upstream_connection_options",
        "ignore_health_on_host_removal",
    )
    node.done()
    return name, {key: value for key, value in made.items() if value not in (None, {}, [])}


def protocol(node: Node) -> bool:
    """Whether a cluster uses HTTP/2."""
    http2 = node.has("http2_protocol_options")
    _without_options(node)
    for kind, options in node.take("typed_extension_protocol_options").entries():
        if kind != HTTP_OPTIONS:
            options.wrong(f"is not understood here; {HTTP_OPTIONS} is")
            continue
        options.drop("@type")
        explicit = options.take("explicit_http_config")
        http2 = http2 or explicit.has("http2_protocol_options")
        _without_options(explicit)
        options.ignore(OURS, "common_http_protocol_options", "upstream_http_protocol_options")
        explicit.done()
        options.done()
    return http2


def _without_options(node: Node) -> None:
    """Take the options of HTTP/1 and HTTP/2, which have no effect beyond the choice between the two."""
    for key in ("http_protocol_options", "http2_protocol_options"):
        options = node.take(key)
        if options.value:
            options.warn(OURS)


def callable_cluster(said: dict[str, Any]) -> dict[str, Any]:
    """An upstream as a cluster that filters can call: its first server."""
    url = said.get("url") or (said["servers"][0]["url"] if "servers" in said else "")
    made = {"url": url, "connect_timeout": said.get("connect_timeout"), "http2": said.get("protocol") == "http2"}
    tls = {key: value for key, value in said.get("tls", {}).items() if key != "server_name"}
    made["tls"] = tls
    return {key: value for key, value in made.items() if value not in (None, {}, False)}


def address(node: Node) -> str:
    """The address of a listener or endpoint, as ``HOST:PORT``."""
    where = node.take("address")
    socket = where.take("socket_address")
    if where and not socket:
        where.wrong("is not the address of a socket: write socket_address")
    where.done()
    host, port = socket.take("address").text("127.0.0.1"), socket.take("port_value").number()
    socket.drop("protocol")
    socket.done()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def files(nodes: Iterable[Node]) -> str:
    """The file of a ``DataSource``."""
    for node in nodes:
        if not node.has("filename") and node:
            node.wrong("must be a file: write filename")
        text = node.take("filename").text()
        node.done()
        if text:
            return text
    return ""


def server_tls(socket: Node) -> dict[str, Any]:
    """The TLS settings towards clients."""
    config, common, validation = _tls(socket)
    made = certificate(common)
    if config.take("require_client_certificate").flag():
        made["client_ca"] = files([validation.take("trusted_ca")])
    common.ignore("HTTP/1.1 and HTTP/2 are offered", "alpn_protocols")
    return _all_taken(made, socket, config, common, validation)


def upstream_tls(socket: Node) -> dict[str, Any]:
    """The TLS settings towards a server. Without authorities, Envoy does not check its certificate."""
    config, common, validation = _tls(socket)
    made: dict[str, Any] = {"server_name": config.take("sni").text()} | certificate(common)
    made["ca"] = files([validation.take("trusted_ca")])
    validation.ignore("the requested name is checked", "match_typed_subject_alt_names", "match_subject_alt_names")
    common.ignore("the upstream's protocol decides it", "alpn_protocols")
    found = _all_taken(made, socket, config, common, validation)
    return found if "ca" in found else found | {"verify": False}


def _tls(socket: Node) -> tuple[Node, Node, Node]:
    """The parts of a transport socket: its configuration, the common TLS context, and the validation context."""
    socket.drop("name")
    config = socket.take("typed_config")
    config.drop("@type")
    common = config.take("common_tls_context")
    common.ignore(OURS, "tls_params")
    return config, common, common.take("validation_context")


def _all_taken(made: dict[str, Any], *nodes: Node) -> dict[str, Any]:
    """`made` without empty values. Reports keys of the nodes that were not taken."""
    for each in nodes:
        each.done()
    return {key: value for key, value in made.items() if value}


def certificate(common: Node) -> dict[str, Any]:
    """A certificate and its key."""
    made: dict[str, Any] = {}
    for each in common.take("tls_certificates").each():
        if made:
            each.wrong("is the second certificate: serve has one for a listener")
        made = {"certificate": files([each.take("certificate_chain")]), "key": files([each.take("private_key")])}
        each.done()
    return made

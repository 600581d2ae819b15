"""Header maps.

Rules, from Envoy's header map (``header_map_impl.cc``) and ``context.cc``:

* A name is compared and stored in lower case; ``host`` of a request is ``:authority``.
* Pseudo headers come first. An added or replaced header goes to the end of its group.
* Some headers occur only once (Envoy's inline headers, `INLINE`): an added value is joined with a comma.
* Outside of its phase a map is absent. Reading all pairs of an absent map returns none; anything else is refused.

A rule of ours: a guest can add as much to a map as it could send at once (`pairs`); more is refused. Headers of the
client and of other filters do not count (`Context.map_limits`).
"""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal, misuse
from proxywasm_host.abi.native import check_constants
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import AbiVersion, MapType, Status

STREAM_MAPS = 4
"""Maps below this number belong to the stream; others belong to a callout's reply and cannot be changed."""


check_constants(STREAM_MAPS=STREAM_MAPS)
WORDS = tuple(map.name.lower().replace("_", " ") for map in MapType)
"""Names of the maps for messages."""


def readable(vm: VmState, map: int) -> HeaderList | None:
    """A map that can be read now, or ``None``."""
    context = vm.context
    headers = context.maps[map] if map < STREAM_MAPS else context.root.maps[map]
    return context.past_headers(map) if headers is None and vm.profile.headers_stay else headers


def absent(vm: VmState, map: int) -> Refusal:
    """BAD_ARGUMENT, for a map that cannot be read or changed in this callback."""
    if vm.profile.headers_stay and vm.context.past_headers(map) is not None:
        return misuse(vm, "{0} have been passed on, and can no longer be changed", WORDS[map])
    return Refusal(Status.BAD_ARGUMENT, "{0} are not available in this callback", WORDS[map])


def not_found(map: int, key: bytes) -> Refusal:
    """NOT_FOUND, for a header that is not in its map."""
    return Refusal(Status.NOT_FOUND, "no {1!r} in the {0}", WORDS[map], canonical(map, key))


def writable(vm: VmState, map: int) -> HeaderList | Refusal:
    """A map that can be changed now, or the reason why it cannot (``getMap`` in ``context.cc``).

    A message without trailers can get some in the body callback that ends the stream (specification, "HTTP fields";
    ``addDecodedTrailers`` in Envoy). ``on_log`` cannot change any map, and nothing can change a callout's reply.
    """
    context = vm.context
    if map < STREAM_MAPS and not context.read_only:
        headers = context.maps[map]
        if headers is None:
            headers = context.add_trailers(map)
        if headers is None and vm.profile.misuse_fails:
            return misuse(vm, "the {0} cannot be changed in this callback", WORDS[map])
        return absent(vm, map) if headers is None else headers
    if map >= STREAM_MAPS:
        return misuse(vm, "{0} cannot be changed: they are a callout's reply", WORDS[map])
    return misuse(vm, "{0} cannot be changed while the stream is logged", WORDS[map])


def proxy_get_header_map_value(vm: VmState, map: int, key: bytes) -> bytes | Refusal:
    """The value of a header: of several with that name, the first one, as in Envoy.

    A missing header is NOT_FOUND; in ABI 0.1.0 it is OK with an empty value (``get_header_map_value`` in
    ``exports.cc``). An absent map is BAD_ARGUMENT, except in ``on_log``, where it has no headers.
    """
    context = vm.context
    headers = readable(vm, map)
    if headers is None and not context.read_only:
        return absent(vm, map)
    key = key.lower()
    if map == 0 and key == b"host":
        key = b":authority"
    for name, value in headers or ():
        if name == key:
            return value
    if vm.version == AbiVersion.V0_1_0:
        return b""
    return not_found(map, key)


def proxy_get_header_map_pairs(vm: VmState, map: int) -> HeaderList | Refusal:
    """All headers of a map. For an absent map, Envoy answers OK without headers; see `absent_map_has_no_pairs`."""
    headers = readable(vm, map)
    if headers is None:
        if vm.profile.absent_map_has_no_pairs:  # getHeaderMapPairs in context.cc
            return []
        return absent(vm, map)
    return headers


def proxy_get_header_map_size(vm: VmState, map: int) -> int | Refusal:
    """Bytes of all names and values; BAD_ARGUMENT where the map cannot be changed, as in Envoy."""
    headers = writable(vm, map)  # getHeaderMapSize in context.cc looks for a map that can be changed
    if isinstance(headers, Refusal):
        past = vm.context.past_headers(map) if vm.profile.headers_stay else None
        if past is None:
            return headers
        headers = past
    return sum(len(name) + len(value) for name, value in headers)


FEW, SMALL = 64, 1024
"""A header this small is added to a map this short without summing up its size."""


def overfull(vm: VmState, headers: HeaderList, map: int, size: int, joins: bool = False) -> Refusal | None:
    """Why a header of `size` bytes cannot be added to a map, or joined to one in it; ``None`` if it can."""
    if len(headers) < FEW and size <= SMALL and not joins:
        return None
    max_headers, max_bytes = vm.context.map_limits(map)
    if len(headers) >= max_headers:
        return Refusal(Status.INTERNAL_FAILURE, "there are {0} {1}, which is the limit", len(headers), WORDS[map])
    used = sum(len(name) + len(value) for name, value in headers)
    if used + size <= max_bytes:
        return None
    return Refusal(
        Status.INTERNAL_FAILURE,
        "the {0} have {1} bytes, {2} more would be beyond the limit of {3}",
        WORDS[map],
        used,
        size,
        max_bytes,
    )


def proxy_add_header_map_value(vm: VmState, map: int, key: bytes, value: bytes) -> Refusal | None:
    """Add a header, or join its value to an inline header (see above; ``addCopy`` in ``header_map_impl.cc``)."""
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    key = canonical(map, key)
    refusal = overfull(vm, headers, map, len(key) + len(value), key in INLINE[map])
    if refusal is None:
        put(vm, headers, map, key, value)
    return refusal


def put(vm: VmState, headers: HeaderList, map: int, key: bytes, value: bytes) -> None:
    """Add a header as the profile says."""
    if vm.profile.inline_headers:
        add(headers, map, key, value)
    else:
        append(headers, key, value)


def proxy_replace_header_map_value(vm: VmState, map: int, key: bytes, value: bytes) -> Refusal | None:
    """Set the only value of a header; other values are removed (``setCopy`` in ``header_map_impl.cc``)."""
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    key = canonical(map, key)
    refusal = overfull(vm, headers, map, len(key) + len(value))
    if refusal is not None:
        refusal = overfull(vm, [pair for pair in headers if pair[0] != key], map, len(key) + len(value))
    if refusal is None:
        replace(headers, key, value)
    return refusal


def proxy_remove_header_map_value(vm: VmState, map: int, key: bytes) -> Refusal | None:
    """Remove all headers with a name; OK even without any (``removeHeaderMapValue`` in ``context.cc``)."""
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    remove(headers, canonical(map, key))
    return None


def proxy_set_header_map_pairs(vm: VmState, map: int, pairs: HeaderList) -> Refusal | None:
    """Replace a whole map. Malformed pairs count as none, so they clear the map, as in Envoy (`read_pairs`)."""
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    headers.clear()  # setHeaderMapPairs in context.cc removes all headers first, even if the pairs are malformed
    for key, value in pairs:
        put(vm, headers, map, canonical(map, key), value)
    return None


def canonical(map: int, key: bytes) -> bytes:
    """The name under which a map keeps a header: lower case, and ``:authority`` for a request's ``host``."""
    key = key.lower()
    return b":authority" if key == b"host" and map == MapType.REQUEST_HEADERS else key


def add(headers: HeaderList, map: int, key: bytes, value: bytes) -> None:
    """Add a header; a value of an existing inline header is joined with a comma."""
    if key in INLINE[map]:
        for at, (name, old) in enumerate(headers):
            if name == key:
                headers[at] = key, b"%b,%b" % (old, value)
                return
    if key[:1] == b":":
        append(headers, key, value)
    else:
        headers.append((key, value))


def joined(headers: HeaderList, map: int) -> HeaderList:
    """Headers as Envoy keeps them: the values of an inline header are joined, at the place of the first."""
    places: dict[bytes, int] = {}
    result: HeaderList = []
    for name, value in headers:
        if name in places:
            at = places[name]
            result[at] = name, b"%b,%b" % (result[at][1], value)
            continue
        if name in INLINE[map]:
            places[name] = len(result)
        result.append((name, value))
    return result


def append(headers: HeaderList, key: bytes, value: bytes) -> None:
    """Add a header at the end of its group."""
    if key[:1] == b":":
        headers.insert(sum(name[:1] == b":" for name, _ in headers), (key, value))
    else:
        headers.append((key, value))


def remove(headers: HeaderList, key: bytes) -> None:
    """Remove every header with that name."""
    for name, _ in headers:
        if name == key:
            headers[:] = [pair for pair in headers if pair[0] != key]
            return


def replace(headers: HeaderList, key: bytes, value: bytes) -> None:
    """Set the only header with that name, at the end of its group."""
    remove(headers, key)
    append(headers, key, value)


COMMON = b"cache-control connection content-encoding content-length content-type keep-alive proxy-connection \
proxy-status transfer-encoding upgrade via x-request-id x-envoy-attempt-count x-envoy-decorator-operation"
OF_REQUESTS = b":authority :path :method :scheme :protocol accept accept-encoding access-control-request-headers \
access-control-request-method authorization expect grpc-accept-encoding grpc-timeout if-match if-modified-since \
if-none-match origin pragma referer te user-agent x-client-trace-id x-forwarded-for x-forwarded-proto \
x-forwarded-host x-forwarded-port x-forwarded-client-cert x-envoy-downstream-service-cluster \
x-envoy-downstream-service-node x-envoy-expected-rq-timeout-ms x-envoy-external-address x-envoy-force-trace \
x-envoy-hedge-on-per-try-timeout x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry x-envoy-max-retries \
x-envoy-original-host x-envoy-original-path x-envoy-retry-grpc-on x-envoy-retry-on x-envoy-retriable-header-names \
x-envoy-retriable-status-codes x-envoy-upstream-alt-stat-name x-envoy-upstream-rq-per-try-timeout-ms \
x-envoy-upstream-rq-timeout-alt-response x-envoy-upstream-rq-timeout-ms x-envoy-upstream-stream-duration-ms"
OF_RESPONSES = b":status access-control-allow-origin age date etag expires grpc-message grpc-status last-modified \
location server vary x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster x-envoy-upstream-service-time \
x-envoy-ratelimited x-envoy-immediate-health-check-fail x-envoy-degraded"

INLINE: tuple[frozenset[bytes], ...] = (
    frozenset((COMMON + b" " + OF_REQUESTS).split()),
    frozenset(),
    frozenset((COMMON + b" " + OF_RESPONSES).split()),
    frozenset((b"grpc-message", b"grpc-status")),
)
"""Headers that Envoy keeps once, by `MapType`. Observed in Envoy 1.40."""

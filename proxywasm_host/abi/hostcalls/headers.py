"""Header maps.

A name is compared and stored in lower case. A map is absent when its phase is not running; what is said of an absent
map, and which status it is, follows Envoy's ``context.cc``.
"""

from __future__ import annotations

from proxywasm_host.abi.context import VmState
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import AbiVersion, MapType, Status

STREAM_MAPS = 4
"""Maps below this number belong to the stream; the others to a callout's reply, and cannot be changed."""


WORDS = tuple(map.name.lower().replace("_", " ") for map in MapType)
"""Names of the maps in sentences."""


def readable(vm: VmState, map: int) -> HeaderList | None:
    context = vm.context
    return context.maps[map] if map < STREAM_MAPS else context.root.maps[map]


def absent(vm: VmState, map: int) -> Refusal:
    return Refusal(Status.BAD_ARGUMENT, "{0} are not available in this callback", WORDS[map])


def writable(vm: VmState, map: int) -> HeaderList | Refusal:
    context = vm.context
    if map >= STREAM_MAPS:
        return Refusal(Status.BAD_ARGUMENT, "{0} cannot be changed: they are a callout's reply", WORDS[map])
    if context.read_only:
        return Refusal(Status.BAD_ARGUMENT, "{0} cannot be changed while the stream is logged", WORDS[map])
    headers = context.maps[map]
    if headers is None:
        headers = context.add_trailers(map)
        if headers is None:
            return absent(vm, map)
    return headers


def proxy_get_header_map_value(vm: VmState, map: int, key: bytes) -> bytes | Refusal:
    context = vm.context
    headers = context.maps[map] if map < STREAM_MAPS else context.root.maps[map]
    if headers is None and not context.read_only:
        return absent(vm, map)
    key = key.lower()
    for name, value in headers or ():
        if name == key:
            return value
    if vm.version == AbiVersion.V0_1_0:
        return b""
    return Refusal(Status.NOT_FOUND, "no {1!r} in the {0}", WORDS[map], key)


def proxy_get_header_map_pairs(vm: VmState, map: int) -> HeaderList | Refusal:
    headers = readable(vm, map)
    if headers is None:
        if vm.profile.absent_map_has_no_pairs:
            return []
        return absent(vm, map)
    return headers


def proxy_get_header_map_size(vm: VmState, map: int) -> int | Refusal:
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    return sum(len(name) + len(value) for name, value in headers)


def proxy_add_header_map_value(vm: VmState, map: int, key: bytes, value: bytes) -> Refusal | None:
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    headers.append((key.lower(), value))
    return None


def proxy_replace_header_map_value(vm: VmState, map: int, key: bytes, value: bytes) -> Refusal | None:
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    replace(headers, key.lower(), value)
    return None


def replace(headers: HeaderList, key: bytes, value: bytes) -> None:
    """Leave one header of that name, in the place of the first, or at the end if there was none."""
    for at, pair in enumerate(headers):
        if pair[0] == key:
            headers[at] = (key, value)
            remove(headers, key, at + 1)
            return
    headers.append((key, value))


def remove(headers: HeaderList, key: bytes, start: int = 0) -> None:
    """Take out every header of that name, from index `start` on."""
    for pair in headers[start:]:
        if pair[0] == key:
            headers[start:] = [other for other in headers[start:] if other[0] != key]
            return


def proxy_remove_header_map_value(vm: VmState, map: int, key: bytes) -> Refusal | None:
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    remove(headers, key.lower())
    return None


def proxy_set_header_map_pairs(vm: VmState, map: int, pairs: HeaderList) -> Refusal | None:
    headers = writable(vm, map)
    if isinstance(headers, Refusal):
        return headers
    headers[:] = [(name.lower(), value) for name, value in pairs]
    return None

"""The parts of WebAssembly's binary format that packing needs: numbers, sections, data segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = [
    "data_section",
    "exports",
    "imports",
    "module",
    "prepended",
    "read_signed",
    "read_unsigned",
    "sections",
    "signed",
    "unsigned",
    "vector",
]


def unsigned(value: int) -> bytes:
    """`value` as LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """`value` as signed LEB128."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def read_signed(data: bytes, at: int) -> tuple[int, int]:
    """The signed number at `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value - (1 << shift if byte & 0x40 else 0), at


def sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and content of each section."""
    at = 8
    while at < len(module):
        number = module[at]
        size, at = read_unsigned(module, at + 1)
        yield number, module[at : at + size]
        at += size


def module(sections: Iterable[tuple[int, bytes]]) -> bytes:
    """A module with these sections."""
    return b"\0asm\1\0\0\0" + b"".join(
        bytes([number]) + unsigned(len(content)) + content for number, content in sections
    )


def data_section(segments: list[tuple[int, bytes]]) -> bytes:
    """A data section that puts each content at its address."""
    return unsigned(len(segments)) + b"".join(
        b"\0\x41" + signed(address) + b"\x0b" + unsigned(len(content)) + content for address, content in segments
    )


def vector(items: Sequence[bytes]) -> bytes:
    """Items after their count, the form of most sections."""
    return unsigned(len(items)) + b"".join(items)


def prepended(section: bytes, items: Sequence[bytes]) -> bytes:
    """A section with more items before its own."""
    count, at = read_unsigned(section, 0)
    return unsigned(count + len(items)) + b"".join(items) + section[at:]


def _name(section: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_unsigned(section, at)
    return section[at : at + size], at + size


def imports(section: bytes) -> list[tuple[bytes, int, bytes]]:
    """The imports in a section that imports only functions: name, number of the type, and the whole entry."""
    count, at = read_unsigned(section, 0)
    out = []
    for _ in range(count):
        begin = at
        _, at = _name(section, at)
        name, at = _name(section, at)
        assert section[at] == 0, "imports are functions"
        kind, at = read_unsigned(section, at + 1)
        out.append((name, kind, section[begin:at]))
    return out


def exports(section: bytes, renamed: Mapping[bytes, bytes | None]) -> bytes:
    """An export section with some exports renamed, or removed (None)."""
    count, at = read_unsigned(section, 0)
    kept = []
    for _ in range(count):
        name, at = _name(section, at)
        begin = at
        _, at = read_unsigned(section, at + 1)
        new = renamed.get(name, name)
        if new is not None:
            kept.append(unsigned(len(new)) + new + section[begin:at])
    return vector(kept)

"""HTTP/1.1 as bytes (RFC 9112): heads and the framing of bodies, for the side of clients and that of upstream.

Rules of this module:

* What the RFC calls invalid, or leaves to be taken in more ways than one, is refused and not mended: whoever is before
  or behind us may have taken it another way.
* Lines end with CRLF, nothing is folded, and a value has no control characters but tabs.
* Names come out in lower case, values without white space around them; trailers are checked and dropped.
* Nothing is kept beyond the limits: not of a head, whose bytes on the wire are its size here, of a trailer section, or
  of the line before a chunk.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.runtime.header_limits import HeaderLimits

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Body",
    "Malformed",
    "Request",
    "Response",
    "beginning",
    "fields",
    "read_request",
    "read_response",
]

TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
FIELD = re.compile(rb"(%b):(%b)\r\n" % (TCHAR, TEXT))
FIELDS = re.compile(rb"(?:%b:%b\r\n)*" % (TCHAR, TEXT))
REQUEST_LINE = re.compile(rb"(%b) ([!\"$-~\x80-\xff]+) HTTP/([0-9])\.([0-9])\r\n" % TCHAR)  # no fragment
METHOD = re.compile(rb"%b(?: |$)|\r?$" % TCHAR)
METHOD_BYTES = 64
"""So much of a request line tells whether it begins with a method."""
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: %b)?\r\n" % TEXT)
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;%b)?\r\n" % TEXT)
LONE_LF = re.compile(rb"(?<!\r)\n")
AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+;=%-]*)(?::[0-9]{0,5})?", re.ASCII)
ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
LENGTH = re.compile(rb"[0-9]{1,18}")
FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))
"""Headers by which a message is read."""
CHUNK_LINE = 4096
"""Bytes of the line before a chunk, with its extensions."""


class Malformed(Exception):
    """This is no message, or too large a one. A client is answered `status` and the text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


# -- Heads -------------------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """The head of a request. `target` is in origin form or ``*``; an absolute one has given its authority to Host."""

    method: bytes
    target: bytes
    version: str
    headers: HeaderList
    body: Body
    keep_alive: bool
    """Whether the client may send another."""
    expects: bool
    """Whether the client waits for 100 Continue."""


class Response(NamedTuple):
    """The head of a response."""

    status: int
    headers: HeaderList
    body: Body
    keep_alive: bool
    """Whether the connection may have another."""


def read_request(head: bytes, limits: HeaderLimits) -> Request:
    """Read a head up to and with its empty line. Raises: Malformed."""
    line = _request_line(head)
    method, target, _, version = line.groups()
    minor = version != b"0"
    authority: bytes | None = None
    if method == b"CONNECT":
        raise Malformed(501, "CONNECT is not supported")
    if target[:1] != b"/":
        authority, target = _target(method, target)
    headers = fields(head[line.end() : -2], limits)
    hosts, length, coding, keep_alive, expects = 0, None, None, minor, False
    for name, value in headers:
        if name not in FRAMING:
            continue
        if name == b"host":
            hosts += 1
            if not AUTHORITY.fullmatch(value):
                raise Malformed(400, "the Host is invalid")
        elif name == b"content-length":
            length = value if length is None else length + b"," + value
        elif name == b"transfer-encoding":
            coding = value if coding is None else coding + b"," + value
        elif name == b"connection":
            keep_alive = keep_alive and not _closes(value)
        else:
            expects = minor and value.lower() == b"100-continue"
    if hosts != 1 and (hosts or minor):
        raise Malformed(400, "there are several Hosts" if hosts else "the Host is missing")
    if authority is not None:
        headers = [(b"host", authority), *(pair for pair in headers if pair[0] != b"host")]
    body = _body(coding, length, minor, limits) or NOTHING
    return Request(method, target, "1.1" if minor else "1.0", headers, body, keep_alive, expects)


def read_response(head: bytes, limits: HeaderLimits, *, bodiless: bool) -> Response:
    """Read a head up to and with its empty line; `bodiless` if it answers HEAD. Raises: Malformed, with status 502."""
    line = STATUS_LINE.match(head)
    if line is None:
        raise Malformed(502, "this is no status line")
    minor, status = line[1] == b"1", int(line[2])
    headers = fields(head[line.end() : -2], limits)
    length, coding, keep_alive = None, None, minor
    for name, value in headers:
        if name not in FRAMING:
            continue
        if name == b"content-length":
            length = value if length is None else length + b"," + value
        elif name == b"transfer-encoding":
            coding = value if coding is None else coding + b"," + value
        elif name == b"connection":
            keep_alive = keep_alive and not _closes(value)
    body = _body(coding, length, minor, limits) or EVERYTHING
    if status == 204 and body not in (NOTHING, EVERYTHING):
        keep_alive = False  # what it announces may follow, and would be taken for the next response
    if bodiless or status < 200 or status in (204, 304):
        body = NOTHING
    return Response(status, headers, body, keep_alive and body is not EVERYTHING)


def fields(block: bytes, limits: HeaderLimits) -> HeaderList:
    """The fields of a head, or of trailers. Raises: Malformed."""
    if block.count(b"\n") > limits.count:
        raise Malformed(431, f"there are more than {limits.count} headers")
    if not FIELDS.fullmatch(block):
        raise Malformed(400, "a header is malformed")
    return [(name.lower(), value.strip(b" \t")) for name, value in FIELD.findall(block)]


def well_formed(block: bytes, count: int) -> bool:
    """Whether a block of fields of ours has as many as it should, each as it should be."""
    return block.count(b"\n") == count and FIELDS.fullmatch(block) is not None


def beginning(data: bytes | bytearray, limits: HeaderLimits, seen: int = 0) -> None:
    """Look at a request's head that has not come in as a whole; `seen` bytes of it were looked at before.

    However small the parts are that it comes in, no byte is looked at again and again. Raises: Malformed, if there is
    no hope.
    """
    line = data.find(b"\n") + 1
    if len(data) > limits.size:
        raise too_large(limits) if line else Malformed(414, f"the request line has more than {limits.size} bytes")
    if LONE_LF.search(data, seen):
        raise Malformed(400, "a line does not end with CRLF")
    if line > seen:
        _request_line(data)
    elif not line and not METHOD.match(data, 0, METHOD_BYTES):
        raise Malformed(400, "this is no request line")


def too_large(limits: HeaderLimits) -> Malformed:
    return Malformed(431, f"the headers have more than {limits.size} bytes")


def _request_line(data: bytes | bytearray) -> re.Match[bytes]:
    line = REQUEST_LINE.match(data)
    if line is None:
        raise Malformed(400, "this is no request line")
    if line[3] != b"1":
        raise Malformed(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return line


def _target(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Authority, if there is one, and path with query, of a target that is no path. Raises: Malformed."""
    if target == b"*":
        if method != b"OPTIONS":
            raise Malformed(400, "the target * is for OPTIONS")
        return None, target
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None or not AUTHORITY.fullmatch(absolute[1]):
        raise Malformed(400, "the target is neither a path nor a URL")
    authority, path = absolute.groups()
    if path[:1] != b"/":
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return authority, path


def _closes(connection: bytes) -> bool:
    return b"close" in _listed(connection)


def _listed(value: bytes) -> list[bytes]:
    return [word.strip(b" \t") for word in value.lower().split(b",")]


# -- Bodies ------------------------------------------------------------------------------------------------------------


class Body(Protocol):
    """The framing of one body."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """What of this is the body's, and what comes after its end: ``None`` if it has not ended. Raises: Malformed."""
        ...


class _Nothing:
    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        return b"", data


class _Everything:
    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None


NOTHING, EVERYTHING = _Nothing(), _Everything()
"""No body, and one that ends with the connection."""


class Sized:
    """A body with a Content-Length."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data, None
        self._left = 0
        return (data, b"") if len(data) == left else (data[:left], data[left:])


class Chunked:
    """A body in chunks, and its trailers, which go no further."""

    def __init__(self, limits: HeaderLimits) -> None:
        self._limits = limits
        self._kept = b""
        """What cannot be understood before more comes in."""
        self._left = 0
        """Of the chunk, and of the line end after it."""
        self._read = self._size

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        data, self._kept = self._kept + data, b""
        parts: list[bytes] = []
        at = 0
        while at >= 0:
            before, at = at, self._read(data, at, parts)
            if at < 0:
                self._kept = data[before:]
            elif self._left < 0:
                return b"".join(parts), data[at:]
        return b"".join(parts), None

    # Each of these takes what it can of `data` from `at`, and says where it stands; -1 if it needs more.

    def _size(self, data: bytes, at: int, parts: list[bytes]) -> int:
        end = data.find(b"\n", at, at + CHUNK_LINE) + 1
        if not end:
            if len(data) - at >= CHUNK_LINE:
                raise Malformed(400, "the line before a chunk has no end")
            return -1
        line = CHUNK.fullmatch(data, at, end)
        if line is None:
            raise Malformed(400, "the size of a chunk is malformed")
        self._left = int(line[1], 16)
        self._read = self._data if self._left else self._trailers
        return end

    def _data(self, data: bytes, at: int, parts: list[bytes]) -> int:
        part = data[at : at + self._left]
        if not part:
            return -1
        parts.append(part)
        self._left -= len(part)
        if not self._left:
            self._read = self._end
        return at + len(part)

    def _end(self, data: bytes, at: int, parts: list[bytes]) -> int:
        end = data[at : at + 2]
        if end != b"\r\n"[: len(end)]:
            raise Malformed(400, "a chunk is longer than its size")
        if len(end) < 2:
            return -1
        self._read = self._size
        return at + 2

    def _trailers(self, data: bytes, at: int, parts: list[bytes]) -> int:
        last = at - 2 if data.startswith(b"\r\n", at) else data.find(b"\r\n\r\n", at)
        whole = last >= 0 or last == at - 2
        end = last + 2 if whole else len(data)
        if end - at > self._limits.size:
            raise Malformed(431, f"the trailers have more than {self._limits.size} bytes")
        if not whole:
            return -1
        fields(data[at:end], self._limits)
        self._left = -1
        return end + 2


def _body(coding: bytes | None, length: bytes | None, minor: bool, limits: HeaderLimits) -> Body | None:
    """The framing that a head announces: of Transfer-Encoding, and of Content-Length. Raises: Malformed."""
    if coding is not None:
        if length is not None or not minor:
            raise Malformed(400, "Transfer-Encoding beside " + ("Content-Length" if length is not None else "HTTP/1.0"))
        if coding.lower() != b"chunked":
            last = _listed(coding)[-1]
            raise Malformed(501 if last == b"chunked" else 400, "the only transfer coding known here is chunked")
        return Chunked(limits)
    if length is None:
        return None
    if not LENGTH.fullmatch(length):
        raise Malformed(400, "the Content-Length is invalid")
    return Sized(int(length)) if int(length) else NOTHING

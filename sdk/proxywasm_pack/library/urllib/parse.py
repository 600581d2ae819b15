_HEX = "0123456789abcdefABCDEF"
_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"


def quote(text, safe="/"):
    data = text.encode() if isinstance(text, str) else text
    return "".join([chr(b) if chr(b) in _SAFE or chr(b) in safe else "%%%02X" % b for b in data])


def quote_plus(text, safe=""):
    return quote(text, safe + " ").replace(" ", "+")


def unquote(text, encoding="utf-8", errors="replace"):
    if "%" not in text:
        return text
    out, data = [], bytearray()
    for i, part in enumerate(text.split("%")):
        byte = -1
        if i and len(part) > 1 and part[0] in _HEX and part[1] in _HEX:
            byte = int(part[:2], 16)
        if byte >= 0:
            data.append(byte)
            part = part[2:]
        elif i:
            part = "%" + part
        if part:
            if data:
                out.append(bytes(data).decode(encoding, errors))
                data = bytearray()
            out.append(part)
    if data:
        out.append(bytes(data).decode(encoding, errors))
    return "".join(out)


def unquote_to_bytes(text):
    out = bytearray()
    for i, part in enumerate(text.split("%")):
        if i and len(part) > 1 and part[0] in _HEX and part[1] in _HEX:
            out.append(int(part[:2], 16))
            part = part[2:]
        elif i:
            part = "%" + part
        out += part.encode()
    return bytes(out)


def unquote_plus(text):
    return unquote(text.replace("+", " "))


def parse_qsl(query, keep_blank_values=False):
    out = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if part and (value or keep_blank_values):
            out.append((unquote_plus(name), unquote_plus(value)))
    return out


def parse_qs(query, keep_blank_values=False):
    out = {}
    for name, value in parse_qsl(query, keep_blank_values):
        if name not in out:
            out[name] = []
        out[name].append(value)
    return out


def urlencode(query, doseq=False):
    out = []
    for name, value in query.items() if hasattr(query, "items") else query:
        for one in value if doseq and isinstance(value, (list, tuple)) else [value]:
            out.append(quote_plus(str(name)) + "=" + quote_plus(str(one)))
    return "&".join(out)


class _Result:
    """The base of the results of urlsplit and urlparse: a tuple with named parts."""

    def __init__(self, *parts):
        for name, part in zip(self._fields, parts):
            setattr(self, name, part)

    def _netloc(self):
        user, at, host = self.netloc.rpartition("@")
        if host[:1] == "[":
            name, _, port = host[1:].partition("]")
            port = port[1:]
        else:
            name, _, port = host.partition(":")
        return user if at else None, name, port

    @property
    def hostname(self):
        name, percent, zone = self._netloc()[1].partition("%")
        return name.lower() + percent + zone or None

    @property
    def port(self):
        port = self._netloc()[2]
        if not port:
            return None
        if not port.isdigit():
            raise ValueError("Port could not be cast to integer value as %r" % port)
        if int(port) > 65535:
            raise ValueError("Port out of range 0-65535")
        return int(port)

    @property
    def username(self):
        user = self._netloc()[0]
        return None if user is None else user.partition(":")[0]

    @property
    def password(self):
        _, colon, password = (self._netloc()[0] or "").partition(":")
        return password if colon else None

    def _replace(self, **changes):
        return type(self)(*[changes.get(name, getattr(self, name)) for name in self._fields])

    def _asdict(self):
        return {name: getattr(self, name) for name in self._fields}

    def __iter__(self):
        return iter([getattr(self, name) for name in self._fields])

    def __len__(self):
        return len(self._fields)

    def __getitem__(self, at):
        return [getattr(self, name) for name in self._fields][at]

    def __eq__(self, other):
        return tuple(self) == tuple(other)

    def __hash__(self):
        return hash(tuple(self))

    def __repr__(self):
        return type(self).__name__ + "(" + ", ".join(["%s=%r" % (name, getattr(self, name)) for name in self._fields]) + ")"


class SplitResult(_Result):
    _fields = ("scheme", "netloc", "path", "query", "fragment")

    def geturl(self):
        return urlunsplit(self)


class ParseResult(_Result):
    _fields = ("scheme", "netloc", "path", "params", "query", "fragment")

    def geturl(self):
        return urlunparse(self)


def urlsplit(url, scheme="", allow_fragments=True):
    url = url.lstrip("".join([chr(i) for i in range(33)])).replace("\n", "").replace("\r", "").replace("\t", "")
    netloc, query, fragment = "", "", ""
    begin, colon, rest = url.partition(":")
    if colon and begin and begin[0].isalpha() and ord(begin[0]) < 128 and all([c.isalpha() or c.isdigit() or c in "+-." for c in begin]):
        scheme, url = begin.lower(), rest
    if url[:2] == "//":
        url = url[2:]
        end = min([len(url)] + [url.find(c) for c in "/?#" if c in url])
        netloc, url = url[:end], url[end:]
    if allow_fragments:
        url, _, fragment = url.partition("#")
    url, _, query = url.partition("?")
    return SplitResult(scheme, netloc, url, query, fragment)


_WITH_NETLOC = ("", "ftp", "http", "https", "ws", "wss", "file", "sftp")
_WITH_PARAMS = ("", "ftp", "hdl", "http", "https", "shttp", "rtsp", "sip", "sips", "mms", "sftp", "tel")


def urlparse(url, scheme="", allow_fragments=True):
    scheme, netloc, path, query, fragment = urlsplit(url, scheme, allow_fragments)
    params = ""
    if scheme in _WITH_PARAMS and ";" in path:
        at = path.find(";", path.rfind("/") if "/" in path else 0)
        if at >= 0:
            path, params = path[:at], path[at + 1 :]
    return ParseResult(scheme, netloc, path, params, query, fragment)


def urlunsplit(parts):
    scheme, netloc, path, query, fragment = parts
    if netloc or scheme and scheme in _WITH_NETLOC and path[:2] != "//":
        if path and path[:1] != "/":
            path = "/" + path
        path = "//" + netloc + path
    if scheme:
        path = scheme + ":" + path
    return path + ("?" + query if query else "") + ("#" + fragment if fragment else "")


def urlunparse(parts):
    scheme, netloc, path, params, query, fragment = parts
    return urlunsplit((scheme, netloc, path + ";" + params if params else path, query, fragment))


def urldefrag(url):
    scheme, netloc, path, query, fragment = urlsplit(url)
    return urlunsplit((scheme, netloc, path, query, "")), fragment


def urljoin(base, url, allow_fragments=True):
    if not base or not url:
        return url or base
    b = urlparse(base, "", allow_fragments)
    u = urlparse(url, b.scheme, allow_fragments)
    if u.scheme != b.scheme or u.scheme not in _WITH_NETLOC:
        return url
    if u.netloc:
        return urlunparse(u)
    if not u.path and not u.params:
        return urlunparse(u._replace(netloc=b.netloc, path=b.path, params=b.params, query=u.query or b.query))
    before = b.path.split("/")
    if before[-1]:
        del before[-1]
    if u.path[:1] == "/":
        segments = u.path.split("/")
    else:
        segments = before + u.path.split("/")
        segments[1:-1] = [one for one in segments[1:-1] if one]
    out = []
    for one in segments:
        if one == "..":
            if out:
                out.pop()
        elif one != ".":
            out.append(one)
    if segments[-1] in (".", ".."):
        out.append("")
    return urlunparse(u._replace(netloc=b.netloc, path="/".join(out) or "/"))

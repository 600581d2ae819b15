from collections import namedtuple

_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"


def quote(text, safe="/"):
    data = text.encode() if isinstance(text, str) else text
    return "".join([chr(b) if chr(b) in _SAFE or chr(b) in safe else "%%%02X" % b for b in data])


def quote_plus(text, safe=""):
    return quote(text, safe + " ").replace(" ", "+")


def unquote(text):
    parts = text.split("%")
    out = parts[0].encode()
    for part in parts[1:]:
        try:
            out += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            out += b"%" + part.encode()
    return out.decode()


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


class SplitResult:
    def __init__(self, scheme, netloc, path, query, fragment):
        self.scheme = scheme
        self.netloc = netloc
        self.path = path
        self.query = query
        self.fragment = fragment
        host = netloc.rpartition("@")[2]
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit():
            self.hostname, self.port = name.lower(), int(port)
        else:
            self.hostname, self.port = host.lower() or None, None

    def geturl(self):
        return urlunsplit((self.scheme, self.netloc, self.path, self.query, self.fragment))

    def __iter__(self):
        return iter((self.scheme, self.netloc, self.path, self.query, self.fragment))

    def __getitem__(self, at):
        return list(self)[at]


def urlsplit(url):
    url, _, fragment = url.partition("#")
    url, _, query = url.partition("?")
    scheme, netloc = "", ""
    begin, colon, rest = url.partition(":")
    if colon and begin and begin[0].isalpha() and (rest.startswith("/") or not rest[:1].isdigit()):
        scheme, url = begin.lower(), rest
    if url.startswith("//"):
        netloc, slash, path = url[2:].partition("/")
        url = slash + path
    return SplitResult(scheme, netloc, url, query, fragment)


urlparse = urlsplit


def urlunsplit(parts):
    scheme, netloc, path, query, fragment = parts
    out = (scheme + ":" if scheme else "") + ("//" + netloc if netloc else "") + path
    return out + ("?" + query if query else "") + ("#" + fragment if fragment else "")

"""Questions to the standard library of packed filters: each function has to answer, or raise, as with CPython's."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum, Flag, IntEnum, StrEnum, auto, unique
from functools import cmp_to_key, lru_cache, partial, reduce, total_ordering
from itertools import (
    accumulate, chain, combinations, combinations_with_replacement, compress, count, cycle, dropwhile, filterfalse, groupby,
    islice, pairwise, permutations, product, repeat, starmap, takewhile, tee, zip_longest,
)
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, quote, quote_plus, unquote, unquote_plus, urlencode, urljoin, urlsplit, urlunsplit

HASHES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]


def digest(name, parts):
    h = hashlib.new(name)
    for part in parts:
        h.update(part.encode())
    copy = h.copy()
    copy.update(b"more")
    whole = getattr(hashlib, name)("".join(parts).encode())
    return h.hexdigest(), h.digest() == whole.digest(), copy.hexdigest(), h.digest_size, h.block_size, h.name


def mac(name, key, message):
    h = hmac.new(key.encode(), digestmod=name)
    h.update(message.encode())
    other = hmac.new(key.encode(), message.encode(), getattr(hashlib, name))
    return h.hexdigest(), hmac.compare_digest(h.digest(), other.digest()), hmac.digest(key.encode(), b"x", name), h.name


def encoded(text):
    data = text.encode()
    return (
        base64.b64encode(data), base64.urlsafe_b64encode(data), base64.b64decode(base64.b64encode(data)) == data,
        base64.b16encode(data), base64.b16decode(base64.b16encode(data)) == data, base64.b32encode(data),
        base64.b32decode(base64.b32encode(data)) == data, binascii.hexlify(data), binascii.unhexlify(data.hex()) == data, binascii.crc32(data),
    )  # fmt: skip


def decoded(text):
    try:
        return base64.b64decode(text), base64.urlsafe_b64decode(text)
    except binascii.Error:
        return "refused"


def json_read(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return str(error), error.pos, error.lineno, error.colno


def json_written(value, indent):
    return (
        json.dumps(value), json.dumps(value, indent=indent), json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        json.dumps({"x": value}, sort_keys=True), json.loads(json.dumps(value)) == value,
    )  # fmt: skip


def json_hooks(value):
    text = json.dumps(value)
    return json.loads(text, object_hook=lambda d: sorted(d)), json.loads(text, object_pairs_hook=list), json.dumps({"a": {1}}, default=sorted)


def url(text):
    u = urlsplit(text)
    return u.scheme, u.netloc, u.path, u.query, u.fragment, u.hostname, u.username, u.password, u.geturl(), urlunsplit(u)


def url_port(text):
    return urlsplit(text).port


def url_joined(base, text):
    return urljoin(base, text)


def url_text(text):
    return quote(text), quote(text, safe=""), quote_plus(text), unquote(text), unquote_plus(text), unquote(quote(text)) == text


def query(text):
    return parse_qs(text), parse_qsl(text), parse_qs(text, keep_blank_values=True)


def query_made(pairs):
    pairs = [(a, b) for a, b in pairs]
    return urlencode(pairs), urlencode(dict(pairs)), urlencode({"a": [1, "b c"]}, doseq=True)


PATTERNS = [
    r"(?P<word>\w+)-(?P<number>\d+)", r"a|bc|[x-z]+", r"^\s*(\S+)\s*=\s*(.*?)\s*$", r"(a+)(b*)?(c)?", r"[^,;]+", r"\d{2,3}", r"(?:ab)+c?",
    r"\ba\w*\b", r"\B-", r"(?<=a)b+?", r"(?<!a)b(?!c)", r"(\w)\1", r"(?P<q>['\"])(.*?)(?P=q)", r"(?i:ab)|A1", r"(?m)^\w+$", r"(?s)a.+?b",
    r"(?x) a \s* # then\n b", r"(a{1,2}?|b){2,3}", r"(?:(a)|b)*", r"(?>a+)b", r"a*+b", r"[^\W\d_]+", r"(?=.*\d)(?=.*[a-z])\w{3,}", r"\Aa|b\Z", r"|a", r"\x61\u0062?",
    r"a.c", r"x*", r"/v(\d+)/(users|items)/([^/]+)$", r"(\w)(\w)?", r"[\w.-]+@[\w-]+\.\w+", r"\.", r"a{2}", r"[]a]", r"[a\-z]", r"(a|b)*c",
]  # fmt: skip


def pattern(number, text):
    p = re.compile(PATTERNS[number])
    found = p.search(text)
    return (
        found and (found.group(), found.groups(), found.groupdict(), found.span(), found.start(), found.end()),
        bool(p.match(text)), bool(p.fullmatch(text)), p.findall(text), p.sub("<>", text), p.sub(lambda m: m.group().upper(), text, count=2),
        p.split(text), [m.span() for m in p.finditer(text)], p.groups, sorted(p.groupindex.items()),
    )  # fmt: skip


def pattern_made(pattern, flags, text):
    try:
        p = re.compile(pattern, flags)
    except re.error:
        return "refused"
    found = p.search(text)
    return (
        found and (found.span(), found.groups("-"), [found.span(i) for i in range(p.groups + 1)], found.lastindex, found.lastgroup),
        [m and (m.span(), m.groups()) for m in (p.match(text), p.fullmatch(text), p.search(text, 2), p.match(text, 1, 4))],
        p.findall(text), p.split(text), p.split(text, 2), p.sub(r"<\g<0>>", text), p.subn("-", text, 2), p.groups, int(p.flags),
    )  # fmt: skip


def pattern_flags(text):
    return (
        re.findall("ab", text, re.IGNORECASE), re.findall("a.b", text, re.DOTALL),
        re.sub(r"(a)(?P<x>b)?", r"[\1|\g<x>|\g<0>]", text), re.subn("a", "b", text), re.escape(text), re.split("([,b])", text, maxsplit=1),
        re.findall("^a.*$", text, re.M | re.I), re.findall(rb"[a-c]\b", text.encode()), re.sub(b"(a)", rb"\1\1", text.encode()),
    )  # fmt: skip


def words(text, size):
    return (
        text.title(), text.capitalize(), text.swapcase(), text.casefold(), text.center(size), text.ljust(size, "."), text.rjust(size, "."),
        text.zfill(size), text.expandtabs(4), text.removeprefix("a"), text.removesuffix("b"), text.partition("a"), text.rpartition("a"),
        text.split(), text.split("a"), text.split(None, 1), text.rsplit("a", 1), text.splitlines(), text.strip(), text.lstrip("ab"), text.rstrip("ab"),
        text.replace("a", "bb", 1), text.find("ab"), text.count("a"), text.startswith(("a", "b")), text.isalnum(), text.isalpha(), text.isdigit(),
        text.isupper(), text.islower(), text.isspace(), text.isidentifier(), text.isascii(), text[::-1], text[1::2], text[-3:-1], text * 2, f"{text!r:>8}",
    )  # fmt: skip


def numbers(a, b):
    return (
        a + b, a - b, a * b, a // b if b else None, a % b if b else None, divmod(a, b) if b else None, -a, abs(a), a & b, a | b, a ^ b, ~a,
        a << (b & 63), a >> (b & 63), a.bit_length(), a.bit_count(), f"{a:,}", f"{a:x}", f"{a:#b}", f"{a:+d}", f"{a:_}", f"{a:>12}", f"{a:012d}", hex(a), oct(a), bin(a),
        str(a), int(str(a)), a.to_bytes(16, "big", signed=True), int.from_bytes(a.to_bytes(16, "little", signed=True), "little", signed=True), round(a, -1),
        (a > b) - (a < b), min(a, b), max(a, b), pow(a, 3), pow(a, 5, 97), bool(a),
    )  # fmt: skip


def moment(year, month, day, hour, minute, second, us, offset, delta):
    zone = timezone(timedelta(minutes=offset))
    t = datetime(year, month, day, hour, minute, second, us)
    z = t.replace(tzinfo=zone)
    d = timedelta(seconds=delta, microseconds=us)
    return (
        t, str(t), t.isoformat(), z.isoformat(timespec="milliseconds"), z, str(z.astimezone(timezone.utc)), t + d, t - d, (t + d) - t, z - d, t.weekday(),
        tuple(t.isocalendar()), t.toordinal(), t.date(), t.time(), z.timetz(), t.date() + timedelta(3), z.utcoffset(), z.tzname(), t < t + d,
        z == z.astimezone(timezone.utc), t.strftime("%Y-%m-%d %H:%M:%S.%f %a %A %b %B %d %j %I %p %y %u %w %% %V %G"), z.strftime("%a, %d %b %Y %H:%M:%S %z %Z"),
        datetime.fromisoformat(t.isoformat()) == t, datetime.fromisoformat(z.isoformat()), datetime.strptime(t.strftime("%d/%b/%Y %H:%M:%S"), "%d/%b/%Y %H:%M:%S"),
        datetime.strptime(z.strftime("%Y%m%d %I:%M %p %z"), "%Y%m%d %I:%M %p %z"), int(z.timestamp()), datetime.fromtimestamp(int(z.timestamp()), zone),
        date.fromisoformat(t.date().isoformat()), time.fromisoformat(t.time().isoformat()), datetime.combine(t.date(), t.time()), f"{t:%H}", t.replace(day=1),
    )  # fmt: skip


def duration(a, b, n):
    a, b = timedelta(microseconds=a), timedelta(microseconds=b)
    return (
        a, str(a), a + b, a - b, -a, abs(a), a * n, a // n if n else None, a / n if n else None, a // b if b else None, a % b if b else None, a.days, a.seconds, a.microseconds,
        a < b, a == b, bool(a), a // timedelta(seconds=1), sum([a, b], timedelta()),
    )  # fmt: skip


def iso(text):
    return datetime.fromisoformat(text)


def parsed_time(text, form):
    return datetime.strptime(text, form)


def counted(items, others):
    c, d = Counter(items), Counter(others)
    e = Counter(items)
    e.subtract(others)
    c.update(others)
    return c, c.most_common(), c.most_common(1), c["none"], c.total(), sorted(c.elements()), c + d, c - d, c & d, c | d, dict(e), Counter(a=1)


def ordered(pairs, key):
    d = OrderedDict(pairs)
    plain = dict(pairs)
    if key in d:
        d.move_to_end(key)
        del plain[key]
        plain[key] = 0
    d["last"] = 1
    groups = defaultdict(list)
    for k, v in pairs:
        groups[k].append(v)
    return list(d.items()), plain, list(plain), dict(groups), d.popitem(), plain | {"x": 1}, groups == dict(groups), "zz" in groups


def queued(items, size):
    q = deque(items, size)
    q.append("r")
    q.appendleft("l")
    r = deque(items)
    r.extend([1, 2])
    r.rotate(2)
    return list(q), len(q), list(r), r.pop(), r.popleft(), r[0] if r else None, 1 in r, list(reversed(q)), q.maxlen


def folded(items):
    @lru_cache(maxsize=2)
    def square(x):
        return x * x

    class Version:
        def __init__(self, n):
            self.n = n

        def __eq__(self, other):
            return self.n == other.n

        def __lt__(self, other):
            return self.n < other.n

    Version = total_ordering(Version)
    return (
        reduce(lambda a, b: a * 3 + b, items, 1), [square(i) for i in items], partial(max, 3)(1), sorted(items, key=cmp_to_key(lambda a, b: b - a)),
        [Version(a) >= Version(2) for a in items], [Version(a) <= Version(2) for a in items], square.cache_info().maxsize,
    )  # fmt: skip


def iterated(items, n):
    a, b = tee(items)
    return (
        list(chain(items, [1])), list(islice(items, n)), list(islice(items, 1, None, 2)), list(takewhile(lambda x: x < 3, items)), list(dropwhile(lambda x: x < 3, items)),
        list(product(items[:3], repeat=2)), list(combinations(items[:4], 2)), list(permutations(items[:3])), list(accumulate(items)), list(accumulate(items, max)),
        [(k, list(g)) for k, g in groupby(sorted(items), key=lambda x: x // 2)], list(zip_longest(items, "ab", fillvalue=0)), list(pairwise(items)),
        list(compress(items, [1, 0, 1])), list(filterfalse(lambda x: x % 2, items)), list(starmap(pow, [(2, 3)])), list(repeat(1, n)), list(islice(cycle(items), n)) if items else 0,
        list(islice(count(5, 2), n)), list(a) == list(b), list(combinations_with_replacement(items[:3], 2)), list(chain.from_iterable([items, items])),
    )  # fmt: skip


class Colour(Enum):
    RED = "r"
    GREEN = "g"
    ROUGE = "r"

    @property
    def long(self):
        return self.name.lower()


class Level(IntEnum):
    LOW = 1
    HIGH = auto()


class Kind(StrEnum):
    A = "a"
    B = auto()


@unique
class Right(Flag):
    R = auto()
    W = auto()
    X = auto()


def enumerated(value):
    rights = Right.R | Right.X
    try:
        found = Colour(value)
    except ValueError as error:
        found = str(error)
    return (
        found, list(Colour), Colour.ROUGE is Colour.RED, Colour.ROUGE.name, Colour["GREEN"], repr(Colour.RED), str(Colour.RED), Colour.RED.long, len(Colour), Colour.RED in Colour,
        Level.HIGH > 1, Level.HIGH + 1, sorted([Level.HIGH, Level.LOW]), str(Level.LOW), f"{Level.LOW}", Level(2), json.dumps({"l": Level.LOW, "k": Kind.A}), Kind.A == "a", str(Kind.B),
        Kind.A + "x", f"{Kind.A}", Right.R in rights, Right.W in rights, bool(rights & Right.W), rights.value, rights == Right.R | Right.X, {Colour.RED: 1}[Colour("r")], list(Colour.__members__),
        isinstance(Colour.RED, Colour), hash(Level.LOW) == hash(1),
    )  # fmt: skip


@dataclass(order=True)
class Point:
    x: int
    y: int = 2
    tags: list = field(default_factory=list)

    def norm(self):
        return self.x + self.y


@dataclass(frozen=True)
class Name:
    first: str
    last: str = "x"


@dataclass
class Point3(Point):
    z: int = 1


@dataclass
class Named:
    name: str
    at: Point = field(default_factory=lambda: Point(0))
    hidden: int = field(default=3, repr=False, compare=False)


class Pair(NamedTuple):
    a: int
    b: str = "b"


def data(x, y):
    p, n = Point(x, y), Named("n", Point(x))
    try:
        Name("a").first = "b"
        frozen = False
    except AttributeError:
        frozen = True
    t = namedtuple("T", "x y", defaults=[7])(x)
    return (
        Point3(x, y, [], 4), Point3(1).norm(), p, repr(n), p == Point(x, y), p < Point(x, y + 1), p <= p, sorted([Point(2), Point(1)]), asdict(n), astuple(p), replace(p, y=9), frozen, {Name("a"): 1}[Name("a")], p.norm(),
        Pair(x), Pair(x)._replace(b="c"), Pair(x)._asdict(), Pair._fields, Pair(x) == (x, "b"), t, t._asdict(), n == Named("n", Point(x), 4),
    )  # fmt: skip


def packed_numbers(a, b):
    form = "<IhBq"
    data = struct.pack(form, a & 0xFFFFFFFF, (b & 0x7FFF), a & 0xFF, b)
    return data, struct.unpack(form, data), struct.calcsize(form), struct.pack(">H3s", a & 0xFFFF, b"abc"), struct.unpack_from("<H", data, 4)


def called(name, arguments) -> Any:
    """What a question is answered with, as text; an error by the name of its type."""
    try:
        return repr(globals()[name](*arguments))
    except Exception as error:
        return type(error).__name__

"""Small questions to Python: each function returns what CPython and a packed filter have to answer alike."""


def inheritance():
    class A:
        def f(self):
            return "A"

    class B(A):
        def f(self):
            return super().f() + "B"

    return B().f(), isinstance(B(), A), issubclass(B, A)


def multiple_inheritance():
    class A:
        x = 1

    class B:
        y = 2

    class C(A, B):
        pass

    return C().x + C().y


def generators():
    def f(n):
        for i in range(n):
            yield i * i

    return list(f(4)), sum(x for x in f(3))


def generator_send():
    def f():
        x = yield 1
        yield x + 1

    g = f()
    return next(g), g.send(5)


def yield_from():
    def f():
        r = yield from g()
        yield r

    def g():
        yield 1
        return 2

    return list(f())


def closures():
    def counter():
        n = 0

        def up():
            nonlocal n
            n += 1
            return n

        return up

    c = counter()
    return c(), c()


def decorators():
    def twice(f):
        return lambda *a: f(*a) * 2

    @twice
    def f(x):
        return x + 1

    return f(3)


def properties():
    class A:
        def __init__(self):
            self._x = 1

        @property
        def x(self):
            return self._x

        @x.setter
        def x(self, v):
            self._x = v * 2

    a = A()
    a.x = 4
    return a.x


def static_and_class_methods():
    class A:
        n = 3

        @staticmethod
        def s(x):
            return x

        @classmethod
        def c(cls):
            return cls.n

    return A.s(1), A.c(), A().c()


def context_managers():
    out = []

    class M:
        def __enter__(self):
            out.append("in")
            return self

        def __exit__(self, *e):
            out.append(e[0] is ValueError)
            return True

    with M():
        raise ValueError
    return out


def try_finally():
    out = []

    def f():
        try:
            return 1
        finally:
            out.append("f")

    return f(), out


def try_else():
    try:
        x = 1
    except ValueError:
        x = 2
    else:
        x = 3
    return x


def raise_from():
    try:
        try:
            raise KeyError("a")
        except KeyError as e:
            raise ValueError("b") from e
    except ValueError as e:
        return str(e)


def exception_classes():
    class E(Exception):
        def __init__(self, code):
            super().__init__("code %d" % code)
            self.code = code

    try:
        raise E(3)
    except Exception as e:
        return str(e), e.code, e.args


def f_strings():
    x, w = 3.14159, 8
    return f"{x:.2f}|{x:{w}.1f}|{'a'!r}|{{}}|{1 + 1}|{'ab':>4}|{255:#x}|{5:03d}"


def f_string_equals():
    n = 4
    return f"{n=}"


def percent_format():
    return "%s %d %5.1f %x %%" % ("a", 3, 2.26, 255)


def format_method():
    return "{} {0} {b}".replace("{0}", "z").format(1, b=2), "{0}-{1}-{0}".format("a", "b")


def comprehensions():
    return [x * y for x in range(3) for y in range(x) if y], {x: x * x for x in range(3)}, sorted({x % 2 for x in range(5)})


def dict_order():
    d = {"z": 1, "a": 2, "m": 3}
    d["b"] = 4
    del d["a"]
    d["a"] = 5
    return list(d), list(d.values()), d


def dict_merge():
    a, b = {"x": 1, "y": 2}, {"y": 3}
    return {**a, **b, "z": 4}, a | b


def dict_methods():
    d = {"a": 1}
    return d.get("b", 2), d.setdefault("c", 3), d.pop("a"), list(d.items()), dict.fromkeys("ab", 0), dict(x=1)


def large_dict():
    d = {str(i): i for i in range(500)}
    for i in range(0, 500, 2):
        del d[str(i)]
    return len(d), sum(d.values()), list(d)[:3]


def slices_with_steps():
    return [1, 2, 3, 4, 5][::2], [1, 2, 3][::-1], "abcdef"[::-1], "abcdef"[1:5:2], b"abc"[::-1], (1, 2, 3)[::2]


def negative_slices():
    return "abcdef"[-3:-1], [1, 2, 3][-2:], "abc"[:-1]


def slice_assignment():
    x = [1, 2, 3, 4]
    x[1:3] = [9]
    del x[0]
    return x


def star_displays():
    a = [1, 2]
    return [0, *a, 3], (*a, 5), sorted({*a, 7})


def star_assignment():
    a, *b, c = range(5)
    return a, b, c


def star_arguments():
    def f(a, *b, c=1, **d):
        return a, b, c, sorted(d.items())

    return f(1, 2, 3, c=4, e=5), f(*[1, 2], **{"c": 3})


def positional_only():
    def f(a, /, b, *, c):
        return a + b + c

    return f(1, 2, c=3)


def annotations():
    x: int = 1

    def f(a: "int | None", *b: str) -> dict[str, int]:
        y: list[int]
        return {"a": a}

    return f(x)


def walrus():
    return [y for x in range(4) if (y := x * 2) > 2]


def conditional_chain():
    return 1 < 2 < 3, 1 if [] else 2, not None, 0 or "x", 1 and 2


def match_values():
    def f(x):
        match x:
            case 1 | 2:
                return "small"
            case "a":
                return "letter"
            case None:
                return "none"
            case _:
                return "other"

    return [f(x) for x in (1, 2, "a", None, 9)]


def match_sequences():
    def f(x):
        match x:
            case []:
                return "empty"
            case [a]:
                return a
            case [a, *rest] if a > 5:
                return rest
            case (a, b):
                return a + b
        return "no"

    return f([]), f([3]), f([6, 7, 8]), f((1, 2)), f([1, 2, 3])


def match_mappings():
    match {"kind": "x", "n": 3, "m": 4}:
        case {"kind": "y"}:
            return 0
        case {"kind": "x", "n": n, **rest}:
            return n, rest


def match_classes():
    class P:
        __match_args__ = ("x", "y")

        def __init__(self, x, y):
            self.x, self.y = x, y

    def f(p):
        match p:
            case P(0, y):
                return y
            case P(x=1):
                return "one"
            case int():
                return "int"

    return f(P(0, 5)), f(P(1, 2)), f(3)


def match_in_loop():
    out = []
    for x in range(5):
        match x:
            case 1:
                continue
            case 3:
                break
        out.append(x)
    return out


def dataclasses_():
    from dataclasses import asdict, dataclass, field

    @dataclass
    class P:
        x: int
        y: int = 2
        z: list = field(default_factory=list)

    a = P(1)
    a.z.append(3)
    return repr(a).split(".")[-1], a == P(1, 2, [3]), P(1).z, asdict(a)


def dataclass_post_init():
    from dataclasses import dataclass

    @dataclass(frozen=True, order=True)
    class P:
        x: int

        def __post_init__(self):
            pass

        def double(self):
            return self.x * 2

    return P(3).double(), P(1) < P(2), len({P(1), P(1)})


def enumerations():
    from enum import Enum

    class Colour(Enum):
        RED = 1
        BLUE = 2

    return Colour.RED.name, Colour(2).value, [c.name for c in Colour], Colour.RED is Colour(1), Colour["BLUE"].value, str(Colour.RED)


def int_enum():
    from enum import IntEnum, auto

    class Level(IntEnum):
        LOW = auto()
        HIGH = auto()

    return Level.HIGH > Level.LOW, Level.HIGH == 2, int(Level.LOW)


def named_tuples():
    from collections import namedtuple
    from typing import NamedTuple

    class P(NamedTuple):
        x: int
        y: int = 5

    Q = namedtuple("Q", "a b")
    return P(1).y, P(1, 2)[1], Q(1, 2).b, tuple(Q(a=3, b=4))


def typing_names():
    from typing import Any, Optional, cast

    def f(x: Optional[int]) -> Any:
        return cast("int", x)

    return f(3)


def abstract_classes():
    from abc import ABC, abstractmethod

    class A(ABC):
        @abstractmethod
        def f(self): ...

    class B(A):
        def f(self):
            return 1

    return B().f()


def bytes_and_bytearray():
    b = bytearray(b"abc")
    b[0] = 65
    b += b"d"
    return bytes(b), b"a,b".split(b","), b"x" in b"xyz", bytes([1, 2]), b"ab".hex(), bytes.fromhex("0aff")


def int_to_bytes():
    return (258).to_bytes(2, "big"), (258).to_bytes(4, "little"), int.from_bytes(b"\x01\x02", "big"), (5).bit_length()


def big_integers():
    return 2**100, -(7 // 2), -7 // 2, -7 % 3, divmod(17, 5), 10**30 % 97, pow(3, 200, 1000)


def floats():
    return 0.1 + 0.25, 1e100, round(2.5), round(3.14159, 2), float("inf") > 1, int(3.9), 7 / 2


def str_methods():
    s = "Hello, World"
    return (
        s.upper(), s.lower(), s.find("o"), s.rfind("o"), s.replace("l", "L"), s.startswith(("He", "x")), s.endswith("d"),
        s.split(", "), s.partition(", "), "  x ".strip(), "a-b-c".rsplit("-", 1), ",".join("abc"), s.count("l"), s.index("W"),
    )  # fmt: skip


def more_str_methods():
    s = "hello world"
    return (
        s.title(), s.capitalize(), s.removeprefix("hello "), s.removesuffix("world"), "7".zfill(3), "a".ljust(3) + "|",
        "a".rjust(3, "."), "ab".center(6, "*"), "aB".swapcase(), "a1".isalnum(), "ab".isalpha(), "12".isdigit(), "a\tb".expandtabs(4),
        "x".isascii(), "a_1".isidentifier(), "line1\nline2".splitlines(), "STRASSE".casefold(),
    )  # fmt: skip


def unicode_text():
    s = "héllo €"
    return len(s), s.encode(), s[1] == "é", "é" in s, b"\xe2\x82\xac".decode() == "€", ord("€"), len(chr(8364))


def list_methods():
    x = [3, 1, 2]
    x.sort()
    x.insert(0, 9)
    x.extend([4])
    x.reverse()
    return x, x.index(9), x.count(1), x.pop(), x[:], sorted(x, reverse=True), [1] * 3 + [2]


def sort_keys():
    return sorted(["bb", "a", "ccc"], key=len), sorted([(2, "a"), (1, "b")]), min([3, 1], key=lambda v: -v), max("a", "b")


def sets():
    a, b = {1, 2, 3}, {2, 3, 4}
    return sorted(a & b), sorted(a | b), sorted(a - b), sorted(a ^ b), a >= {1}, frozenset([1]) == {1}


def tuples():
    return (1,) + (2, 3), (1, 2) < (1, 3), (1, 2).index(2), tuple("ab")


def built_in_functions():
    return (
        all([1, 0]), any([0, 1]), abs(-3), list(enumerate("ab", 1)), list(zip([1, 2], "ab")), list(map(str, [1])),
        list(filter(None, [0, 1])), list(reversed([1, 2])), hex(255), bin(5), oct(8), callable(len), sum([1, 2], 3),
    )  # fmt: skip


def attributes():
    class A:
        x = 1

    a = A()
    setattr(a, "y", 2)
    return getattr(a, "y"), hasattr(a, "z"), getattr(a, "z", 3), A.__name__, type(a) is A


def operators():
    class V:
        def __init__(self, x):
            self.x = x

        def __add__(self, o):
            return V(self.x + o.x)

        def __eq__(self, o):
            return self.x == o.x

        def __lt__(self, o):
            return self.x < o.x

        def __getitem__(self, i):
            return self.x * i

        def __len__(self):
            return 3

        def __contains__(self, x):
            return x == self.x

        def __call__(self, y):
            return y

        def __repr__(self):
            return "V(%d)" % self.x

        def __bool__(self):
            return False

    v = V(1) + V(2)
    return v, v == V(3), V(1) < v, v[2], len(v), 3 in v, v(4), bool(v), sorted([V(2), V(1)])


def iterators():
    class I:
        def __init__(self):
            self.n = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.n += 1
            if self.n > 3:
                raise StopIteration
            return self.n

    return list(I()), next(iter([7])), next(iter([]), "end")


def attribute_fallback():
    class A:
        def __getattr__(self, name):
            return name + "!"

    return A().foo


def loops():
    out = []
    for i in range(10, 0, -3):
        if i == 4:
            break
        out.append(i)
    else:
        out.append("else")
    while True:
        out.append("w")
        break
    for _ in []:
        pass
    else:
        out.append("e")
    return out


def deletion():
    x = {"a": 1, "b": 2}
    del x["a"]
    y = 1
    del y
    return x


def global_names():
    global g
    g = 5
    return g


def coroutines():
    async def f(x):
        return x + 1

    async def g():
        return await f(1) + await f(2)

    try:
        g().send(None)
    except StopIteration as e:
        return e.value


def tracebacks():
    try:
        [].pop()
    except IndexError as e:
        return type(e).__name__


def zero_division():
    try:
        return 1 // 0
    except ZeroDivisionError:
        return "zero"


def json_():
    import json

    d = json.loads('{"b": [1, 2.5, null, true], "a": {"x": "\\u0041"}}')
    return d, json.dumps({"x": [1, None, True, "é"[:0]]}), json.dumps([1, {"a": 2}], separators=(",", ":")), json.dumps({"b": 1, "a": 2}, sort_keys=True), json.dumps({"a": [1, 2]}, indent=2)


def json_errors():
    import json

    out = []
    for text in ("{", "[1", "nope", "[1 2", ""):
        try:
            json.loads(text)
            out.append(text)
        except ValueError as error:
            out.append(str(error))
    return out


def hashes():
    import hashlib
    import hmac

    return [hashlib.new(name, b"a").hexdigest() for name in ("md5", "sha224", "sha384", "sha512")], hashlib.sha256(b"a").hexdigest(), hashlib.sha1(b"abc").hexdigest(), hmac.new(b"k", b"m", hashlib.sha256).hexdigest(), hmac.compare_digest(b"a", b"a")


def base64_():
    import base64

    return base64.b64encode(b"\xff\xfe"), base64.urlsafe_b64encode(b"\xff\xfe"), base64.b64decode("aGk="), base64.b16encode(b"a")


def url_parsing():
    from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

    u = urlsplit("https://example.com:8443/a/b?x=1&x=2#f")
    return u.scheme, u.hostname, u.port, u.path, u.query, u.fragment, parse_qs("a=1&a=2&b=%20"), quote("a b/é"), unquote("%C3%A9") == "é", urlencode({"a": "b c"})


def functools_():
    from functools import lru_cache, partial, reduce, wraps

    @lru_cache(None)
    def f(x):
        return x * 2

    return f(2), partial(pow, 2)(3), reduce(lambda a, b: a + b, [1, 2, 3])


def itertools_():
    from itertools import accumulate, chain, combinations, count, groupby, islice, permutations, product, takewhile, zip_longest

    return (
        list(chain([1], [2])), list(islice(count(5), 3)), list(takewhile(lambda x: x < 3, count())), list(product("ab", [1])),
        list(combinations([1, 2, 3], 2)), len(list(permutations([1, 2, 3]))), list(accumulate([1, 2, 3])),
        [(k, list(g)) for k, g in groupby("aab")], list(zip_longest([1], [2, 3])), list(chain.from_iterable([[1], [2]])),
    )  # fmt: skip


def collections_():
    from collections import Counter, OrderedDict, defaultdict, deque

    d = defaultdict(list)
    d["a"].append(1)
    q = deque([1, 2], 5)
    q.append(3)
    return dict(d), Counter("aab").most_common(1), q.popleft(), len(q), list(OrderedDict([("b", 1), ("a", 2)]))


def contextlib_():
    from contextlib import contextmanager, suppress

    out = []

    @contextmanager
    def f():
        out.append(1)
        yield 2
        out.append(3)

    with f() as x:
        out.append(x)
    with suppress(KeyError):
        {}["a"]
    return out


def regular_expressions():
    import re

    m = re.match(r"(?P<word>\w+)-(\d{2,4})", "abc-123 x")
    named = m.group("word"), m.groupdict(), m.span(2), re.findall("(a)(b)?", "abaa"), re.sub(r"(\w)=", r"\1:", "a=b")
    return m.group(1), m.group(2), bool(re.search("b+", "abbb")), re.sub(r"\d", "#", "a1b2"), re.compile("[,;]").split("a,b;c"), named, bool(re.fullmatch("[a-c]+", "ABC", re.IGNORECASE)), re.findall("a.c", "abc a\nc")


def struct_():
    import struct

    return struct.pack("<IH", 1, 2), struct.unpack(">H", b"\x01\x02"), struct.calcsize("<Q")


def math_():
    import math

    return math.sqrt(16), math.floor(2.7), math.ceil(2.1), math.pi > 3, math.log(1), math.isnan(float("nan"))


def heapq_():
    import heapq

    h = []
    for x in (3, 1, 2):
        heapq.heappush(h, x)
    return heapq.heappop(h), len(h)


def operator_():
    from operator import attrgetter, itemgetter

    return sorted([{"a": 2}, {"a": 1}], key=itemgetter("a")), attrgetter("real")(3) if hasattr(3, "real") else 3


def string_constants():
    import string

    return string.digits, string.ascii_lowercase[:3]


def io_():
    import io

    f = io.StringIO()
    f.write("ab")
    return f.getvalue(), io.BytesIO(b"xyz").read(2)


def recursion():
    def f(n):
        return 1 if n < 2 else n * f(n - 1)

    return f(30)


def digits_of_floats():
    return 0.1 + 0.2


def repr_of_text_beyond_ascii():
    return "é"


def json_with_a_missing_value():
    import json

    try:
        return json.loads('{"a"}')
    except ValueError:
        return "refused"


def recursion_error():
    def f(n):
        return f(n + 1)

    try:
        f(0)
    except RecursionError:
        return "too deep"


def keyword_only():
    def f(a, *, b=2):
        return a + b

    try:
        f(1, 2)
    except TypeError:
        return f(1), f(1, b=5)


def default_arguments():
    def f(a, b=[]):
        b.append(a)
        return b

    f(1)
    return f(2), f(3, [0])


def lambda_closures():
    return [f(1) for f in [lambda x, i=i: x + i for i in range(3)]], (lambda *a, **k: (a, k))(1, b=2)


def lazy_generators():
    out = []

    def f():
        for i in range(3):
            out.append(i)
            yield i

    g = (x * 2 for x in f())
    return next(g), out, any(x > 1 for x in f()), out


def generator_ends():
    out = []

    def f():
        try:
            while True:
                yield 1
        finally:
            out.append("closed")

    g = f()
    next(g)
    g.close()
    return out


def generator_throw():
    def f():
        try:
            yield 1
        except ValueError as e:
            yield str(e)

    g = f()
    next(g)
    return g.throw(ValueError("in"))


def nested_exceptions():
    out = []
    try:
        try:
            {}["a"]
        except KeyError as e:
            out.append(e.args)
            raise
        finally:
            out.append("finally")
    except LookupError as e:
        out.append(type(e).__name__)
    return out


def exception_hierarchy():
    return issubclass(KeyError, LookupError), issubclass(ZeroDivisionError, ArithmeticError), issubclass(UnicodeError, ValueError), str(ValueError("a", 1)), repr(ValueError("x"))[:15]


def several_except():
    def f(x):
        try:
            return 10 / int(x)
        except (ValueError, TypeError):
            return "no number"
        except ZeroDivisionError as e:
            return "zero"

    return f("2"), f("a"), f("0"), f(None)


def finally_overrides():
    def f():
        for i in range(3):
            try:
                if i == 1:
                    return i
            finally:
                if i == 1:
                    break
        return "broke"

    return f()


def several_contexts():
    out = []

    class C:
        def __init__(self, n):
            self.n = n

        def __enter__(self):
            out.append(self.n)
            return self.n

        def __exit__(self, *e):
            out.append(-self.n)

    with C(1) as a, C(2) as b:
        out.append(a + b)
    return out


def async_contexts():
    out = []

    class A:
        async def __aenter__(self):
            return "in"

        async def __aexit__(self, *e):
            out.append("out")

        def __aiter__(self):
            self.n = 0
            return self

        async def __anext__(self):
            self.n += 1
            if self.n > 2:
                raise StopAsyncIteration
            return self.n

    async def f():
        async with A() as a:
            out.append(a)
        async for n in A():
            out.append(n)

    try:
        f().send(None)
    except StopIteration:
        return out


def class_attributes():
    class A:
        count = 0
        names = []

        def __init__(self, name):
            A.count += 1
            self.names.append(name)

    A("a"), A("b")
    return A.count, A("c").names


def mixins():
    class Base:
        def hello(self):
            return ["base"]

    class Loud:
        def hello(self):
            return super().hello() + ["loud"]

    class Both(Loud, Base):
        def hello(self):
            return super().hello() + ["both"]

    return Base().hello(), Both().hello()


def class_decorators():
    def named(name):
        def decorate(kind):
            kind.label = name
            return kind

        return decorate

    @named("x")
    class A:
        pass

    return A.label


def setters_and_attributes():
    class A:
        def __init__(self):
            self.log = []

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)
            if name != "log":
                self.log.append(name)

    a = A()
    a.x = 1
    a.y = 2
    del a.y
    return a.log, a.x, hasattr(a, "y"), vars(a)["x"]


def text_of_objects():
    class A:
        def __repr__(self):
            return "<A>"

    class B(A):
        def __str__(self):
            return "b"

    return str(A()), f"{A()} {B()} {B()!r}", [A(), B()], "%s %r" % (B(), B())


def reflected_operators():
    class V:
        def __init__(self, x):
            self.x = x

        def __radd__(self, o):
            return V(self.x + o)

        def __iadd__(self, o):
            self.x += o
            return self

        def __neg__(self):
            return V(-self.x)

        def __abs__(self):
            return abs(self.x)

        def __hash__(self):
            return hash(self.x)

        def __eq__(self, o):
            return self.x == o.x

    v = V(1)
    v += 4
    return (1 + V(2)).x, v.x, (-v).x, abs(V(-3)), {V(1): "a"}[V(1)], len({V(1), V(1)})


def iteration_by_index():
    class A:
        def __getitem__(self, i):
            if i > 2:
                raise IndexError
            return i * i

    return [A()[i] for i in range(3)]


def dict_views():
    d = {"a": 1, "b": 2}
    keys = d.keys()
    d["c"] = 3
    return list(keys), "a" in d.keys(), [k for k, v in d.items() if v > 1], sorted(d.values(), reverse=True), len(d.items())


def dict_changes():
    d = {"a": 1}
    d.update(b=2)
    d.update([("c", 3)])
    d |= {"d": 4}
    e = d.copy()
    e.clear()
    return d, e, d.popitem(), d.pop("x", None), list(d), {k: v for k, v in d.items() if k != "a"}


def many_keys():
    d = {}
    for i in range(3000):
        d["key %d" % i] = i
    for i in range(0, 3000, 3):
        del d["key %d" % i]
    d["key 0"] = -1
    return len(d), d["key 2999"], list(d)[:2], list(d)[-1], sum(d.values())


def unhashable_keys():
    out = []
    for key in ([], {}, set()):
        try:
            {}[key] = 1
            out.append("taken")
        except TypeError:
            out.append("refused")
    return out


def set_methods():
    s = {1, 2}
    s.add(3)
    s.discard(9)
    s |= {4}
    s.update([5])
    s.remove(1)
    try:
        s.remove(1)
    except KeyError:
        s.add(0)
    return sorted(s), s.issuperset({2}), s.isdisjoint({9}), sorted(s.symmetric_difference({2, 9})), sorted(s.intersection([2, 3])), {2} <= s, sorted({x % 3 for x in s})


def unpacking():
    (a, b), c = (1, 2), 3
    a, b = b, a
    first, *_ = "abc"
    pairs = [(x, y) for x, (y, *z) in [(1, (2, 3)), (4, (5,))]]
    return a, b, c, first, pairs, [*range(3), *"ab"], {**{"a": 1}, **{"b": 2}}


def text_splitting():
    return "a b  c".split(), "a,b,,c".split(","), "a b c".split(None, 1), "a\nb\r\nc".splitlines(), "a\nb".splitlines(True), "k=v=w".partition("="), "x".join(str(i) for i in range(3))


def text_formats():
    return "{:>6}|{:<6}|{:^6}|{:*^7}".format("a", "b", "c", "d"), "{:,} {:+d} {:x} {:08b} {:e}".format(1234567, 5, 255, 5, 12345.678), "{:.3f} {:6.2f} {:.0%}".format(3.14159, 2.5, 0.25), "%(a)s %(b)04d" % {"a": "x", "b": 7}


def text_checks():
    return "abc".isalpha(), "12".isdigit(), "Ab".isupper(), "  ".isspace(), "abc" < "abd", "b" in "abc", "ab" * 2, max("hello"), sorted("bca"), list("ab"), "a" "b"


def bytes_methods():
    b = b"Hello, World"
    return b.upper(), b.find(b"o"), b.replace(b"l", b"L"), b.startswith(b"He"), b.split(b", "), b"-".join([b"a", b"b"]), b.strip(b"Hd"), b[0], b[1:3], list(b[:2]), b + b"!", b.hex(), bytes(3), b.count(b"l")


def decoding():
    return b"caf\xc3\xa9".decode(), b"caf\xe9".decode("latin-1"), b"a\xffb".decode("utf-8", "replace"), b"a\xffb".decode(errors="ignore"), "caf\u00e9".encode("latin-1"), "a\u20ac".encode("ascii", "replace")


def memory_views():
    m = memoryview(bytearray(b"abcd"))
    m[1] = 66
    return bytes(m[1:3]), len(m), list(m[:2])


def integers_from_text():
    return int("ff", 16), int("0b101", 0), int(" 7 "), int("-12"), int(2.9), int(True), float("1e3"), float(" 2.5 "), 0x1F, 0o17, 1_000


def integer_arithmetic():
    return 7 // 2, -7 // 2, 7 % -3, 2**10, 1 << 40, 0xFF & 0x0F, 6 ^ 3, ~5, divmod(-7, 2), round(7.5), round(-2.5), abs(-(2**70)), pow(2, 100) % 7


def float_arithmetic():
    return 1 / 4, 7 // 2.0, 7.5 % 2, 2**0.5 > 1.41, 1e3, float("inf") > 10**9, 3.0 == 3, int(1e10), max(1, 2.5)


def sorting_is_stable():
    pairs = [("b", 1), ("a", 1), ("c", 0), ("d", 1)]
    return sorted(pairs, key=lambda p: p[1]), sorted(pairs, key=lambda p: -p[1]), sorted(pairs, reverse=True, key=lambda p: p[1])


def functions_on_sequences():
    return min([3, 1, 2], default=0), max([], default="none"), sum([[1], [2]], []), list(zip("ab", [1, 2], (True, False))), list(map(lambda a, b: a + b, [1, 2], [3, 4])), list(reversed("abc")), list(range(5, 0, -2)), list(enumerate("ab"))


def deleting():
    x = [0, 1, 2, 3, 4, 5]
    del x[1], x[-1]
    d = {"a": {"b": 1}}
    del d["a"]["b"]
    return x, d


def comparing():
    return [1, 2] < [1, 3], (1, "a") == (1, "a"), [] == (), "a" != "b", 1 == 1.0, None is None, [1] is [1], 3 in (1, 2, 3), 1 <= 1 < 2


def truth():
    return [bool(x) for x in (0, 1, "", "a", [], [0], {}, None, 0.0, b"", b"x")], not [], [] or "default", "a" and "b"


def assertions():
    try:
        assert 1 == 2, "not equal"
    except AssertionError as e:
        return str(e)


def nested_functions():
    def outer(n):
        def inner(m):
            return n * m if m < 3 else inner(m - 1)

        return inner

    return outer(2)(5)


def callables():
    class Add:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

    f = [len, Add(2), str.upper, lambda x: x]
    return callable(f[1]), f[1](3), f[2]("a"), f[0]("abc")


def local_imports():
    from json import dumps as text
    import math as m

    return text({"a": 1}), m.floor(2.5)


def dates():
    from datetime import datetime, timedelta, timezone

    t = datetime(2024, 2, 28, 23, 30, tzinfo=timezone.utc)
    return t + timedelta(days=1, hours=1), t.isoformat(), t.strftime("%a, %d %b %Y %H:%M:%S GMT"), datetime.fromisoformat("2024-03-01T00:00:00+02:00") < t + timedelta(days=2), str(timedelta(minutes=90))


def flags():
    from enum import Flag, auto

    class Can(Flag):
        READ = auto()
        WRITE = auto()

    both = Can.READ | Can.WRITE
    return Can.READ in both, both.value, bool(Can.READ & Can.WRITE), [c.name for c in Can]


def cached_functions():
    from functools import cache, cached_property

    calls = []

    class A:
        @cached_property
        def x(self):
            calls.append("x")
            return 5

    @cache
    def f(n):
        calls.append(n)
        return n * 2

    a = A()
    return f(2), f(2), a.x, a.x, calls


def named_tuple_methods():
    from collections import namedtuple

    P = namedtuple("P", ["x", "y"])
    p = P(1, y=2)
    x, y = p
    return p._replace(x=5), p._asdict(), P._fields, x + y, p == (1, 2), p[0]


def heap_and_queue():
    from collections import deque

    q = deque(maxlen=3)
    for i in range(5):
        q.append(i)
    q.appendleft(9)
    return list(q), q[0], q.pop(), len(q)


def url_joins():
    from urllib.parse import urljoin, urlparse

    return urljoin("http://a/b/c", "../d"), urlparse("http://h/p;x?q#f").params, urlparse("http://u:p@h:1/").port


def regular_expression_groups():
    import re

    m = re.search(r"(?P<key>[a-z]+)=(?P<value>[^;]*)", "x; ab=cd; e")
    return m["key"], m.group("value"), m.span("key"), re.split(r"[;,]\s*", "a; b,c"), re.sub(r"(\w)-(\w)", r"\2-\1", "a-b")


def secrets_compared():
    import hashlib
    import hmac

    return hmac.compare_digest("abc", "abc"), hmac.new(b"k", b"m", "sha512").hexdigest()[:16], hashlib.md5(b"").hexdigest()


def comparisons_from_the_right():
    from enum import IntEnum

    class Level(IntEnum):
        LOW = 1
        HIGH = 3

    class Weight:
        def __init__(self, grams):
            self.grams = grams

        def __gt__(self, other):
            return self.grams > other

        def __le__(self, other):
            return self.grams <= other

    level = Level.HIGH
    return 2 < level, 3 <= level, 4 > level, 2.5 >= level, 1 < level < 5, max(Level.LOW, 2), sorted([level, 2, Level.LOW])[0] == 1, 2 < Weight(3), 5 >= Weight(6)


def words_in_patterns():
    import re

    text = "the cat, the catalogue; une café"
    return (
        re.findall(r"\bcat\b", text), re.findall(r"\w+(?=[,;])", text), re.sub(r"(?<=the )(\w)", lambda m: m[1].upper(), text),
        re.findall(r"(?i)CAF\w", text), re.search(r"(\w)\1|(?P<e>é)", text).lastgroup, re.findall(r"<(.+?)>", "<a><b>"),
        [(m.lastgroup, m[0]) for m in re.finditer(r"(?P<number>\d+)|(?P<name>\w+)|(?P<sign>[^\s\w])", "x1 = 20")],
    )  # fmt: skip


def typed_bases():
    from collections.abc import Iterator
    from typing import Generic, TypeVar

    T = TypeVar("T")

    class Box(Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

    class Many(Box[list[int]]):
        def __iter__(self) -> Iterator[int]:
            return iter(self.value)

    return list(Many([1, 2])), isinstance(Many([]), Box)


def arguments_by_name():
    return int("ff", base=16), sum([1], start=2), list(enumerate("a", start=1)), "a b c".split(maxsplit=1), "a,b,c".rsplit(sep=",", maxsplit=1), str(b"x", encoding="utf-8"), round(2.346, ndigits=2)


def instances_of_int():
    def kind(x):
        match x:
            case int():
                return "int"
            case _:
                return "other"

    return isinstance(True, int), isinstance(False, (str, int)), isinstance(1, bool), isinstance("a", (int, float)), kind(True), kind("x")


def numbers_with_commas():
    n = 1234567.891
    return f"{n:,.2f}", f"{-n:,.0f}", f"{n:+,.1f}", f"{n:>15,.2f}", f"{12:,.1f}", f"{n:_.1f}", f"{1234:,}", f"{0.5:8,.2f}|"


def translations():
    return "abc".translate(str.maketrans("ab", "xy", "c")), "abc".translate(str.maketrans({"a": "1", "b": None})), memoryview(b"abc")[1:].tobytes()


def copies():
    from copy import copy, deepcopy
    from types import SimpleNamespace

    class Node:
        def __init__(self, value):
            self.value = value

    one = Node([1, {"a": (2, [3])}])
    shallow, deep = copy(one), deepcopy(one)
    one.value[1]["a"][1].append(4)
    return shallow.value, deep.value, SimpleNamespace(a=1, b="x"), deepcopy(5)


def names_and_places():
    from bisect import bisect_left, insort
    from fnmatch import filter, fnmatchcase
    from html import escape

    places = [1, 3, 5]
    insort(places, 4)
    names = [fnmatchcase("a.txt", "*.t[a-z]t"), fnmatchcase("b", "[!ab]"), fnmatchcase("a+b", "a+?"), filter(["x1", "y"], "x*")]
    return places, bisect_left(places, 3), names, escape("<a href=\"x\">'&")


def identifiers():
    import secrets
    import uuid

    one = uuid.uuid4()
    return len(str(one)), one.version, uuid.UUID(str(one)) == one, len(secrets.token_hex(4)), len(secrets.token_bytes(3)), len(secrets.token_urlsafe(8)), secrets.randbelow(1), secrets.choice([7])


def clocks():
    import time

    moment = time.gmtime(86400 * 366)
    return moment.tm_year, moment[:6], moment.tm_wday, moment.tm_yday, time.strftime("%Y-%m-%d %H:%M:%S", moment), isinstance(time.monotonic(), float), time.perf_counter_ns() <= time.perf_counter_ns()


def causes():
    try:
        try:
            {}["x"]
        except KeyError as error:
            raise ValueError("no x") from error
    except ValueError as error:
        return str(error), repr(getattr(error, "__cause__", None))


def views_as_sets():
    return sorted({"a": 1, "b": 2}.keys() & {"a"})

# Methods and functions of Python that MicroPython lacks, for rewritten scripts to call.
MISSING = object()
TYPE_CHECKING = False


def cast(kind, value):
    return value


def TypeVar(*arguments, **names):
    return None


def merge(*dicts):
    out = {}
    for one in dicts:
        for key, value in one.items():
            out[key] = value
    return out


def to_dict(values=()):
    return merge(values) if hasattr(values, "items") else dict(values)


def without(mapping, keys):
    return {k: v for k, v in mapping.items() if k not in keys}


def positional(value, kind, at):
    fields = getattr(kind, "__match_args__", None) or getattr(kind, "_fields", None)
    return getattr(value, fields[at]) if fields else value


def decode(data, encoding="utf-8", errors="strict"):
    name = encoding.lower().replace("_", "-")
    if name in ("latin-1", "iso-8859-1", "latin1", "l1"):
        return "".join([chr(b) for b in data])
    if name in ("ascii", "us-ascii"):
        if errors == "strict" and any([b > 127 for b in data]):
            raise UnicodeError("'ascii' codec can't decode bytes: ordinal not in range(128)")
        return "".join([chr(b) if b < 128 else "" if errors == "ignore" else "\ufffd" for b in data])
    if name not in ("utf-8", "utf8"):
        raise LookupError("unknown encoding: " + encoding)
    try:
        return bytes(data).decode()
    except UnicodeError:
        if errors == "strict":
            raise
    out, at = [], 0
    while at < len(data):
        first = data[at]
        size = 1 if first < 128 else 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
        low, high = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(first, (0x80, 0xBF))
        end = at + 1
        while size and end < at + size and end < len(data) and low <= data[end] <= high:
            low, high = 0x80, 0xBF
            end += 1
        if size and end == at + size:
            out.append(bytes(data[at:end]).decode())
        elif errors == "replace":
            out.append("\ufffd")
        at = end
    return "".join(out)


def encode(text, encoding="utf-8", errors="strict"):
    name = encoding.lower().replace("_", "-")
    if name in ("utf-8", "utf8"):
        return text.encode()
    limit = 128 if name in ("ascii", "us-ascii") else 256 if name in ("latin-1", "iso-8859-1", "latin1", "l1") else 0
    if not limit:
        raise LookupError("unknown encoding: " + encoding)
    out = bytearray()
    for c in text:
        if ord(c) < limit:
            out.append(ord(c))
        elif errors == "strict":
            raise UnicodeError("%r codec can't encode character %r: ordinal not in range(%d)" % (encoding, c, limit))
        elif errors == "replace":
            out.append(63)
    return bytes(out)


def slice_of(value, start, stop, step):
    if not isinstance(value, (str, bytes, tuple, bytearray)):
        return value[start:stop:step]
    part = list(value)[start:stop:step]
    return "".join(part) if isinstance(value, str) else type(value)(part)


def format(value, spec=""):
    if hasattr(value, "__format__"):
        return value.__format__(spec)
    if not isinstance(value, (str, int, float)):
        value = str(value)
    if "_" in spec and isinstance(value, (int, float)):
        return format(value, spec.replace("_", ",")).replace(",", "_")
    if "," in spec and isinstance(value, float) and spec[spec.index(",") + 1 :][-1:] not in ("e", "E"):
        return grouped(value, spec)
    return ("{:" + spec + "}").format(value)


def grouped(value, spec):
    """A float with commas: first the digits, then the padding."""
    before, after = spec.split(",")
    digits = before.lstrip("+- ")
    sign = before[: len(before) - len(digits)] if before[:1] in ("+", "-", " ") else ""
    text = ("{:" + sign + after + "}").format(value)
    number = text.lstrip("+- ")
    whole, point, rest = number.partition(".")
    parts = []
    while len(whole) > 3 and whole.isdigit():
        parts.insert(0, whole[-3:])
        whole = whole[:-3]
    text = text[: len(text) - len(number)] + ",".join([whole] + parts) + point + rest
    if not digits:
        return text
    return ("{:" + (digits if digits[0] in "<>^=" or digits[1:2] in ("<", ">", "^") else ">" + digits) + "}").format(text)


def maketrans(old, new=None, gone=""):
    if new is None:
        return {ord(k) if isinstance(k, str) else k: v for k, v in old.items()}
    if len(old) != len(new):
        raise ValueError("the first two maketrans arguments must have equal length")
    table = {ord(a): ord(b) for a, b in zip(old, new)}
    table.update({ord(c): None for c in gone})
    return table


def tobytes(value):
    return bytes(value)


def issubclass(kind, kinds):
    import builtins

    if kind is bool and (kinds is int or isinstance(kinds, tuple) and int in kinds):
        return True
    return builtins.issubclass(kind, kinds)


def is_instance(value, kinds):
    if isinstance(kinds, tuple):
        return any([is_instance(value, kind) for kind in kinds])
    return isinstance(value, getattr(kinds, "_kind", kinds))


def zip(*iterables, strict=False):
    import builtins

    if not strict:
        return builtins.zip(*iterables)
    lists = [list(i) for i in iterables]
    if len(set([len(i) for i in lists])) > 1:
        raise ValueError("zip() arguments are not of one length")
    return builtins.zip(*lists)


def removeprefix(text, prefix):
    return text[len(prefix) :] if prefix and text.startswith(prefix) else text


def removesuffix(text, suffix):
    return text[: len(text) - len(suffix)] if suffix and text.endswith(suffix) else text


def capitalize(text):
    return text[:1].upper() + text[1:].lower()


def title(text):
    out, begin = [], True
    for c in text:
        out.append(c.upper() if begin else c.lower())
        begin = not c.isalpha()
    return "".join(out)


def swapcase(text):
    return "".join([c.lower() if c.isupper() else c.upper() for c in text])


def casefold(text):
    return text.lower()


def zfill(text, width):
    sign = text[:1] if text[:1] in ("+", "-") and text else ""
    return sign + "0" * (width - len(text)) + text[len(sign) :]


def ljust(text, width, fill=" "):
    return text + fill * (width - len(text))


def rjust(text, width, fill=" "):
    return fill * (width - len(text)) + text


def center(text, width, fill=" "):
    space = max(0, width - len(text))
    left = space // 2 + (space & width & 1)
    return fill * left + text + fill * (space - left)


def isalnum(text):
    return bool(text) and all([c.isalpha() or c.isdigit() for c in text])


def isdecimal(text):
    return text.isdigit()


isnumeric = isdecimal


def isascii(text):
    return all([ord(c) < 128 for c in text]) if isinstance(text, str) else all([c < 128 for c in text])


def isidentifier(text):
    return bool(text) and not text[0].isdigit() and all([c.isalpha() or c.isdigit() or c == "_" for c in text])


def expandtabs(text, size=8):
    out, column = [], 0
    for c in text:
        if c == "\t":
            c = " " * (size - column % size)
        out.append(c)
        column = 0 if c == "\n" else column + len(c)
    return "".join(out)


def translate(text, table):
    out = []
    for c in text:
        new = table.get(ord(c), c)
        if new is not None:
            out.append(chr(new) if isinstance(new, int) else new)
    return "".join(out)


def to_bytes(number, length=1, byteorder="big", signed=False):
    if not isinstance(number, int):
        return number.to_bytes(length, byteorder)
    if signed:
        if not -(1 << 8 * length - 1) <= number < 1 << 8 * length - 1:
            raise OverflowError("int too big to convert")
        number &= (1 << 8 * length) - 1
    elif number < 0:
        raise OverflowError("can't convert negative int to unsigned")
    return number.to_bytes(length, byteorder)


def from_bytes(kind, data, byteorder="big", signed=False):
    number = kind.from_bytes(bytes(data), byteorder)
    return number - (1 << 8 * len(data)) if signed and data and number >> 8 * len(data) - 1 else number


def bit_length(number):
    number, size = abs(number), 0
    while number:
        number >>= 1
        size += 1
    return size


def bit_count(number):
    return bin(abs(number)).count("1")


def dataclass_values(value, names):
    return tuple([getattr(value, name) for name in names])


def dataclass_repr(value, names):
    return type(value).__name__ + "(" + ", ".join(["%s=%r" % (name, getattr(value, name)) for name in names]) + ")"


def frozen(name):
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError("cannot assign to field %r" % name)


def named_tuple(name, fields, defaults=()):
    from collections import namedtuple

    return namedtuple(name, fields.split(), defaults=defaults)


def enumeration(kind):
    from enum import _complete

    return _complete(kind)


def _method(name):
    function = globals()[name]

    def call(value, *arguments, **names):
        if isinstance(value, (str, bytes, bytearray, int)):
            return function(value, *arguments, **names)
        return getattr(value, name)(*arguments, **names)

    globals()[name] = call


for _name in (
    "removeprefix", "removesuffix", "title", "capitalize", "swapcase", "zfill", "ljust", "rjust", "casefold", "isalnum", "isdecimal", "isnumeric",
    "isidentifier", "expandtabs", "translate", "bit_length", "bit_count", "center", "isascii", "encode", "decode",
):
    _method(_name)

# What lowered scripts call: methods and functions of Python that MicroPython lacks.
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


def slice_of(value, start, stop, step):
    if not isinstance(value, (str, bytes, list, tuple, bytearray, range)):
        return value[start:stop:step]
    if isinstance(value, (list, range)):
        return value[start:stop:step]
    size = len(value)
    if step > 0:
        start = 0 if start is None else max(start + size, 0) if start < 0 else min(start, size)
        stop = size if stop is None else max(stop + size, 0) if stop < 0 else min(stop, size)
    else:
        start = size - 1 if start is None else max(start + size, -1) if start < 0 else min(start, size - 1)
        stop = -1 if stop is None else max(stop + size, -1) if stop < 0 else min(stop, size - 1)
    if isinstance(value, str):
        return "".join([value[i] for i in range(start, stop, step)])
    return type(value)([value[i] for i in range(start, stop, step)])


def format(value, spec=""):
    if hasattr(value, "__format__"):
        return value.__format__(spec)
    if not isinstance(value, (str, int, float)):
        value = str(value)
    if "_" in spec and isinstance(value, int):
        return format(value, spec.replace("_", ",")).replace(",", "_")
    return ("{:" + spec + "}").format(value)


def issubclass(kind, kinds):
    import builtins

    if kind is bool and (kinds is int or isinstance(kinds, tuple) and int in kinds):
        return True
    return builtins.issubclass(kind, kinds)


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


def dataclass_repr(value, kind, names):
    return kind + "(" + ", ".join(["%s=%r" % (name, getattr(value, name)) for name in names]) + ")"


def named_tuple(name, fields, defaults=()):
    from collections import namedtuple

    return namedtuple(name, fields.split(), defaults=defaults)


def enumeration(kind):
    from enum import _complete

    return _complete(kind)

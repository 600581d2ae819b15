import _json


class JSONDecodeError(ValueError):
    def __init__(self, msg, doc, pos):
        self.lineno = doc[:pos].count("\n") + 1
        self.colno = pos - doc[:pos].rfind("\n")
        super().__init__("%s: line %d column %d (char %d)" % (msg, self.lineno, self.colno, pos))
        self.msg = msg
        self.doc = doc
        self.pos = pos


def loads(text, object_hook=None, parse_float=None, parse_int=None, object_pairs_hook=None, **options):
    if parse_float or parse_int or options:
        raise TypeError("json.loads of a packed filter has object_hook and object_pairs_hook")
    try:
        value = _json.loads(text)
    except UnicodeError:
        raise
    except ValueError as error:
        words, place = error.args
        raise JSONDecodeError(words, text if isinstance(text, str) else bytes(text).decode(), place) from None
    if object_pairs_hook is not None:
        return _hooked(value, lambda one: object_pairs_hook(list(one.items())))
    return value if object_hook is None else _hooked(value, object_hook)


def load(file, **options):
    return loads(file.read(), **options)


def _hooked(value, hook):
    if isinstance(value, dict):
        return hook({key: _hooked(one, hook) for key, one in value.items()})
    return [_hooked(one, hook) for one in value] if isinstance(value, list) else value


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, (list, tuple)) else value


def _refuse(value):
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def dumps(value, skipkeys=False, ensure_ascii=True, indent=None, separators=None, default=None, sort_keys=False):
    if skipkeys:
        raise TypeError("json.dumps of a packed filter has no skipkeys")
    if isinstance(indent, int):
        indent = " " * indent
    item, key = separators or ("," if indent is not None else ", ", ": ")
    fallback = default or _refuse

    def other(one):
        # A member of an enumeration of numbers or text is encoded as its value.
        return one.value if getattr(one, "_is_value", False) else fallback(one)

    return _json.dumps(_sorted(value) if sort_keys else value, item, key, indent, ensure_ascii, other)


def dump(value, file, **options):
    file.write(dumps(value, **options))

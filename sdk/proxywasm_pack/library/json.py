import ujson


class JSONDecodeError(ValueError):
    pass


def loads(text, **options):
    begin = text.strip()
    if isinstance(begin, str):
        begin = begin.encode()
    # MicroPython's parser takes the outermost bracket for closed.
    if begin[:1] == b"{" and begin[-1:] != b"}" or begin[:1] == b"[" and begin[-1:] != b"]":
        raise JSONDecodeError("unterminated")
    try:
        return ujson.loads(text)
    except ValueError:
        raise JSONDecodeError("no JSON")


def _sorted(value):
    if isinstance(value, dict):
        return dict([(key, _sorted(value[key])) for key in sorted(value)])
    if isinstance(value, (list, tuple)):
        return [_sorted(one) for one in value]
    return value


def _indented(value, space, level):
    end = "\n" + space * level
    inner = end + space
    if isinstance(value, dict) and value:
        lines = [ujson.dumps(str(key)) + ": " + _indented(one, space, level + 1) for key, one in value.items()]
        return "{" + inner + ("," + inner).join(lines) + end + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + inner + ("," + inner).join([_indented(one, space, level + 1) for one in value]) + end + "]"
    return ujson.dumps(value)


def dumps(value, indent=None, separators=None, sort_keys=False, **options):
    if sort_keys:
        value = _sorted(value)
    if indent is not None:
        return _indented(value, " " * indent if isinstance(indent, int) else indent, 0)
    return ujson.dumps(value, separators=separators) if separators else ujson.dumps(value)

# The decorator is made into plain methods when a script is packed; these are for what is asked later.
def dataclass(kind=None, **options):
    return kind


def field(**options):
    return options.get("default")


def asdict(value):
    out = {}
    for name in value._fields:
        one = getattr(value, name)
        out[name] = asdict(one) if hasattr(one, "_fields") else one
    return out


def astuple(value):
    return tuple([getattr(value, name) for name in value._fields])


def replace(value, **changes):
    names = asdict(value)
    for name in value._fields:
        names[name] = changes.get(name, getattr(value, name))
    return type(value)(**names)

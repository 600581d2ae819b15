# Packing a script replaces the decorator by plain methods; these functions work on the instances at run time.
class FrozenInstanceError(AttributeError):
    pass


class Field:
    def __init__(self, name):
        self.name = name


def dataclass(kind=None, **options):
    return kind


def field(**options):
    return options.get("default")


def is_dataclass(value):
    return hasattr(value, "__dataclass_fields__")


def fields(value):
    return tuple([Field(name) for name in value.__dataclass_fields__])


def _copied(value, of):
    if is_dataclass(value):
        return of(value)
    if isinstance(value, dict):
        return {key: _copied(one, of) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_copied(one, of) for one in value])
    return value


def asdict(value):
    return {name: _copied(getattr(value, name), asdict) for name in value.__dataclass_fields__}


def astuple(value):
    return tuple([_copied(getattr(value, name), astuple) for name in value.__dataclass_fields__])


def replace(value, **changes):
    return type(value)(**{name: changes.pop(name, getattr(value, name)) for name in value.__dataclass_fields__}, **changes)

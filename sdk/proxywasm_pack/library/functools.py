def partial(function, *first, **given):
    def call(*more, **names):
        all_names = dict(given)
        all_names.update(names)
        return function(*(first + more), **all_names)

    return call


def reduce(function, values, *initial):
    values = iter(values)
    out = initial[0] if initial else next(values)
    for value in values:
        out = function(out, value)
    return out


def lru_cache(maxsize=128, typed=False):
    if callable(maxsize):
        return lru_cache()(maxsize)

    def decorate(function):
        known = {}

        def call(*values, **names):
            key = (values, tuple(sorted(names.items()))) if names else values
            if key not in known:
                if maxsize is not None and len(known) >= maxsize:
                    known.pop(next(iter(known)))
                known[key] = function(*values, **names)
            return known[key]

        return call

    return decorate


def cache(function):
    return lru_cache(None)(function)


def wraps(wrapped):
    return lambda function: function


class cached_property:
    def __init__(self, function):
        raise TypeError("cached_property does not work in a packed filter; use functools.cache or a plain attribute")


def total_ordering(kind):
    return kind


def cmp_to_key(compare):
    class Key:
        def __init__(self, value):
            self.value = value

        def __lt__(self, other):
            return compare(self.value, other.value) < 0

    return Key

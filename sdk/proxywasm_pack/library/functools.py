from collections import namedtuple


class _Bound:
    """A callable that becomes a method when accessed on an instance."""

    def __get__(self, instance, kind):
        return self if instance is None else partial(self, instance)


class partial(_Bound):
    def __init__(self, function, *args, **keywords):
        self.func = function
        self.args = args
        self.keywords = keywords

    def __call__(self, *more, **names):
        if self.keywords:
            names = self.keywords | names
        return self.func(*(self.args + more), **names)


def reduce(function, values, *initial):
    values = iter(values)
    if initial:
        out = initial[0]
    else:
        try:
            out = next(values)
        except StopIteration:
            raise TypeError("reduce() of empty iterable with no initial value")
    for value in values:
        out = function(out, value)
    return out


_Info = namedtuple("CacheInfo", "hits misses maxsize currsize")


class _Cached(_Bound):
    def __init__(self, function, maxsize):
        self.__wrapped__ = function
        self._maxsize = maxsize
        self.cache_clear()

    def __call__(self, *values, **names):
        key = (values, tuple(sorted(names.items()))) if names else values
        known = self._known
        if key in known:
            self._hits += 1
            value = known[key]
            if self._maxsize is not None:
                del known[key]
                known[key] = value
            return value
        self._misses += 1
        value = self.__wrapped__(*values, **names)
        if self._maxsize != 0:
            if self._maxsize is not None and len(known) >= self._maxsize:
                del known[next(iter(known))]
            known[key] = value
        return value

    def cache_clear(self):
        self._known = {}
        self._hits = self._misses = 0

    def cache_info(self):
        return _Info(self._hits, self._misses, self._maxsize, len(self._known))


def lru_cache(maxsize=128, typed=False):
    if callable(maxsize):
        return _Cached(maxsize, 128)
    return lambda function: _Cached(function, maxsize)


def cache(function):
    return _Cached(function, None)


def wraps(wrapped, *names):
    return lambda function: function


def update_wrapper(wrapper, wrapped, *names):
    return wrapper


class cached_property:
    def __init__(self, function):
        self._function = function

    def __get__(self, instance, kind):
        if instance is None:
            return self
        value = self._function(instance)
        setattr(instance, self._function.__name__, value)
        return value


def total_ordering(kind):
    def given(name, method):
        if not hasattr(kind, name):
            setattr(kind, name, method)

    if hasattr(kind, "__lt__"):
        given("__gt__", lambda a, b: not (a < b or a == b))
        given("__le__", lambda a, b: a < b or a == b)
        given("__ge__", lambda a, b: not a < b)
    elif hasattr(kind, "__gt__"):
        given("__lt__", lambda a, b: not (a > b or a == b))
        given("__ge__", lambda a, b: a > b or a == b)
        given("__le__", lambda a, b: not a > b)
    elif hasattr(kind, "__le__"):
        given("__ge__", lambda a, b: not a <= b or a == b)
        given("__lt__", lambda a, b: a <= b and not a == b)
        given("__gt__", lambda a, b: not a <= b)
    elif hasattr(kind, "__ge__"):
        given("__le__", lambda a, b: not a >= b or a == b)
        given("__gt__", lambda a, b: a >= b and not a == b)
        given("__lt__", lambda a, b: not a >= b)
    else:
        raise ValueError("must define at least one ordering operation: < > <= >=")
    return kind


def cmp_to_key(compare):
    class Key:
        def __init__(self, value):
            self.obj = value

        def __lt__(self, other):
            return compare(self.obj, other.obj) < 0

        def __eq__(self, other):
            return compare(self.obj, other.obj) == 0

    return Key

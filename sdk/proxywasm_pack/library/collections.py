from ucollections import namedtuple as _namedtuple


def namedtuple(name, fields, rename=False, defaults=(), module=None):
    fields = tuple(fields.replace(",", " ").split() if isinstance(fields, str) else fields)
    base = _namedtuple(name, fields)
    first = len(fields) - len(defaults or ())

    class made(base):
        _fields = __match_args__ = fields
        _field_defaults = {field: defaults[i] for i, field in enumerate(fields[first:])}

        def __init__(self, *values, **names):
            if len(values) < len(fields):
                values = list(values)
                for i in range(len(values), len(fields)):
                    if fields[i] in names:
                        values.append(names.pop(fields[i]))
                    elif i >= first:
                        values.append(defaults[i - first])
                    else:
                        raise TypeError("missing argument " + fields[i])
            super().__init__(*values, **names)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return {fields[i]: value for i, value in enumerate(self)}

        def _replace(self, **names):
            changed = self._asdict()
            for one, value in names.items():
                if one not in changed:
                    raise ValueError("Got unexpected field names: [%r]" % one)
                changed[one] = value
            return type(self)(**changed)

    return made


class OrderedDict(dict):
    def move_to_end(self, key, last=True):
        value = self.pop(key)
        if last:
            self[key] = value
            return
        others = list(self.items())
        self.clear()
        self[key] = value
        self.update(others)

    def popitem(self, last=True):
        if last:
            return super().popitem()
        if not self:
            raise KeyError("dictionary is empty")
        key = next(iter(self))
        return key, self.pop(key)

    def copy(self):
        return OrderedDict(self.items())


class defaultdict(dict):
    def __init__(self, factory=None, *values, **names):
        super().__init__(*values, **names)
        self.default_factory = factory

    def __getitem__(self, key):
        if key in self:
            return super().__getitem__(key)
        return self.__missing__(key)

    def __missing__(self, key):
        if self.default_factory is None:
            raise KeyError(key)
        value = self.default_factory()
        self[key] = value
        return value

    def copy(self):
        return defaultdict(self.default_factory, self.items())


class Counter(dict):
    def __init__(self, values=(), **names):
        super().__init__()
        self.update(values, **names)

    def __getitem__(self, key):
        return self.get(key, 0)

    def update(self, values=(), **names):
        self._add(values, 1)
        if names:
            self._add(names, 1)

    def subtract(self, values=(), **names):
        self._add(values, -1)
        if names:
            self._add(names, -1)

    def _add(self, values, sign):
        if isinstance(values, dict):
            for key, count in values.items():
                self[key] = self.get(key, 0) + sign * count
        else:
            for key in values:
                self[key] = self.get(key, 0) + sign

    def most_common(self, count=None):
        pairs = sorted(self.items(), key=lambda pair: -pair[1])
        return pairs if count is None else pairs[:count]

    def total(self):
        return sum(self.values())

    def elements(self):
        return iter([key for key, count in self.items() for _ in range(count)])

    def copy(self):
        return Counter(self)

    def _with(self, other, join):
        out = Counter()
        for key in list(self) + [key for key in other if key not in self]:
            count = join(self[key], other[key])
            if count > 0:
                out[key] = count
        return out

    def __add__(self, other):
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self._with(other, lambda a, b: a - b)

    def __and__(self, other):
        return self._with(other, min)

    def __or__(self, other):
        return self._with(other, max)

    def __repr__(self):
        return "Counter({%s})" % ", ".join(["%r: %r" % pair for pair in self.most_common()]) if self else "Counter()"


class deque:
    def __init__(self, values=(), maxlen=None):
        self.maxlen = maxlen
        self._items = []
        self.extend(values)

    def append(self, value):
        self._items.append(value)
        if self.maxlen is not None and len(self._items) > self.maxlen:
            self._items.pop(0)

    def appendleft(self, value):
        self._items.insert(0, value)
        if self.maxlen is not None and len(self._items) > self.maxlen:
            self._items.pop()

    def extend(self, values):
        for value in list(values):
            self.append(value)

    def extendleft(self, values):
        for value in list(values):
            self.appendleft(value)

    def pop(self):
        return self._items.pop() if self._items else self._empty()

    def popleft(self):
        return self._items.pop(0) if self._items else self._empty()

    def _empty(self):
        raise IndexError("pop from an empty deque")

    def rotate(self, count=1):
        if self._items:
            at = -count % len(self._items)
            self._items = self._items[at:] + self._items[:at]

    def clear(self):
        self._items.clear()

    def copy(self):
        return deque(self._items, self.maxlen)

    def count(self, value):
        return self._items.count(value)

    def index(self, value):
        return self._items.index(value)

    def remove(self, value):
        self._items.remove(value)

    def insert(self, at, value):
        self._items.insert(at, value)

    def reverse(self):
        self._items.reverse()

    def __len__(self):
        return len(self._items)

    def __bool__(self):
        return bool(self._items)

    def __iter__(self):
        return iter(self._items)

    def __reversed__(self):
        return reversed(self._items)

    def __contains__(self, value):
        return value in self._items

    def __getitem__(self, at):
        return self._items[at]

    def __setitem__(self, at, value):
        self._items[at] = value

    def __delitem__(self, at):
        del self._items[at]

    def __eq__(self, other):
        return isinstance(other, deque) and self._items == other._items

    def __repr__(self):
        return "deque(%r%s)" % (self._items, "" if self.maxlen is None else ", maxlen=%d" % self.maxlen)


class ChainMap:
    def __init__(self, *maps):
        self.maps = list(maps) or [{}]

    def __getitem__(self, key):
        for one in self.maps:
            if key in one:
                return one[key]
        raise KeyError(key)

    def get(self, key, default=None):
        return self[key] if key in self else default

    def __setitem__(self, key, value):
        self.maps[0][key] = value

    def __delitem__(self, key):
        del self.maps[0][key]

    def __contains__(self, key):
        return any([key in one for one in self.maps])

    def __iter__(self):
        return iter(self._merged())

    def __len__(self):
        return len(self._merged())

    def _merged(self):
        out = {}
        for one in reversed(self.maps):
            out.update(one)
        return out

    def keys(self):
        return self._merged().keys()

    def values(self):
        return self._merged().values()

    def items(self):
        return self._merged().items()

    def new_child(self, first=None):
        return ChainMap({} if first is None else first, *self.maps)

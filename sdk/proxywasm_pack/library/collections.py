from ucollections import OrderedDict, deque, namedtuple as _namedtuple


def namedtuple(name, fields, defaults=()):
    fields = fields.replace(",", " ").split() if isinstance(fields, str) else list(fields)
    base = _namedtuple(name, fields)
    if not defaults:
        return base
    first = len(fields) - len(defaults)

    def make(*values, **names):
        values = list(values)
        for i in range(len(values), len(fields)):
            if fields[i] in names:
                values.append(names[fields[i]])
            elif i >= first:
                values.append(defaults[i - first])
            else:
                raise TypeError("missing argument " + fields[i])
        return base(*values)

    return make


class defaultdict(dict):
    def __init__(self, factory=None, *values):
        super().__init__(*values)
        self.default_factory = factory

    def __getitem__(self, key):
        if key in self:
            return super().__getitem__(key)
        if self.default_factory is None:
            raise KeyError(key)
        value = self.default_factory()
        self[key] = value
        return value


class Counter(dict):
    def __init__(self, values=()):
        super().__init__()
        self.update(values)

    def __getitem__(self, key):
        return self.get(key, 0)

    def update(self, values=()):
        if isinstance(values, dict):
            for key, count in values.items():
                self[key] = self[key] + count
        else:
            for key in values:
                self[key] = self[key] + 1

    def most_common(self, count=None):
        pairs = sorted(self.items(), key=lambda pair: -pair[1])
        return pairs if count is None else pairs[:count]

    def total(self):
        return sum(self.values())

    def elements(self):
        return [key for key, count in self.items() for _ in range(count)]

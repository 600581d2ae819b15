def count(start=0, step=1):
    while True:
        yield start
        start += step


def cycle(values):
    values = list(values)
    while values:
        yield from values


def repeat(value, times=None):
    while times is None or times > 0:
        yield value
        times = None if times is None else times - 1


class chain:
    def __init__(self, *iterables):
        self._iterables = iterables

    def __iter__(self):
        for iterable in self._iterables:
            yield from iterable

    @staticmethod
    def from_iterable(iterables):
        return chain(*iterables)


def islice(values, *bounds):
    start, stop, step = (0, bounds[0], 1) if len(bounds) == 1 else (bounds + (1,))[:3]
    start = start or 0
    step = step or 1
    at = 0
    if stop is not None and stop <= 0:
        return
    for value in values:
        if at >= start and not (at - start) % step:
            yield value
        at += 1
        if stop is not None and at >= stop:
            return


def takewhile(test, values):
    for value in values:
        if not test(value):
            return
        yield value


def dropwhile(test, values):
    dropping = True
    for value in values:
        dropping = dropping and test(value)
        if not dropping:
            yield value


def filterfalse(test, values):
    for value in values:
        if not test(value):
            yield value


def accumulate(values, function=None, initial=None):
    total = initial
    if initial is not None:
        yield total
    for value in values:
        total = value if total is None else function(total, value) if function else total + value
        yield total


def groupby(values, key=None):
    group, name, first = [], None, True
    for value in values:
        new = key(value) if key else value
        if not first and new != name:
            yield name, iter(group)
            group = []
        first, name = False, new
        group.append(value)
    if not first:
        yield name, iter(group)


def pairwise(values):
    before, first = None, True
    for value in values:
        if not first:
            yield before, value
        before, first = value, False


def product(*pools, repeat=1):
    out = [()]
    for pool in [list(p) for p in pools] * repeat:
        out = [have + (value,) for have in out for value in pool]
    return iter(out)


def permutations(values, size=None):
    values = list(values)
    size = len(values) if size is None else size
    if not size:
        yield ()
        return
    for i in range(len(values)):
        for rest in permutations(values[:i] + values[i + 1 :], size - 1):
            yield (values[i],) + rest


def combinations(values, size):
    values = list(values)
    if not size:
        yield ()
        return
    for i in range(len(values)):
        for rest in combinations(values[i + 1 :], size - 1):
            yield (values[i],) + rest


def starmap(function, values):
    for value in values:
        yield function(*value)


def zip_longest(*iterables, fillvalue=None):
    lists = [list(i) for i in iterables]
    for i in range(max([len(x) for x in lists] or [0])):
        yield tuple([x[i] if i < len(x) else fillvalue for x in lists])


def tee(values, n=2):
    values = list(values)
    return tuple([iter(values) for _ in range(n)])


def compress(values, selectors):
    for value, chosen in zip(values, selectors):
        if chosen:
            yield value


def combinations_with_replacement(values, size):
    pool = tuple(values)
    places = [0] * size
    if size and not pool:
        return
    while True:
        yield tuple([pool[i] for i in places])
        for i in range(size - 1, -1, -1):
            if places[i] != len(pool) - 1:
                places[i:] = [places[i] + 1] * (size - i)
                break
        else:
            return

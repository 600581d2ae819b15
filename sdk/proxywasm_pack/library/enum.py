class Enum:
    pass


class IntEnum(Enum):
    pass


class StrEnum(Enum):
    pass


class Flag(Enum):
    pass


class IntFlag(Flag):
    pass


class auto:
    pass


def unique(kind):
    return kind


class _Kind:
    """What the name of an enumeration stands for: calling looks a value up, iterating gives the members."""

    def __init__(self, kind, members):
        self.__name__ = kind.__name__
        self._kind = kind
        self.__members__ = members
        self._by_value = {}
        for name, member in members.items():
            setattr(self, name, member)
            if member.value not in self._by_value:
                self._by_value[member.value] = member

    def __call__(self, value):
        if isinstance(value, self._kind):
            return value
        if value in self._by_value:
            return self._by_value[value]
        raise ValueError("%r is not a valid %s" % (value, self.__name__))

    def __getitem__(self, name):
        return self.__members__[name]

    def __iter__(self):
        return iter(self.__members__.values())

    def __len__(self):
        return len(self.__members__)

    def __contains__(self, value):
        return isinstance(value, self._kind) or value in self._by_value

    def __getattr__(self, name):
        return getattr(self._kind, name)


def _complete(kind):
    number = issubclass(kind, IntEnum) or issubclass(kind, Flag)
    bases = (kind,)

    class Member(kind):
        def __init__(self, name, value):
            self.name = name
            self.value = value

        def __repr__(self):
            return "<%s.%s: %r>" % (kind.__name__, self.name, self.value)

        def __str__(self):
            if issubclass(kind, StrEnum) or number:
                return str(self.value)
            return "%s.%s" % (kind.__name__, self.name)

        def __eq__(self, other):
            if isinstance(other, Enum):
                return self is other
            return (number or issubclass(kind, StrEnum)) and self.value == other

        def __hash__(self):
            return hash(self.value)

        def __lt__(self, other):
            return self.value < (other.value if isinstance(other, Enum) else other)

        def __gt__(self, other):
            return self.value > (other.value if isinstance(other, Enum) else other)

        def __int__(self):
            return int(self.value)

        def __or__(self, other):
            return Member("%s|%s" % (self.name, other.name), self.value | other.value)

        def __and__(self, other):
            return Member("%s&%s" % (self.name, other.name), self.value & other.value)

        def __bool__(self):
            return bool(self.value) if issubclass(kind, Flag) else True

        def __contains__(self, other):
            return self.value & other.value == other.value

    members = {}
    last = 0
    names = [n for n in kind._names if hasattr(kind, n)]
    for name in names:
        value = getattr(kind, name)
        if isinstance(value, auto) or value is auto:
            if issubclass(kind, StrEnum):
                value = name.lower()
            elif issubclass(kind, Flag):
                value = 1 if not last else last * 2
            else:
                value = last + 1
        last = value if isinstance(value, int) else 0
        members[name] = Member(name, value)
    return _Kind(kind, members)

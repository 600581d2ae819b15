# Packing a script adds the decorator `_lowered.enumeration` to each `class Colour(Enum)`, so that the name refers to a
# `_Kind`. Members of IntEnum, IntFlag and StrEnum are numbers and text.
class Enum:
    pass


class IntEnum(int, Enum):
    pass


class StrEnum(str, Enum):
    pass


class Flag(Enum):
    pass


class IntFlag(int, Flag):
    pass


class auto:
    pass


def unique(kind):
    values = [member.value for member in kind]
    if len(kind.__members__) != len(values):
        raise ValueError("duplicate values found in " + kind.__name__)
    return kind


class _Kind:
    """The object that an enumeration's name refers to: calling it looks up a value, iterating yields the members."""

    def __init__(self, kind, flag):
        self.__name__ = kind.__name__
        self._kind = kind
        self._flag = flag
        self.__members__ = {}
        self._by_value = {}

    def _add(self, name, member):
        self.__members__[name] = member
        setattr(self, name, member)

    def __call__(self, value):
        if isinstance(value, self._kind):
            return value
        if value in self._by_value:
            return self._by_value[value]
        if self._flag and isinstance(value, int):
            return self._flags(value)
        if hasattr(self._kind, "_missing_"):
            found = self._kind._missing_(value)
            if found is not None:
                return found
        raise ValueError("%r is not a valid %s" % (value, self.__name__))

    def _flags(self, value):
        every = 0
        for one in self:
            every |= one.value
        if value < 0:
            value = every & value
        if value & ~every:
            raise ValueError("%r is not a valid %s" % (value, self.__name__))
        if value not in self._by_value:
            names = [one.name for one in self if one.value & value == one.value]
            self._by_value[value] = self._make("|".join(names) if names else None, value)
        return self._by_value[value]

    def __getitem__(self, name):
        return self.__members__[name]

    def __iter__(self):
        return iter([member for name, member in self.__members__.items() if member.name == name])

    def __len__(self):
        return len(list(iter(self)))

    def __contains__(self, value):
        return isinstance(value, self._kind) or value in self._by_value

    def __getattr__(self, name):
        return getattr(self._kind, name)

    def __repr__(self):
        return "<enum %r>" % self.__name__


def _complete(kind):
    text, flag = issubclass(kind, StrEnum), issubclass(kind, Flag)
    number = issubclass(kind, IntEnum) or issubclass(kind, IntFlag)
    out = _Kind(kind, flag)

    class Member(kind):
        _is_value = text or number

        def __init__(self, name, value):
            if text or number:
                super().__init__(value)
            self.name = self._name_ = name
            self.value = self._value_ = value

        def __repr__(self):
            if self.name is None:
                return "<%s: %r>" % (out.__name__, self.value)
            return "<%s.%s: %r>" % (out.__name__, self.name, self.value)

        def __hash__(self):
            return hash(self.value if text or number else self.name)

    def to_text(self):
        if text or number:
            return str(self.value)
        return "%s(%r)" % (out.__name__, self.value) if self.name is None else "%s.%s" % (out.__name__, self.name)

    if "__str__" not in kind._own:
        Member.__str__ = to_text
    if text or number:
        Member.__lt__ = lambda self, other: self.value < _value(other)
        Member.__le__ = lambda self, other: self.value <= _value(other)
        Member.__gt__ = lambda self, other: self.value > _value(other)
        Member.__ge__ = lambda self, other: self.value >= _value(other)
        Member.__eq__ = lambda self, other: self.value == _value(other)
    else:
        Member.__eq__ = lambda self, other: self is other
    if flag:
        Member.__or__ = lambda self, other: out(self.value | _value(other))
        Member.__and__ = lambda self, other: out(self.value & _value(other))
        Member.__xor__ = lambda self, other: out(self.value ^ _value(other))
        Member.__invert__ = lambda self: out(~self.value)
        Member.__bool__ = lambda self: bool(self.value)
        Member.__contains__ = lambda self, other: self.value & other.value == other.value
        Member.__iter__ = lambda self: iter([one for one in out if one.value & self.value])
        Member.__len__ = lambda self: len([one for one in out if one.value & self.value])
    out._make = Member
    last = highest = 0
    for name in kind._names:
        value = getattr(kind, name)
        if isinstance(value, auto) or value is auto:
            # for flags, the bit after the highest
            value = name.lower() if text else 1 << len(bin(highest)) - 2 if flag and highest else last + 1
        if isinstance(value, int):
            last = value
            highest = max(highest, value)
        if value not in out._by_value:
            out._by_value[value] = Member(name, value)
        out._add(name, out._by_value[value])
    return out


def _value(other):
    return getattr(other, "value", other)

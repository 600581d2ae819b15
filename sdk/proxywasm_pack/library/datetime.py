# Dates and times of the proleptic Gregorian calendar. The only zones are UTC and fixed offsets; local time is UTC.
from time import time_ns

MINYEAR, MAXYEAR = 1, 9999
_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365)
_WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_YEAR = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)
_DAY = 86400000000
_EPOCH = 719163


def _leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_in(year, month):
    return 29 if month == 2 and _leap(year) else _DAYS[month] - _DAYS[month - 1]


def _ordinal(year, month, day):
    before = year - 1
    return before * 365 + before // 4 - before // 100 + before // 400 + _DAYS[month - 1] + (month > 2 and _leap(year)) + day


def _from_ordinal(n):
    n -= 1
    n400, n = divmod(n, 146097)
    n100, n = divmod(n, 36524)
    n4, n = divmod(n, 1461)
    n1, n = divmod(n, 365)
    year = n400 * 400 + n100 * 100 + n4 * 4 + n1 + 1
    if n1 == 4 or n100 == 4:
        return year - 1, 12, 31
    month = 1
    while n >= _days_in(year, month):
        n -= _days_in(year, month)
        month += 1
    return year, month, n + 1


def _divided(a, b):
    """a / b, rounded half to even."""
    whole, rest = divmod(a, b)
    twice = 2 * rest
    return whole + (twice > b or twice == b and whole & 1) if b > 0 else whole + (twice < b or twice == b and whole & 1)


class timedelta:
    def __init__(self, days=0, seconds=0, microseconds=0, milliseconds=0, minutes=0, hours=0, weeks=0):
        total = 0
        for value, unit in (
            (days, _DAY), (seconds, 1000000), (microseconds, 1), (milliseconds, 1000), (minutes, 60000000),
            (hours, 3600000000), (weeks, 7 * _DAY),
        ):
            total += value * unit if isinstance(value, int) else int(round(value * unit))
        self._us = total
        if not -999999999 <= total // _DAY <= 999999999:
            raise OverflowError("days=%d; must have magnitude <= 999999999" % (total // _DAY))

    @property
    def days(self):
        return self._us // _DAY

    @property
    def seconds(self):
        return self._us % _DAY // 1000000

    @property
    def microseconds(self):
        return self._us % 1000000

    def total_seconds(self):
        return self._us / 1000000

    def __add__(self, other):
        if not isinstance(other, timedelta):
            return other + self
        return _delta(self._us + other._us)

    def __sub__(self, other):
        return _delta(self._us - other._us)

    def __mul__(self, by):
        if isinstance(by, int):
            return _delta(self._us * by)
        return _delta(int(round(self._us * by)))

    __rmul__ = __mul__

    def __floordiv__(self, by):
        return self._us // by._us if isinstance(by, timedelta) else _delta(self._us // by)

    def __truediv__(self, by):
        if isinstance(by, timedelta):
            return self._us / by._us
        return _delta(_divided(self._us, by) if isinstance(by, int) else int(round(self._us / by)))

    def __mod__(self, by):
        return _delta(self._us % by._us)

    def __neg__(self):
        return _delta(-self._us)

    def __pos__(self):
        return self

    def __abs__(self):
        return _delta(abs(self._us))

    def __bool__(self):
        return self._us != 0

    def __eq__(self, other):
        return isinstance(other, timedelta) and self._us == other._us

    def __lt__(self, other):
        return self._us < other._us

    def __le__(self, other):
        return self._us <= other._us

    def __gt__(self, other):
        return self._us > other._us

    def __ge__(self, other):
        return self._us >= other._us

    def __hash__(self):
        return hash(self._us)

    def __repr__(self):
        parts = []
        for name in ("days", "seconds", "microseconds"):
            if getattr(self, name):
                parts.append("%s=%d" % (name, getattr(self, name)))
        return "datetime.timedelta(%s)" % (", ".join(parts) or "0")

    def __str__(self):
        minutes, seconds = divmod(self.seconds, 60)
        text = "%d:%02d:%02d" % (minutes // 60, minutes % 60, seconds)
        if self.days:
            text = "%d day%s, " % (self.days, "" if abs(self.days) == 1 else "s") + text
        return text + (".%06d" % self.microseconds if self.microseconds else "")


def _delta(us):
    return timedelta(microseconds=us)


timedelta.min = timedelta(-999999999)
timedelta.max = timedelta(999999999, 86399, 999999)
timedelta.resolution = timedelta(microseconds=1)


def _offset_text(us, colon=":"):
    sign = "-" if us < 0 else "+"
    seconds, us = divmod(abs(us), 1000000)
    text = "%s%02d%s%02d" % (sign, seconds // 3600, colon, seconds // 60 % 60)
    if seconds % 60 or us:
        text += colon + "%02d" % (seconds % 60)
    return text + (".%06d" % us if us else "")


class tzinfo:
    pass


class timezone(tzinfo):
    def __init__(self, offset, name=None):
        if not isinstance(offset, timedelta):
            raise TypeError("timezone() argument 1 must be datetime.timedelta, not " + type(offset).__name__)
        if not -_DAY < offset._us < _DAY:
            raise ValueError("offset must be a timedelta strictly between -timedelta(hours=24) and timedelta(hours=24)")
        self._offset = offset
        self._name = name

    def utcoffset(self, moment):
        return self._offset

    def dst(self, moment):
        return None

    def tzname(self, moment):
        if self._name is not None:
            return self._name
        return "UTC" + _offset_text(self._offset._us) if self._offset else "UTC"

    def __eq__(self, other):
        return isinstance(other, timezone) and self._offset == other._offset

    def __hash__(self):
        return hash(self._offset)

    def __str__(self):
        return self.tzname(None)

    def __repr__(self):
        if not self._offset and self._name is None:
            return "datetime.timezone.utc"
        return "datetime.timezone(%r%s)" % (self._offset, "" if self._name is None else ", %r" % self._name)


timezone.utc = UTC = timezone(timedelta(0))


def _check(name, value, low, high):
    if not isinstance(value, int):
        raise TypeError("an integer is required for " + name)
    if not low <= value <= high:
        if name in ("month", "hour", "minute", "second", "microsecond"):
            raise ValueError("%s must be in %d..%d" % (name, low, high))
        raise ValueError("year %d is out of range" % value if name == "year" else "day is out of range for month")


class date:
    def __init__(self, year, month, day):
        _check("year", year, MINYEAR, MAXYEAR)
        _check("month", month, 1, 12)
        _check("day", day, 1, _days_in(year, month))
        self.year, self.month, self.day = year, month, day

    @classmethod
    def fromordinal(cls, n):
        if not 1 <= n <= 3652059:
            raise (ValueError if n < 1 else OverflowError)("date value out of range")
        return cls(*_from_ordinal(n))

    @classmethod
    def fromtimestamp(cls, seconds):
        moment = datetime.fromtimestamp(seconds)
        return cls(moment.year, moment.month, moment.day)

    @classmethod
    def today(cls):
        return cls.fromtimestamp(time_ns() / 1e9)

    @classmethod
    def fromisoformat(cls, text):
        return cls(*_iso_date(text, text))

    def toordinal(self):
        return _ordinal(self.year, self.month, self.day)

    def weekday(self):
        return (self.toordinal() + 6) % 7

    def isoweekday(self):
        return self.weekday() + 1

    def isocalendar(self):
        from collections import namedtuple

        thursday = _from_ordinal(self.toordinal() - self.weekday() + 3)
        week = (_ordinal(*thursday) - _ordinal(thursday[0], 1, 1)) // 7 + 1
        return namedtuple("IsoCalendarDate", ("year", "week", "weekday"))(thursday[0], week, self.isoweekday())

    def isoformat(self):
        return "%04d-%02d-%02d" % (self.year, self.month, self.day)

    def replace(self, year=None, month=None, day=None):
        return date(year or self.year, self.month if month is None else month, self.day if day is None else day)

    def strftime(self, form):
        return _strftime(datetime(self.year, self.month, self.day), form)

    def __format__(self, form):
        return self.strftime(form) if form else str(self)

    def __add__(self, delta):
        return type(self).fromordinal(self.toordinal() + delta.days)

    __radd__ = __add__

    def __sub__(self, other):
        if isinstance(other, timedelta):
            return type(self).fromordinal(self.toordinal() - other.days)
        return timedelta(self.toordinal() - other.toordinal())

    def _key(self):
        return self.toordinal()

    def __eq__(self, other):
        return type(other) is type(self) and self._key() == other._key()

    def __lt__(self, other):
        return self._key() < _same(self, other)._key()

    def __le__(self, other):
        return self._key() <= _same(self, other)._key()

    def __gt__(self, other):
        return self._key() > _same(self, other)._key()

    def __ge__(self, other):
        return self._key() >= _same(self, other)._key()

    def __hash__(self):
        return hash(self._key())

    def __str__(self):
        return self.isoformat()

    def __repr__(self):
        return "datetime.date(%d, %d, %d)" % (self.year, self.month, self.day)


def _same(one, other):
    if type(one) is not type(other):
        raise TypeError("can't compare %s to %s" % ("datetime." + type(one).__name__, type(other).__name__))
    if getattr(one, "tzinfo", None) is None and getattr(other, "tzinfo", None) is not None:
        raise TypeError("can't compare offset-naive and offset-aware datetimes")
    if getattr(one, "tzinfo", None) is not None and getattr(other, "tzinfo", None) is None:
        raise TypeError("can't compare offset-naive and offset-aware datetimes")
    return other


def _iso_time(hour, minute, second, microsecond, timespec):
    if timespec == "auto":
        timespec = "microseconds" if microsecond else "seconds"
    forms = {
        "hours": "%02d" % hour, "minutes": "%02d:%02d" % (hour, minute), "seconds": "%02d:%02d:%02d" % (hour, minute, second),
        "milliseconds": "%02d:%02d:%02d.%03d" % (hour, minute, second, microsecond // 1000),
        "microseconds": "%02d:%02d:%02d.%06d" % (hour, minute, second, microsecond),
    }
    if timespec not in forms:
        raise ValueError("Unknown timespec value")
    return forms[timespec]


class time:
    def __init__(self, hour=0, minute=0, second=0, microsecond=0, tzinfo=None):
        _check("hour", hour, 0, 23)
        _check("minute", minute, 0, 59)
        _check("second", second, 0, 59)
        _check("microsecond", microsecond, 0, 999999)
        self.hour, self.minute, self.second, self.microsecond, self.tzinfo = hour, minute, second, microsecond, tzinfo

    @classmethod
    def fromisoformat(cls, text):
        return cls(*_iso_clock(text.lstrip("T"), text))

    def utcoffset(self):
        return None if self.tzinfo is None else self.tzinfo.utcoffset(None)

    def isoformat(self, timespec="auto"):
        text = _iso_time(self.hour, self.minute, self.second, self.microsecond, timespec)
        return text if self.tzinfo is None else text + _offset_text(self.utcoffset()._us)

    def replace(self, **changes):
        names = {name: getattr(self, name) for name in ("hour", "minute", "second", "microsecond", "tzinfo")}
        names.update(changes)
        return time(**names)

    def strftime(self, form):
        return _strftime(datetime(1900, 1, 1, self.hour, self.minute, self.second, self.microsecond, self.tzinfo), form)

    def _key(self):
        us = ((self.hour * 60 + self.minute) * 60 + self.second) * 1000000 + self.microsecond
        return us if self.tzinfo is None else us - self.utcoffset()._us

    def __eq__(self, other):
        return isinstance(other, time) and (self.tzinfo is None) == (other.tzinfo is None) and self._key() == other._key()

    def __lt__(self, other):
        return self._key() < _same(self, other)._key()

    def __le__(self, other):
        return self._key() <= _same(self, other)._key()

    def __gt__(self, other):
        return self._key() > _same(self, other)._key()

    def __ge__(self, other):
        return self._key() >= _same(self, other)._key()

    def __hash__(self):
        return hash(self._key())

    def __str__(self):
        return self.isoformat()

    def __repr__(self):
        return "datetime.time(%s)" % _arguments([self.hour, self.minute], self)


def _arguments(first, moment):
    if moment.second or moment.microsecond:
        first.append(moment.second)
    if moment.microsecond:
        first.append(moment.microsecond)
    text = ", ".join([str(x) for x in first])
    return text if moment.tzinfo is None else text + ", tzinfo=%r" % moment.tzinfo


class datetime(date):
    def __init__(self, year, month, day, hour=0, minute=0, second=0, microsecond=0, tzinfo=None):
        super().__init__(year, month, day)
        _check("hour", hour, 0, 23)
        _check("minute", minute, 0, 59)
        _check("second", second, 0, 59)
        _check("microsecond", microsecond, 0, 999999)
        self.hour, self.minute, self.second, self.microsecond, self.tzinfo = hour, minute, second, microsecond, tzinfo

    @classmethod
    def fromtimestamp(cls, seconds, tz=None):
        us = seconds * 1000000 if isinstance(seconds, int) else int(round(seconds * 1e6))
        moment = cls._of(_EPOCH * _DAY + us, None if tz is None else UTC)
        return moment if tz is None else moment.astimezone(tz)

    @classmethod
    def utcfromtimestamp(cls, seconds):
        return cls.fromtimestamp(seconds)

    @classmethod
    def now(cls, tz=None):
        moment = cls._of(_EPOCH * _DAY + time_ns() // 1000, None if tz is None else UTC)
        return moment if tz is None else moment.astimezone(tz)

    @classmethod
    def utcnow(cls):
        return cls.now()

    @classmethod
    def combine(cls, date, time, tzinfo=True):
        zone = time.tzinfo if tzinfo is True else tzinfo
        return cls(date.year, date.month, date.day, time.hour, time.minute, time.second, time.microsecond, zone)

    @classmethod
    def fromordinal(cls, n):
        return cls._of(n * _DAY, None)

    @classmethod
    def fromisoformat(cls, text):
        if len(text) > 10:
            at = 10 if text[4:5] == "-" else 8
            return cls(*_iso_date(text[:at], text), *_iso_clock(text[at + 1 :], text))
        return cls(*_iso_date(text, text))

    @classmethod
    def strptime(cls, text, form):
        return _strptime(text, form)

    @classmethod
    def _of(cls, us, zone):
        days, us = divmod(us, _DAY)
        if not 1 <= days <= 3652059:
            raise OverflowError("date value out of range")
        seconds, us = divmod(us, 1000000)
        return cls(*_from_ordinal(days), seconds // 3600, seconds // 60 % 60, seconds % 60, us, zone)

    def _local(self):
        seconds = (self.hour * 60 + self.minute) * 60 + self.second
        return self.toordinal() * _DAY + seconds * 1000000 + self.microsecond

    def _key(self):
        return self._local() if self.tzinfo is None else self._local() - self.utcoffset()._us

    def date(self):
        return date(self.year, self.month, self.day)

    def time(self):
        return time(self.hour, self.minute, self.second, self.microsecond)

    def timetz(self):
        return time(self.hour, self.minute, self.second, self.microsecond, self.tzinfo)

    def utcoffset(self):
        return None if self.tzinfo is None else self.tzinfo.utcoffset(self)

    def tzname(self):
        return None if self.tzinfo is None else self.tzinfo.tzname(self)

    def timestamp(self):
        return (self._key() - _EPOCH * _DAY) / 1000000

    def astimezone(self, tz=None):
        return datetime._of(self._key() + (tz or UTC).utcoffset(self)._us, tz or UTC)

    def replace(self, **changes):
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo")
        values = {name: getattr(self, name) for name in names}
        values.update(changes)
        return datetime(**values)

    def isoformat(self, sep="T", timespec="auto"):
        text = super().isoformat() + sep + _iso_time(self.hour, self.minute, self.second, self.microsecond, timespec)
        return text if self.tzinfo is None else text + _offset_text(self.utcoffset()._us)

    def strftime(self, form):
        return _strftime(self, form)

    def __add__(self, delta):
        return datetime._of(self._local() + delta._us, self.tzinfo)

    __radd__ = __add__

    def __sub__(self, other):
        if isinstance(other, timedelta):
            return datetime._of(self._local() - other._us, self.tzinfo)
        if (self.tzinfo is None) != (other.tzinfo is None):
            raise TypeError("can't subtract offset-naive and offset-aware datetimes")
        return _delta(self._key() - other._key())

    def __eq__(self, other):
        return isinstance(other, datetime) and (self.tzinfo is None) == (other.tzinfo is None) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __str__(self):
        return self.isoformat(" ")

    def __repr__(self):
        return "datetime.datetime(%s)" % _arguments([self.year, self.month, self.day, self.hour, self.minute], self)


date.min, date.max, date.resolution = date(1, 1, 1), date(9999, 12, 31), timedelta(1)
datetime.min, datetime.max = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
datetime.resolution = timedelta.resolution


def _number(text, whole):
    if not text.isdigit():
        raise ValueError("Invalid isoformat string: %r" % whole)
    return int(text)


def _iso_date(text, whole):
    if len(text) == 10 and text[4] == "-" and text[7] == "-":
        text = text[:4] + text[5:7] + text[8:]
    if len(text) != 8:
        raise ValueError("Invalid isoformat string: %r" % whole)
    return _number(text[:4], whole), _number(text[4:6], whole), _number(text[6:], whole)


def _iso_clock(text, whole):
    zone = None
    if text[-1:] in ("Z", "z"):
        text, zone = text[:-1], UTC
    for sign in "+-":
        clock, found, offset = text.partition(sign)
        if found:
            parts = _iso_parts(offset, whole)
            us = ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1000000 + parts[3]
            text, zone = clock, timezone(_delta(-us if sign == "-" else us)) if us else UTC
    return (*_iso_parts(text, whole), zone)


def _iso_parts(text, whole):
    clock, dot, fraction = text.replace(",", ".").partition(".")
    parts = clock.split(":") if ":" in clock else [clock[i : i + 2] for i in range(0, len(clock), 2)]
    if not 1 <= len(parts) <= 3 or any([len(part) != 2 for part in parts]) or dot and (len(parts) < 3 or not fraction):
        raise ValueError("Invalid isoformat string: %r" % whole)
    numbers = [_number(part, whole) for part in parts]
    us = _number((fraction + "000000")[:6], whole) if dot else 0
    return (*(numbers + [0, 0])[:3], us)


def _strftime(t, form):
    out, at = [], 0
    while at < len(form):
        c = form[at]
        at += 1
        if c != "%" or at == len(form):
            out.append(c)
            continue
        c = form[at]
        at += 1
        hour = t.hour % 12 or 12
        if c == "c":
            text = _strftime(t, "%a %b %e %H:%M:%S %Y")
        elif c == "x":
            text = _strftime(t, "%m/%d/%y")
        elif c in "XT":
            text = _strftime(t, "%H:%M:%S")
        elif c == "D":
            text = _strftime(t, "%m/%d/%y")
        elif c == "F":
            text = t.date().isoformat()
        elif c == "R":
            text = _strftime(t, "%H:%M")
        elif c == "z":
            text = "" if t.tzinfo is None else _offset_text(t.utcoffset()._us, "")
        elif c == "Z":
            text = t.tzname() or ""
        elif c == "s":
            text = str(int(t.timestamp()))
        else:
            known = {
                "Y": str(t.year), "m": "%02d" % t.month, "d": "%02d" % t.day, "e": "%2d" % t.day, "H": "%02d" % t.hour,
                "I": "%02d" % hour, "M": "%02d" % t.minute, "S": "%02d" % t.second, "f": "%06d" % t.microsecond,
                "p": "AM" if t.hour < 12 else "PM", "y": "%02d" % (t.year % 100), "a": _WEEK[t.weekday()][:3],
                "A": _WEEK[t.weekday()], "b": _YEAR[t.month - 1][:3], "h": _YEAR[t.month - 1][:3], "B": _YEAR[t.month - 1],
                "j": "%03d" % (t.toordinal() - _ordinal(t.year, 1, 1) + 1), "u": str(t.isoweekday()),
                "w": str(t.isoweekday() % 7), "%": "%", "n": "\n", "t": "\t", "G": str(t.isocalendar()[0]),
                "V": "%02d" % t.isocalendar()[1],
            }
            text = known.get(c, "%" + c)
        out.append(text)
    return "".join(out)


def _strptime(text, form):
    found = {"Y": 1900, "m": 1, "d": 1, "H": 0, "M": 0, "S": 0, "f": 0}
    zone, afternoon, at, i = None, None, 0, 0

    def refuse():
        return ValueError("time data %r does not match format %r" % (text, form))

    for shorthand, whole in (("%T", "%H:%M:%S"), ("%F", "%Y-%m-%d"), ("%D", "%m/%d/%y"), ("%R", "%H:%M")):
        form = form.replace(shorthand, whole)
    while i < len(form):
        c = form[i]
        i += 1
        if c in " \t\n":
            while text[at : at + 1] in (" ", "\t", "\n") and at < len(text):
                at += 1
            continue
        if c != "%":
            if text[at : at + 1] != c:
                raise refuse()
            at += 1
            continue
        c = form[i : i + 1]
        i += 1
        if c in ("Y", "m", "d", "H", "I", "M", "S", "y", "f", "j"):
            size = {"Y": 4, "f": 6, "j": 3}.get(c, 2)
            end = at
            while end < len(text) and end - at < size and text[end].isdigit():
                end += 1
            if end == at or c == "Y" and end - at < 4:
                raise refuse()
            value, digits = int(text[at:end]), end - at
            at = end
            if c == "f":
                value *= 10 ** (6 - digits)
            if c == "y":
                c, value = "Y", value + (2000 if value < 69 else 1900)
            found[c] = value
        elif c in ("a", "A", "b", "B", "h"):
            names = _WEEK if c in "aA" else _YEAR
            rest = text[at:].lower()
            for number, name in enumerate(names):
                name = name.lower() if c in "AB" else name[:3].lower()
                if rest.startswith(name):
                    at += len(name)
                    if names is _YEAR:
                        found["m"] = number + 1
                    break
            else:
                raise refuse()
        elif c == "p":
            half = text[at : at + 2].upper()
            if half not in ("AM", "PM"):
                raise refuse()
            afternoon, at = half == "PM", at + 2
        elif c == "z":
            if text[at : at + 1] == "Z":
                zone, at = UTC, at + 1
            else:
                sign, clock = text[at : at + 1], text[at + 1 :].replace(":", "")[:4]
                if sign not in ("+", "-") or len(clock) < 4 or not clock.isdigit():
                    raise refuse()
                minutes = int(clock[:2]) * 60 + int(clock[2:])
                zone = timezone(timedelta(minutes=-minutes if sign == "-" else minutes))
                at += 6 if text[at + 3 : at + 4] == ":" else 5
        elif c == "Z":
            for name in ("UTC", "GMT"):
                if text[at : at + 3].upper() == name:
                    at += 3
                    break
            else:
                raise refuse()
        elif c == "%":
            if text[at : at + 1] != "%":
                raise refuse()
            at += 1
        else:
            raise ValueError("'%s' is a bad directive in format '%s'" % (c, form))
    if at < len(text):
        raise ValueError("unconverted data remains: " + text[at:])
    if "I" in found:
        if not 1 <= found["I"] <= 12:
            raise refuse()
        found["H"] = found["I"] % 12 + (12 if afternoon else 0)
    if not (1 <= found["m"] <= 12 and found["H"] < 24 and found["M"] < 60 and found["S"] < 62 and 1 <= found["d"] <= 31):
        raise refuse()
    if "j" in found:
        first = date(found["Y"], 1, 1) + timedelta(found["j"] - 1)
        found["m"], found["d"] = first.month, first.day
    return datetime(found["Y"], found["m"], found["d"], found["H"], found["M"], found["S"], found["f"], zone)

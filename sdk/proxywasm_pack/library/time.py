# The clock is the host's, also for monotonic() and the like. This adds what MicroPython's module lacks.
from utime import mktime, time, time_ns
from utime import gmtime as _gmtime

from ucollections import namedtuple

struct_time = namedtuple("struct_time", "tm_year tm_mon tm_mday tm_hour tm_min tm_sec tm_wday tm_yday tm_isdst")
timezone = altzone = daylight = 0
monotonic_ns = perf_counter_ns = time_ns


def monotonic():
    return time_ns() / 1e9


perf_counter = monotonic


def gmtime(seconds=None):
    return struct_time(*_gmtime(time() if seconds is None else int(seconds)), 0)


localtime = gmtime


def strftime(format, t=None):
    from datetime import datetime

    t = gmtime() if t is None else t
    return datetime(t[0], t[1], t[2], t[3], t[4], t[5]).strftime(format)

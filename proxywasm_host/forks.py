"""Keeps child processes of `os.fork` from waiting for threads that only their parent has.

A child has only the thread that forked. A lock that another thread held at that moment stays locked in the child for
ever, and what it guards may be half changed.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

__all__ = ["Forked", "ThreadLocks", "cached_property", "fork_lock", "renew_in_children"]

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # noqa: N801 - as in functools
        """As in functools since CPython 3.12. Before, all instances share a lock, which a child may find taken."""

        def __init__(self, compute: Any) -> None:
            self._compute = compute
            self.__doc__ = compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._compute(instance)
            return value


class Forked(Protocol):
    """An object with locks, threads or open files that a child process must not share."""

    def _forked(self) -> None:
        """Replace them. Called in a child process, before its other code, and while no other thread exists."""


_known = threading.RLock()
"""Held while the process forks, and while one of these sets changes."""
_locks: WeakSet[threading.RLock] = WeakSet()
_renewed: WeakSet[Forked] = WeakSet()
_forks: list[list[threading.RLock]] = []
"""The locks that are held for a fork; for several if a signal handler forks meanwhile."""


def fork_lock() -> threading.RLock:
    """A lock that no other thread holds at a fork, because a fork waits for it.

    Its holder must not wait for anything that takes long, nor for a holder of another such lock. It can be taken again
    by its holder, as a signal handler may fork.
    """
    lock = threading.RLock()
    with _known:
        _locks.add(lock)
    return lock


class ThreadLocks(threading.local):
    """A `fork_lock` for each thread, with which it delays forks, but no other thread."""

    def __init__(self) -> None:
        self.own = fork_lock()


def renew_in_children(thing: Forked) -> None:
    """Call `thing._forked` in each child process, as long as `thing` exists."""
    with _known:
        _renewed.add(thing)


def _before() -> None:
    held: list[threading.RLock] = []
    _forks.append(held)
    while True:
        _known.acquire()
        taken = {id(lock) for lock in held}
        missing = [lock for lock in _locks if id(lock) not in taken]
        if not missing:
            return
        _known.release()  # the holder of a lock may make another one, if only in a finalizer
        for lock in missing:
            lock.acquire()
            held.append(lock)


def _after() -> None:
    for lock in _forks.pop():
        lock.release()
    _known.release()


def _in_child() -> None:
    for thing in list(_renewed):
        thing._forked()
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)

"""As much of `unittest` as tests of CPython need in a packed filter."""


class SkipTest(Exception):
    pass


class _Raises:
    def __init__(self, kinds, pattern=None):
        self._kinds = kinds
        self._pattern = pattern
        self.exception = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError("nothing was raised")
        self.exception = error
        if not issubclass(kind, self._kinds):
            return False
        if self._pattern is not None:
            import re

            assert re.search(self._pattern, str(error)), str(error)
        return True


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


class TestCase:
    failureException = AssertionError

    def setUp(self):
        pass

    def tearDown(self):
        pass

    def subTest(self, *values, **names):
        return _Nothing()

    def fail(self, message=None):
        raise AssertionError(message)

    def skipTest(self, reason):
        raise SkipTest(reason)

    def assertTrue(self, value, message=None):
        assert value, message

    def assertFalse(self, value, message=None):
        assert not value, message

    def assertEqual(self, a, b, message=None):
        assert a == b, message or "%r != %r" % (a, b)

    assertListEqual = assertTupleEqual = assertDictEqual = assertSetEqual = assertSequenceEqual = assertMultiLineEqual = assertEqual

    def assertNotEqual(self, a, b, message=None):
        assert a != b, message or "%r == %r" % (a, b)

    def assertIs(self, a, b, message=None):
        assert a is b, message or "%r is not %r" % (a, b)

    def assertIsNot(self, a, b, message=None):
        assert a is not b, message

    def assertIsNone(self, a, message=None):
        assert a is None, message

    def assertIsNotNone(self, a, message=None):
        assert a is not None, message

    def assertIn(self, a, b, message=None):
        assert a in b, message or "%r is not in %r" % (a, b)

    def assertNotIn(self, a, b, message=None):
        assert a not in b, message

    def assertIsInstance(self, a, b, message=None):
        assert isinstance(a, b), message

    def assertNotIsInstance(self, a, b, message=None):
        assert not isinstance(a, b), message

    def assertLess(self, a, b, message=None):
        assert a < b, message

    def assertLessEqual(self, a, b, message=None):
        assert a <= b, message

    def assertGreater(self, a, b, message=None):
        assert a > b, message

    def assertGreaterEqual(self, a, b, message=None):
        assert a >= b, message

    def assertAlmostEqual(self, a, b, places=7, message=None):
        assert a == b or round(abs(a - b), places) == 0, message

    def assertCountEqual(self, a, b, message=None):
        a, b = list(a), list(b)
        for one in a:
            b.remove(one)
        assert not b, message

    def assertRegex(self, text, pattern, message=None):
        import re

        assert re.search(pattern, text), message

    def assertRaises(self, kinds, function=None, *values, **names):
        context = _Raises(kinds)
        if function is None:
            return context
        with context:
            function(*values, **names)

    def assertRaisesRegex(self, kinds, pattern, function=None, *values, **names):
        context = _Raises(kinds, pattern)
        if function is None:
            return context
        with context:
            function(*values, **names)


def skip(reason):
    return lambda function: None


def skipIf(condition, reason):
    return lambda function: None if condition else function


def skipUnless(condition, reason):
    return lambda function: function if condition else None


def expectedFailure(function):
    return None

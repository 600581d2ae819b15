from ubinascii import a2b_base64 as _a2b
from ubinascii import b2a_base64, hexlify, unhexlify


class Error(ValueError):
    pass


def a2b_base64(data):
    try:
        return _a2b(data)
    except ValueError:
        raise Error("Incorrect padding")


try:
    from ubinascii import crc32
except ImportError:
    pass
b2a_hex, a2b_hex = hexlify, unhexlify

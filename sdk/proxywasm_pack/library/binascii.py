from ubinascii import a2b_base64 as _a2b
from ubinascii import b2a_base64, crc32, hexlify
from ubinascii import unhexlify as _unhexlify

_KNOWN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Error(ValueError):
    pass


def a2b_base64(data, strict_mode=False):
    data = data.encode() if isinstance(data, str) else bytes(data)
    try:
        whole = _a2b(data)
        if b2a_base64(whole)[:-1] == data:
            return whole
    except ValueError:
        pass
    kept, padding = bytearray(), 0
    for c in data:
        if c in _KNOWN:
            if padding:
                if strict_mode:
                    raise Error("Discontinuous padding not allowed")
                padding = 0
            kept.append(c)
        elif c == 61:
            if strict_mode and not len(kept) % 4:
                raise Error("Excess data after padding")
            if len(kept) % 4 >= 2:
                padding += 1
                if len(kept) % 4 + padding == 4:
                    if strict_mode:
                        if data[-1] != 61 or data.count(b"=") != padding:
                            raise Error("Excess data after padding")
                    break
        elif strict_mode:
            raise Error("Only base64 data is allowed")
    rest = len(kept) % 4
    if rest == 1:
        raise Error("Invalid base64-encoded string: number of data characters cannot be 1 more than a multiple of 4")
    if rest and rest + padding != 4:
        raise Error("Incorrect padding")
    return _a2b(bytes(kept) + b"=" * (-rest % 4))


def unhexlify(data):
    if len(data) % 2:
        raise Error("Odd-length string")
    try:
        return _unhexlify(data)
    except ValueError:
        raise Error("Non-hexadecimal digit found")


b2a_hex, a2b_hex = hexlify, unhexlify

import binascii

_B64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_B32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def _bytes(data):
    if isinstance(data, str):
        if not all([ord(c) < 128 for c in data]):
            raise ValueError("string argument should contain only ASCII characters")
        return data.encode()
    return bytes(data)


def b64encode(data, altchars=None):
    if isinstance(data, str):
        raise TypeError("a bytes-like object is required, not 'str'")
    out = binascii.b2a_base64(data)[:-1]
    return out if altchars is None else out.replace(b"+", altchars[:1]).replace(b"/", altchars[1:])


def b64decode(data, altchars=None, validate=False):
    data = _bytes(data)
    if altchars is not None:
        data = data.replace(altchars[:1], b"+").replace(altchars[1:], b"/")
    return binascii.a2b_base64(data, strict_mode=validate)


def urlsafe_b64encode(data):
    return b64encode(data, b"-_")


def urlsafe_b64decode(data):
    return b64decode(_bytes(data).replace(b"-", b"+").replace(b"_", b"/"))


standard_b64encode, standard_b64decode = b64encode, b64decode


def b32encode(data):
    out = bytearray()
    for at in range(0, len(data), 5):
        part = data[at : at + 5]
        number = int.from_bytes(part + b"\0" * (5 - len(part)), "big")
        chars = (len(part) * 8 + 4) // 5
        for i in range(8):
            out.append(_B32[number >> (35 - 5 * i) & 31] if i < chars else 61)
    return bytes(out)


def b32decode(data, casefold=False):
    data = _bytes(data)
    if casefold:
        data = data.upper()
    if len(data) % 8:
        raise binascii.Error("Incorrect padding")
    out = bytearray()
    for at in range(0, len(data), 8):
        part = data[at : at + 8].rstrip(b"=")
        if len(part) not in (0, 2, 4, 5, 7, 8) or at + 8 < len(data) and len(part) < 8:
            raise binascii.Error("Incorrect padding")
        number = 0
        for c in part:
            place = _B32.find(bytes([c]))
            if place < 0:
                raise binascii.Error("Non-base32 digit found")
            number = number << 5 | place
        out += (number << 5 * (8 - len(part))).to_bytes(5, "big")[: len(part) * 5 // 8]
    return bytes(out)


def b16encode(data):
    return binascii.hexlify(data).upper()


def b16decode(data, casefold=False):
    data = _bytes(data)
    if not casefold and data.upper() != data:
        raise binascii.Error("Non-base16 digit found")
    return binascii.unhexlify(data)

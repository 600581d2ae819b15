import binascii
import struct
from uhashlib import sha256 as _sha256


class _Hash:
    digest_size = 32
    block_size = 64
    name = "sha256"

    def __init__(self, data=b""):
        self._data = bytes(data)

    def update(self, data):
        self._data += data

    def copy(self):
        return type(self)(self._data)

    def digest(self):
        return _sha256(self._data).digest()

    def hexdigest(self):
        return binascii.hexlify(self.digest()).decode()


def sha256(data=b"", usedforsecurity=True):
    return _Hash(data)


class _Sha1(_Hash):
    digest_size = 20
    name = "sha1"

    def digest(self):
        data = self._data
        size = len(data)
        data = data + b"\x80" + b"\0" * ((55 - size) % 64) + struct.pack(">Q", size * 8)
        state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0]
        for at in range(0, len(data), 64):
            w = list(struct.unpack(">16I", data[at : at + 64]))
            for i in range(16, 80):
                x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]
                w.append((x << 1 | x >> 31) & 0xFFFFFFFF)
            a, b, c, d, e = state
            for i in range(80):
                if i < 20:
                    f, k = b & c | ~b & d, 0x5A827999
                elif i < 40:
                    f, k = b ^ c ^ d, 0x6ED9EBA1
                elif i < 60:
                    f, k = b & c | b & d | c & d, 0x8F1BBCDC
                else:
                    f, k = b ^ c ^ d, 0xCA62C1D6
                x = ((a << 5 | a >> 27) + f + e + k + w[i]) & 0xFFFFFFFF
                a, b, c, d, e = x, a, (b << 30 | b >> 2) & 0xFFFFFFFF, c, d
            state = [(x + y) & 0xFFFFFFFF for x, y in zip(state, (a, b, c, d, e))]
        return struct.pack(">5I", *state)


def sha1(data=b"", usedforsecurity=True):
    return _Sha1(data)


def new(name, data=b""):
    kinds = {"sha256": sha256, "sha1": sha1}
    if name not in kinds:
        raise ValueError("unsupported hash type " + name + "; packed filters have sha256 and sha1")
    return kinds[name](data)

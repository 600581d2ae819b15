import hashlib


class HMAC:
    def __init__(self, key, msg=b"", digestmod="sha256"):
        self._new = digestmod if callable(digestmod) else lambda data=b"": hashlib.new(digestmod, data)
        if len(key) > 64:
            key = self._new(key).digest()
        key = bytes(key) + b"\0" * (64 - len(key))
        self._outer = bytes([b ^ 0x5C for b in key])
        self._inner = bytes([b ^ 0x36 for b in key]) + (msg or b"")

    def update(self, msg):
        self._inner += msg

    def digest(self):
        return self._new(self._outer + self._new(self._inner).digest()).digest()

    def hexdigest(self):
        return "".join(["%02x" % b for b in self.digest()])


def new(key, msg=b"", digestmod="sha256"):
    return HMAC(key, msg, digestmod)


def digest(key, msg, digest):
    return HMAC(key, msg, digest).digest()


def compare_digest(a, b):
    if isinstance(a, str):
        a, b = a.encode(), b.encode()
    different = len(a) ^ len(b)
    for x, y in zip(a, b):
        different |= x ^ y
    return different == 0

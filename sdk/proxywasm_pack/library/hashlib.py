import binascii

from _hash import Hash

algorithms_available = algorithms_guaranteed = {"md5", "sha1", "sha224", "sha256", "sha384", "sha512"}


class _Hash:
    def __init__(self, inner):
        self._inner = inner
        self.name = inner.name
        self.digest_size = inner.digest_size
        self.block_size = inner.block_size

    def update(self, data):
        self._inner.update(data)

    def copy(self):
        return _Hash(self._inner.copy())

    def digest(self):
        return self._inner.digest()

    def hexdigest(self):
        return binascii.hexlify(self._inner.digest()).decode()


def new(name, data=b"", usedforsecurity=True):
    name = name.lower()
    if name not in algorithms_available:
        raise ValueError("unsupported hash type " + name)
    made = _Hash(Hash(name))
    if data:
        made.update(data)
    return made


def md5(data=b"", usedforsecurity=True):
    return new("md5", data)


def sha1(data=b"", usedforsecurity=True):
    return new("sha1", data)


def sha224(data=b"", usedforsecurity=True):
    return new("sha224", data)


def sha256(data=b"", usedforsecurity=True):
    return new("sha256", data)


def sha384(data=b"", usedforsecurity=True):
    return new("sha384", data)


def sha512(data=b"", usedforsecurity=True):
    return new("sha512", data)

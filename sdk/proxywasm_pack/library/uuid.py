from _proxywasm import random_bytes


class UUID:
    def __init__(self, hex=None, bytes=None):
        if bytes is None:
            bytes = __import__("binascii").unhexlify(hex.replace("urn:uuid:", "").strip("{}").replace("-", ""))
        if len(bytes) != 16:
            raise ValueError("badly formed hexadecimal UUID string")
        self.bytes = bytes
        self.hex = bytes.hex()
        self.int = int.from_bytes(bytes, "big")
        self.version = bytes[6] >> 4

    def __str__(self):
        h = self.hex
        return "-".join([h[:8], h[8:12], h[12:16], h[16:20], h[20:]])

    def __repr__(self):
        return "UUID('%s')" % self

    def __eq__(self, other):
        return isinstance(other, UUID) and self.bytes == other.bytes

    def __lt__(self, other):
        return self.int < other.int

    def __hash__(self):
        return hash(self.bytes)


def uuid4():
    data = bytearray(random_bytes(16))
    data[6] = data[6] & 15 | 64
    data[8] = data[8] & 63 | 128
    return UUID(bytes=bytes(data))

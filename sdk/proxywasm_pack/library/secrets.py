from _proxywasm import random_bytes
from base64 import urlsafe_b64encode
from hmac import compare_digest


def token_bytes(nbytes=32):
    return random_bytes(nbytes)


def token_hex(nbytes=32):
    return random_bytes(nbytes).hex()


def token_urlsafe(nbytes=32):
    return urlsafe_b64encode(random_bytes(nbytes)).rstrip(b"=").decode()


def randbelow(upper):
    if upper <= 0:
        raise ValueError("Upper bound must be positive.")
    size = (len(bin(upper)) + 5) // 8 + 8
    return int.from_bytes(random_bytes(size), "big") % upper


def choice(items):
    return items[randbelow(len(items))]

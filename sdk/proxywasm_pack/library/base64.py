import binascii


def _bytes(data):
    return data.encode() if isinstance(data, str) else bytes(data)


def b64encode(data, altchars=None):
    out = binascii.b2a_base64(data)[:-1]
    return out if altchars is None else out.replace(b"+", altchars[:1]).replace(b"/", altchars[1:])


def b64decode(data, altchars=None, validate=False):
    data = _bytes(data)
    if altchars is not None:
        data = data.replace(altchars[:1], b"+").replace(altchars[1:], b"/")
    if len(data.rstrip(b"=")) % 4 == 1 or len(data) % 4:
        raise binascii.Error("Incorrect padding")
    return binascii.a2b_base64(data)


def urlsafe_b64encode(data):
    return b64encode(data, b"-_")


def urlsafe_b64decode(data):
    return b64decode(data, b"-_")


standard_b64encode, standard_b64decode = b64encode, b64decode


def b16encode(data):
    return binascii.hexlify(data).upper()


def b16decode(data, casefold=False):
    return binascii.unhexlify(data)

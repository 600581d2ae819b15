"""The foreign functions ``verify_signature`` and ``sign``, with the package cryptography (extra ``crypto``).

Arguments and results are Envoy's protobuf messages (``verify_signature.proto``, ``sign.proto``); their field numbers
are below. RSA (PKCS #1 v1.5) and ECDSA (P-224, P-256, P-384, P-521; signatures in DER) are supported, with SHA-1 and
SHA-2. The status of a call is OK even after an error, which is a text in the result. Filters get the same texts as in
Envoy.

Source: ``foreign.cc`` and ``crypto/utility_impl.cc`` of Envoy.
"""

from __future__ import annotations

import re
from base64 import b64decode
from functools import lru_cache
from typing import Any

from proxywasm_host import remedy
from proxywasm_host.protobuf import field, fields
from proxywasm_host.services.foreign_call import ForeignCallFailed

__all__ = ["sign", "verify_signature"]

NOT_FOUND, BAD_ARGUMENT = 1, 2
MAX_ARGUMENT = 1 << 20
"""Maximum bytes of an argument. A deadline does not interrupt a foreign function, so each must be quick."""
MAX_RSA = 4096, 8192
"""Maximum bits of private and of public RSA keys; with larger ones a call would take a second."""
MIN_PRIME = 1 << 100
MAX_KEY = 8 << 10
"""Maximum bytes of a private key."""
KEYS = 16
"""Number of parsed keys in the cache, because parsing takes longer than using a key."""
HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512")
CURVES = ("secp224r1", "secp256r1", "secp384r1", "secp521r1")
ALGORITHMS = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06072a8648ce3d0201")
"""The object identifiers of RSA and of elliptic curves."""
PEM = re.compile(rb"-----BEGIN (RSA |EC |)PRIVATE KEY-----([^-]+)-----END \1PRIVATE KEY-----")


def verify_signature(arguments: bytes) -> bytes:
    """Whether a text was signed by the owner of a public key.

    Args (fields of the message): 1 hash_function, 2 public_key (DER), 3 signature, 4 text, 5 public_key_pem. Exactly
    one key. Result: 1 result, 2 error.
    """
    given = _read(arguments, {1: "hash", 2: "der", 3: "signature", 4: "text", 5: "pem"})
    key, hash = _key(given, private=False), _hash(given["hash"])
    if hash is None:
        return field(2, f"{given['hash'].decode()} is not supported.")
    if key is None:
        return field(2, "Failed to initialize digest verify.")
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - from an extra

    try:
        key.verify(given["signature"], given["text"], *_scheme(key, hash))
    except InvalidSignature:
        return field(2, "Failed to verify digest. Error code: 0")
    return field(1, 1)


def sign(arguments: bytes) -> bytes:
    """Sign a text with a private key.

    Args (fields of the message): 1 hash_function, 2 private_key (DER, PKCS #8), 3 text, 4 private_key_pem. Exactly one
    key. Result: 1 result, 2 signature, 3 error.
    """
    given = _read(arguments, {1: "hash", 2: "der", 3: "text", 4: "pem"})
    key, hash = _key(given, private=True), _hash(given["hash"])
    if hash is None:
        return field(3, f"{given['hash'].decode()} is not supported.")
    if key is None:
        return field(3, "Invalid key type: private key required for signing operation.")
    try:
        signature = key.sign(given["text"], *_scheme(key, hash))
    except ValueError:  # the key is too short for the digest
        return field(3, "Failed to create signature.")
    return field(1, 1) + field(2, signature)


def _read(arguments: bytes, names: dict[int, str]) -> dict[str, bytes]:
    """The fields by name; missing fields are empty."""
    if len(arguments) > MAX_ARGUMENT:
        raise ForeignCallFailed(
            BAD_ARGUMENT, f"the argument has {len(arguments)} bytes, at most {MAX_ARGUMENT} are taken"
        )
    found = dict.fromkeys(names.values(), b"")
    try:
        for number, value in fields(arguments):
            if number in names and isinstance(value, bytes):
                found[names[number]] = value
        found["hash"].decode()
    except (ValueError, IndexError):
        raise ForeignCallFailed(BAD_ARGUMENT, "the argument is not that protobuf message") from None
    if bool(found["der"]) == bool(found["pem"]):
        raise ForeignCallFailed(BAD_ARGUMENT, "give exactly one key, as DER or as PEM")
    return found


def _key(given: dict[str, bytes], *, private: bool) -> Any:
    """The key that signs or verifies, or ``None`` if it is invalid. Raises: ForeignCallFailed, without cryptography."""
    try:
        return _load(given["der"], given["pem"], private=private)
    except ModuleNotFoundError as error:
        raise ForeignCallFailed(NOT_FOUND, str(remedy.missing("crypto", error))) from None


@lru_cache(KEYS)
def _load(der: bytes, pem: bytes, *, private: bool) -> Any:
    import cryptography  # noqa: F401, PLC0415 - from an extra
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415

    try:
        key: Any
        if private:
            key = _private(der, pem)
        else:
            key = serialization.load_der_public_key(der) if der else serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return key if key.key_size <= MAX_RSA[not private] else None
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return key if key.curve.name in CURVES else None
    return None


def _private(der: bytes, pem: bytes) -> Any:
    """The private key, or ``None`` if it is invalid. Raises: ValueError, also for invalid keys.

    For RSA, the library would check for a third of a second that the numbers are prime; `_fits` only checks that they
    fit each other. For other algorithms than RSA and elliptic curves, it computes missing numbers without a limit of
    time, so their keys are not read.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - from an extra
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    if len(der or pem) > MAX_KEY:
        return None
    block = None if der else PEM.search(pem)
    if block is not None:
        pem, plain = block[0], not block[1]
        der = b64decode(block[2]) if plain else b""
    elif not der:
        return None
    if der and not any(algorithm in der[:40] for algorithm in ALGORITHMS):
        return None
    load, data = (serialization.load_der_private_key, der) if der else (serialization.load_pem_private_key, pem)
    key = load(data, None, unsafe_skip_rsa_key_validation=True)
    return None if isinstance(key, rsa.RSAPrivateKey) and not _fits(key) else key


def _fits(key: Any) -> bool:
    """Whether the numbers of an RSA key fit each other and are odd where they must be."""
    if key.key_size > MAX_RSA[0]:
        return False
    numbers = key.private_numbers()
    p, q, d, n, e = numbers.p, numbers.q, numbers.d, numbers.public_numbers.n, numbers.public_numbers.e
    return bool(
        p * q == n
        and p & q & e & 1
        and min(p, q) > MIN_PRIME
        and 1 < e < n
        and 1 < d < n
        and d * e % (p - 1) == d * e % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and numbers.iqmp * q % p == 1
    )


def _hash(name: bytes) -> Any:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - from an extra

    lower = name.decode().lower()
    return getattr(hashes, lower.upper())() if lower in HASHES else None


def _scheme(key: Any, hash: Any) -> tuple[Any, ...]:
    """The arguments of a key's methods after the text."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa  # noqa: PLC0415 - from an extra

    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return padding.PKCS1v15(), hash
    return (ec.ECDSA(hash),)

"""The foreign functions ``verify_signature`` and ``sign``, with keys of all kinds. Results are protobuf messages."""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from functools import lru_cache

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from proxywasm_host.protobuf import field, fields
from proxywasm_host.services import ForeignCallFailed
from proxywasm_host.services.foreign import BUILT_IN

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
sign, verify = BUILT_IN["sign"], BUILT_IN["verify_signature"]


@lru_cache(None)
def key(kind: str):
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "short rsa":
        return rsa.generate_private_key(65537, 1024)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(getattr(ec, kind)())


def public(kind: str, encoding=DER) -> bytes:
    return key(kind).public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


def private(kind: str, encoding=DER) -> bytes:
    return key(kind).private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def verified(
    hash: str = "sha256", signature: bytes = b"", text: bytes = b"hello", *, der: bytes = b"", pem: bytes = b""
):
    """The result as Python has it: true, or the error."""
    message = field(1, hash) + field(2, der) + field(3, signature) + field(4, text) + field(5, pem)
    return dict(fields(verify(message)))


def signed(hash: str = "sha256", *, der: bytes = b"", pem: bytes = b"", text: bytes = b"hello"):
    return dict(fields(sign(field(1, hash) + field(2, der) + field(3, text) + field(4, pem))))


VERIFIED = {1: 1}


def refused(result, *facts):
    """Whether it is an error, and nothing else, that says this. `tests/envoy` compares its whole text with Envoy's."""
    (error,) = result.values()
    return 1 not in result and all(fact in error for fact in facts)


@pytest.mark.parametrize("hash", ["sha1", "sha224", "sha256", "SHA384", "sha512"])
@pytest.mark.parametrize("kind", ["rsa", "SECP224R1", "SECP256R1", "SECP384R1", "SECP521R1"])
def test_what_was_signed_is_verified(kind, hash):
    result = signed(hash, der=private(kind))
    assert result[1] == 1
    assert verified(hash, result[2], der=public(kind)) == VERIFIED
    assert verified(hash, result[2], pem=public(kind, PEM)) == VERIFIED
    assert refused(verified(hash, result[2], b"hullo", der=public(kind)), b"digest")


def test_signatures_are_those_of_others():
    theirs = key("rsa").sign(b"hello", padding.PKCS1v15(), hashes.SHA256())
    assert signed(pem=private("rsa", PEM)) == {1: 1, 2: theirs}
    theirs = key("SECP256R1").sign(b"hello", ec.ECDSA(hashes.SHA256()))
    assert verified("sha256", theirs, der=public("SECP256R1")) == VERIFIED


@pytest.mark.parametrize("signature", [b"", b"\0\0\0", b"x" * 256])
def test_a_signature_that_is_none(signature):
    assert refused(verified("sha256", signature, der=public("rsa")), b"digest")
    assert refused(verified("sha256", signature, der=public("SECP256R1")), b"digest")


def test_a_hash_that_is_not_known():
    assert verified("md5", der=public("rsa")) == {2: b"md5 is not supported."}
    assert signed("", der=private("rsa")) == {3: b" is not supported."}


@pytest.mark.parametrize("kind", ["ed25519", "SECP256K1"])
def test_keys_of_other_kinds(kind):
    """Envoy's library has no such curve, and wants no hash with Ed25519."""
    assert refused(verified(der=public(kind)), b"initialize")


def test_keys_that_are_none():
    assert refused(verified(der=b"no key"), b"initialize")
    assert refused(verified(pem=b"no key"), b"initialize")
    assert refused(signed(der=b"no key"), b"private key")
    assert refused(signed(pem=public("rsa", PEM)), b"private key")


def test_a_key_that_is_too_short_for_its_hash():
    assert signed("sha512", der=private("short rsa"))[1] == 1
    assert refused(verified("sha512", b"x", der=public("short rsa")), b"digest")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (field(1, "sha256"), "give exactly one key, as DER or as PEM"),
        (field(1, "sha256") + field(2, b"a") + field(5, b"b"), "give exactly one key, as DER or as PEM"),
        (b"\xff", "the argument is not that protobuf message"),
        (field(1, b"\xff") + field(2, b"a"), "the argument is not that protobuf message"),
        (bytes((1 << 20) + 1), "the argument has 1048577 bytes, at most 1048576 are taken"),
    ],
)
def test_what_is_refused(arguments, reason):
    with pytest.raises(ForeignCallFailed) as caught:
        verify(arguments)
    assert (caught.value.status, str(caught.value)) == (2, reason)


def test_without_the_library(monkeypatch):
    from proxywasm_host.services import signatures

    signatures._load.cache_clear()
    for module in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ForeignCallFailed, match=r"^cryptography is not installed: .*\[crypto\]") as caught:
        verify(field(1, "sha256") + field(2, b"key"))
    assert caught.value.status == 1


def der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    return bytes([tag]) + (size if len(content) < 0x80 else bytes([0x80 | len(size)]) + size) + content


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


RSA = der(6, bytes.fromhex("2a864886f70d010101")) + b"\5\0"
DSA = bytes.fromhex("2a8648ce380401")


def made_up(**changes: int) -> bytes:
    """An RSA key, some numbers of which are others."""
    numbers = key("short rsa").private_numbers()
    own = {"n": numbers.public_numbers.n, "e": 65537, **{name: getattr(numbers, name) for name in ("d", "p", "q")}}
    own |= {name: getattr(numbers, name) for name in ("dmp1", "dmq1", "iqmp")} | changes
    inner = der(0x30, integer(0), *(integer(own[name]) for name in ("n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp")))
    return der(0x30, integer(0), der(0x30, RSA), der(4, inner))


BIG = (1 << 16_000) - 1


def test_a_key_that_is_put_together():
    assert signed(der=made_up())[1] == 1


@pytest.mark.parametrize(
    "data",
    [
        made_up(n=BIG), made_up(p=BIG), made_up(d=0), made_up(e=4), made_up(iqmp=1), made_up(p=1, q=1, n=1),
        made_up(p=4, q=1 << 1000, n=1 << 1002), made_up(dmp1=3),
        made_up(n=(1 << 1_000_000) - 1),
        der(0x30, integer(0), der(0x30, der(6, DSA), der(0x30, integer(BIG), integer(BIG), integer(3))), der(4, integer(BIG - 2))),
        b"x" * 100_000,
    ],
)  # fmt: skip
def test_keys_that_would_take_long(data):
    """With numbers that are large, or do not fit: of a million bits, one took the library minutes to look at."""
    began = time.process_time()
    text = b"-----BEGIN PRIVATE KEY-----\n" + b64encode(data) + b"\n-----END PRIVATE KEY-----\n"
    assert refused(signed(der=data), b"private key")
    assert refused(signed(pem=text), b"private key")
    assert time.process_time() - began < 5


def test_private_keys_in_forms_of_their_own():
    traditional = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    for kind in ("rsa", "SECP256R1"):
        assert signed(pem=b"a comment\n" + key(kind).private_bytes(PEM, *traditional))[1] == 1

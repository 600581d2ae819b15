"""Hashes, and keys that sign and verify, for ``resty.openssl``. Strings have one character for each byte."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

__all__ = ["Keys", "digest", "keyed_digest"]

ALGORITHMS = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})


def digest(algorithm: str, text: str) -> tuple[bytes | None, str | None]:
    """A hash; or ``None`` and the reason."""
    if algorithm not in ALGORITHMS:
        return None, f'digest.new: invalid digest type "{algorithm}"'
    return hashlib.new(algorithm, text.encode("latin-1"), usedforsecurity=False).digest(), None


def keyed_digest(algorithm: str, key: str, text: str) -> tuple[bytes | None, str | None]:
    """An HMAC; or ``None`` and the reason."""
    if algorithm not in ALGORITHMS:
        return None, f'mac.new: invalid digest type "{algorithm}"'
    return hmac.digest(key.encode("latin-1"), text.encode("latin-1"), algorithm), None


class Keys:
    """The keys that plugins have loaded, by their PEM. Needs the extra ``crypto``."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def load(self, pem: Any) -> tuple[str | None, str | None]:
        """The kind of key; or ``None`` and the reason."""
        if not isinstance(pem, str):
            return None, "pkey.new: expects a string"
        try:
            self._key(pem)
        except (ValueError, TypeError, ImportError) as error:
            return None, f"pkey.new: {error}"
        return type(self._loaded[pem]).__name__.lstrip("_").lower(), None

    def _key(self, pem: str) -> Any:
        if pem not in self._loaded:
            from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only plugins with keys need it

            data = pem.encode("latin-1")
            if b"PRIVATE KEY" in data:
                self._loaded[pem] = serialization.load_pem_private_key(data, None)
            else:
                self._loaded[pem] = _load_public_key(data)
        return self._loaded[pem]

    def verify(
        self, pem: str, signature: str, text: str, algorithm: str, pss: bool, raw: bool
    ) -> tuple[bool, str | None]:
        """Whether a signature is valid; and the reason if it is not."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        key = self._key(pem)
        public = key.public_key() if hasattr(key, "public_key") else key
        try:
            given = signature.encode("latin-1")
            public.verify(_der(given) if raw else given, text.encode("latin-1"), *_scheme(public, algorithm, pss))
        except InvalidSignature:
            return False, "signature verification failed"
        except (ValueError, TypeError) as error:
            return False, str(error)
        return True, None

    def sign(self, pem: str, text: str, algorithm: str, pss: bool, raw: bool) -> tuple[bytes | None, str | None]:
        """A signature; or ``None`` and the reason."""
        key = self._key(pem)
        if not hasattr(key, "sign"):
            return None, "pkey:sign: the key is not a private key"
        try:
            signature: bytes = key.sign(text.encode("latin-1"), *_scheme(key, algorithm, pss))
        except (ValueError, TypeError) as error:
            return None, str(error)
        return (_plain(signature, (key.key_size + 7) // 8) if raw else signature), None


def _load_public_key(data: bytes) -> Any:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    if b"CERTIFICATE" in data:
        return x509.load_pem_x509_certificate(data).public_key()
    return serialization.load_pem_public_key(data)


def _scheme(key: Any, algorithm: str, pss: bool) -> tuple[Any, ...]:
    """Further arguments for `sign` and `verify` of a key."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa  # noqa: PLC0415

    if isinstance(
        key, (ed25519.Ed25519PublicKey, ed25519.Ed25519PrivateKey, ed448.Ed448PublicKey, ed448.Ed448PrivateKey)
    ):
        return ()
    name = (algorithm or "sha256").upper()
    hash_ = getattr(hashes, name, None)
    if hash_ is None:
        raise ValueError(f"unknown digest {algorithm!r}")
    if isinstance(key, (rsa.RSAPublicKey, rsa.RSAPrivateKey)):
        salt = padding.PSS(mgf=padding.MGF1(hash_()), salt_length=padding.PSS.DIGEST_LENGTH)
        return (salt if pss else padding.PKCS1v15()), hash_()
    return (ec.ECDSA(hash_()),)


def _der(signature: bytes) -> bytes:
    """A signature of r and s in a row (RFC 7518), as ASN.1."""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature  # noqa: PLC0415

    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))


def _plain(signature: bytes, size: int) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(signature))

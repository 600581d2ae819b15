"""Foreign functions, which a host offers by name beyond the ABI.

Source of the built-in ones: ``foreign.cc`` of Envoy.
"""

from __future__ import annotations

import zlib

from proxywasm_host.services.foreign_call import ForeignCallFailed, ForeignFunction
from proxywasm_host.services.signatures import sign, verify_signature

__all__ = ["BUILT_IN", "ForeignCallFailed", "ForeignFunction"]

MAX_ARGUMENT = 1 << 20
"""Maximum bytes of an argument. A deadline does not interrupt a foreign function, so each must be fast."""
MAX_UNCOMPRESSED = 8 << 20
"""Maximum bytes of the result of ``uncompress``."""
MAX_THOROUGH = 128 << 10
"""Maximum bytes compressed at zlib's default level, which for some content takes ten times as long as `FAST`."""
FAST = 4


def compress(arguments: bytes) -> bytes:
    """Compress an argument of at most 1 MiB to a zlib stream."""
    _check_size(arguments)
    return zlib.compress(arguments, FAST if len(arguments) > MAX_THOROUGH else zlib.Z_DEFAULT_COMPRESSION)


def _check_size(arguments: bytes) -> None:
    if len(arguments) > MAX_ARGUMENT:
        raise ForeignCallFailed(2, f"the argument has {len(arguments)} bytes, at most {MAX_ARGUMENT} are taken")


def uncompress(arguments: bytes) -> bytes:
    """Uncompress a zlib stream of at most 1 MiB; SERIALIZATION_FAILURE if it is damaged or holds over 8 MiB."""
    _check_size(arguments)
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(arguments, MAX_UNCOMPRESSED + 1)
    except zlib.error as error:
        raise ForeignCallFailed(3, f"no zlib stream: {error}") from None
    if len(result) > MAX_UNCOMPRESSED:
        raise ForeignCallFailed(3, f"the zlib stream holds more than {MAX_UNCOMPRESSED} bytes")
    if not stream.eof:
        raise ForeignCallFailed(3, "the zlib stream ends early")
    return result


BUILT_IN: dict[str, ForeignFunction] = {
    "compress": compress,
    "sign": sign,
    "uncompress": uncompress,
    "verify_signature": verify_signature,
}

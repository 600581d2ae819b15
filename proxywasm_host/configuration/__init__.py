"""Reads configurations of other hosts: `translate` recognises them, and converts them to ``serve``'s form.

``envoy`` reads Envoy's bootstrap or listener; ``kubernetes`` WasmPlugin (Istio, Higress), TrafficExtension,
EnvoyExtensionPolicy and MeshProxyPatch; ``nginx`` ngx_wasm_module's directives; ``apisix`` its Wasm plugins. Each puts
the settings that it understands into `Own`. Any other setting is an error with its line (`Node`), or a warning if it
is safe to ignore.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxywasm_host.configuration import apisix, envoy, kubernetes, nginx
from proxywasm_host.configuration.node import Document, Key
from proxywasm_host.configuration.own import Own
from proxywasm_host.errors import ConfigError

__all__ = ["Translated", "of_nginx", "translate"]

logger = logging.getLogger("proxywasm_host.configuration")
Translated = tuple[dict[str, Any], Mapping[Key, int]]
"""The own form, and the line of the file in which each of its parts begins."""


def translate(file: Path, documents: Sequence[tuple[Any, Mapping[Key, int]]]) -> Translated | None:
    """The own form of a file's documents; ``None`` if they are not for another host. Raises: ConfigError."""
    read = [Document(file, data, lines) for data, lines in documents if data is not None]
    own = Own()
    kinds = [kubernetes.kind_of(each.data) for each in read]
    if any(kinds):
        others = [each for each, kind in zip(read, kinds, strict=True) if kind is None]
        for each in others:
            each.root.warn("this resource does not configure filters that proxywasm supports")
        kubernetes.put([each for each, kind in zip(read, kinds, strict=True) if kind is not None], own)
    elif any(apisix.fits(each.data) for each in read):
        apisix.put(read, own)
    elif len(read) == 1 and envoy.fits(read[0].data):
        envoy.bootstrap(read[0].root, own)
    else:
        return None
    return _told(read, own)


def of_nginx(file: Path, text: str) -> Translated | None:
    """The own form of an nginx configuration; ``None`` if the text is not one. Raises: ConfigError."""
    if not nginx.fits(text):
        return None
    own = Own()
    return _told([nginx.put(file, text, own)], own)


def _told(documents: list[Document], own: Own) -> Translated:
    """Log the warnings. Raises: ConfigError, with all errors."""
    for document in documents:
        for line in document.ignored:
            logger.warning("%s", line)
    errors = [error for document in documents for error in document.errors]
    if errors:
        raise ConfigError("\n".join(errors))
    return own.data, own.lines

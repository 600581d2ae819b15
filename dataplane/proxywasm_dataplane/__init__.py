"""The data plane of ``proxywasm serve``: HTTP on hyper, in separate threads. Made for `proxywasm_host.serve`."""

from collections.abc import Mapping

from proxywasm_dataplane._native import Request, ServerThread

__all__ = ["ServerThread"]

Mapping.register(Request)

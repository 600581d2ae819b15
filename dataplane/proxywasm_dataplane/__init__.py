"""The data plane of ``proxywasm serve``: HTTP on hyper, in threads of its own. Made for `proxywasm_host.serve`."""

from proxywasm_dataplane._native import ServerThread

__all__ = ["ServerThread"]

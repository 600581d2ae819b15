"""The names that an embedder needs to add hostcalls; see `proxywasm_host.abi.custom`."""

from proxywasm_host.abi.context import Context, VmState
from proxywasm_host.abi.custom import CustomHostcall, hostcall
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.table import (
    Hostcall,
    Kind,
    Param,
    data,
    data_out,
    i32,
    i64,
    pairs,
    pairs_out,
    u32,
    u32_out,
    u64,
    u64_out,
)
from proxywasm_host.abi.types import AbiVersion, Status

__all__ = [
    "AbiVersion",
    "Context",
    "CustomHostcall",
    "Hostcall",
    "Kind",
    "Param",
    "Refusal",
    "Status",
    "VmState",
    "data",
    "data_out",
    "hostcall",
    "i32",
    "i64",
    "pairs",
    "pairs_out",
    "u32",
    "u32_out",
    "u64",
    "u64_out",
]

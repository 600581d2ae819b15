"""The ABI as data, its marshalling, and the handler of each hostcall. No I/O, no engine, no clock."""

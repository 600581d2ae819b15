"""The ABI as data, its marshalling, and what each hostcall means. No I/O, no engine, no clock of its own."""

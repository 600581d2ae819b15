"""The JavaScript in each isolate: it instantiates modules, and reports exceptions."""

from __future__ import annotations

from .bridge import FAILED, REPORT

__all__ = ["GLUE"]

GLUE = f"""(() => {{
  "use strict";
  Error.stackTraceLimit = 64;
  const page = new WebAssembly.Memory({{ initial: 1, maximum: 1 }});
  const words = new Uint32Array(page.buffer);
  const report = new Uint16Array(page.buffer, {REPORT});
  let memory;

  function fail(error) {{
    words[{FAILED // 4}] = 1;
    let text;
    try {{
      text = error instanceof Error
        ? [error.name, error.message, error.stack].join("\\n") : "Error\\n" + describe(error) + "\\n";
    }} catch {{
      text = "Error\\nan exception that cannot be described\\n";
    }}
    const size = Math.min(text.length, report.length - 2);
    words[{REPORT // 4}] = size;
    for (let i = 0; i < size; i++) report[2 + i] = text.charCodeAt(i);
  }}

  const describe = (error) => error instanceof WebAssembly.Exception ? "uncaught exception" : String(error);
  const guarded = (f) => () => {{ try {{ f(); }} catch (error) {{ fail(error); }} }};

  // Imports are read in order, so their names do not matter, and one name may occur twice.
  function feed(values) {{
    let next = 0;
    const fields = new Proxy({{}}, {{ get: () => values[next++] }});
    return new Proxy({{}}, {{ get: () => fields }});
  }}

  return [
    page.buffer,
    (buffer) => {{
      try {{
        return new WebAssembly.Module(buffer);
      }} catch (error) {{
        fail(error);
      }} finally {{
        buffer.transfer(0);
      }}
    }},
    (plan, before, guest, after, ...hosts) => {{
      try {{
        const {{ memories, visible, names, large }} = JSON.parse(plan);
        const made = memories.map(({{ initial, maximum, shared, wide }}) => new WebAssembly.Memory(
          wide ? {{ initial: BigInt(initial), maximum: BigInt(maximum), shared, address: "i64" }}
               : {{ initial, maximum, shared }}));
        memory = made[visible];
        const between = new WebAssembly.Instance(before, feed([page, ...hosts])).exports;
        const imports = hosts.map((_, index) => between[index]);
        const own = new WebAssembly.Instance(guest, feed([...imports, ...made])).exports;
        const outer = new WebAssembly.Instance(after, feed([page, ...names.map((name) => own[name])])).exports;
        return [...names.map((_, index) => guarded(outer[index])), ...large.map((name) => own[name])];
      }} catch (error) {{
        fail(error);
      }}
    }},
    () => memory.buffer,
    () => memory,
  ];
}})()"""
"""Evaluates to an array: the page of `bridge`, and functions that compile a module, instantiate it, and return the
memory's buffer and the memory."""

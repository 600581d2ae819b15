"""The JavaScript of this route, around the glue that both routes share.

V8 is never entered twice. While a host function runs, the guest's thread waits in ``turn``. When that returns, the host
function has either answered or called a function of the guest, which then runs on top of the waiting guest, and the
next ``turn`` reports its end. So host and guest call each other to any depth, the host on its thread and the guest on
V8's.
"""

from __future__ import annotations

from proxywasm_engine_v8.bridge import FAILED
from proxywasm_engine_v8.glue import GLUE

__all__ = ["INDEX", "NEXT", "OVERFLOWN", "OWN_GLUE", "RETURNED", "SIZE"]

INDEX, NEXT, SIZE = 12288, 12292, 12296
"""Offsets in the page, after the space for arguments: the called host function; the guest function to call next,
counted from 1, or 0 for none; the size of the guest's memory in bytes, as an f64."""
RETURNED = 0xFFFF_FFFF
"""The value of `INDEX` when a call from a host function has returned."""
OVERFLOWN = 2
"""The value of `FAILED` when the stack had no room for the report."""

OWN_GLUE = f"""((glue) => {{
  "use strict";
  const [page, compile, instantiate, memory] = glue;
  const words = new Uint32Array(page);
  const sizes = new Float64Array(page, {SIZE}, 1);
  let turn, optimise, run, measured = false;

  const measure = () => {{ if (measured) sizes[0] = memory().byteLength; }};
  const host = (index) => () => {{
    measure();
    words[{INDEX // 4}] = index;
    turn();
    while (words[{NEXT // 4}] !== 0) {{
      try {{
        run[words[{NEXT // 4}] - 1]();
      }} catch {{
        words[{FAILED // 4}] = {OVERFLOWN};
      }}
      measure();
      words[{INDEX // 4}] = {RETURNED};
      turn();
    }}
  }};

  const does = {{
    call() {{ run[words[{NEXT // 4}] - 1](); measure(); }},
    nothing() {{ }},
    connect(callback, optimiser) {{
      turn = callback;
      optimise = (f) => {{ globalThis[0] = f; optimiser(); delete globalThis[0]; }};
      return page;
    }},
    buffer(size) {{ return new ArrayBuffer(size); }},
    memory,
    compile,
    instantiate(plan, ...modules) {{
      const {{ hosts, measure: wanted, names }} = JSON.parse(plan);
      run = instantiate(plan, ...modules, ...Array.from({{ length: hosts }}, (_, index) => host(index)));
      run?.slice(names.length).forEach(optimise);
      measured = wanted && run !== undefined;
      measure();
    }},
  }};
  return (what, ...values) => does[what](...values);
}})({GLUE})"""
"""Evaluates to a function that runs one of the functions in ``does``, by name."""

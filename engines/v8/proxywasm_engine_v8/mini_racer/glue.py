"""The JavaScript of this route, around the one of both.

V8 is never entered twice. While a host function is at work, the guest's thread waits in ``turn``, and when that returns
either the host function has answered or it wants the guest to do something, which is done right here and told by the
next ``turn``. So host and guest call each other to any depth, the host on its own thread and the guest on V8's.
"""

from __future__ import annotations

from proxywasm_engine_v8.bridge import FAILED
from proxywasm_engine_v8.glue import GLUE

__all__ = ["INDEX", "NEXT", "OVERFLOWN", "OWN_GLUE", "RETURNED", "SIZE"]

INDEX, NEXT, SIZE = 12288, 12292, 12296
"""Where in the page things are, beyond the most arguments that there can be: which host function is called; which guest
function is to be called next, counted from 1, or 0; the size of the guest's memory, as a f64."""
RETURNED = 0xFFFF_FFFF
"""In the place of a host function: a call within a host function has returned."""
OVERFLOWN = 2
"""In the place of the flag of failure: the stack was too short for the report."""

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
"""A function that does one thing or another, by name."""

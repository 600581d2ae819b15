"""Lower wasm exception handling (as LLVM's SjLj lowering emits it: one tag with an i32 payload, try_table/throw) to plain MVP wasm."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "proxywasm_pack"))
from wasm import module as build, read_signed as rds, read_unsigned as rd, sections, unsigned as uleb  # noqa: E402
def skip_bt(b, i):
    if b[i] == 0x40 or b[i] >= 0x6f: return i + 1
    _, i = rds(b, i); return i
def skip_imm(b, i, op):
    """index after the immediates of a non control instruction"""
    if op in (0x00, 0x01, 0x0a, 0x0f, 0x1a, 0x1b) or 0x45 <= op <= 0xc4 or op == 0xd1: return i
    if op in (0x0c, 0x0d, 0x10, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0xd2): return rd(b, i)[1]
    if op == 0x11: i = rd(b, i)[1]; return rd(b, i)[1]
    if 0x28 <= op <= 0x3e: i = rd(b, i)[1]; return rd(b, i)[1]
    if op in (0x3f, 0x40, 0xd0): return i + 1
    if op in (0x41, 0x42): return rds(b, i)[1]
    if op == 0x43: return i + 4
    if op == 0x44: return i + 8
    if op == 0x1c:
        n, i = rd(b, i); return i + n
    if op == 0xfc:
        s, i = rd(b, i)
        if s < 8: return i
        n = {8: 2, 9: 1, 10: 2, 11: 1, 12: 2, 13: 1, 14: 2, 15: 1, 16: 1, 17: 1}[s]
        for _ in range(n): i = rd(b, i)[1]
        return i
    raise ValueError('opcode 0x%02x' % op)
ZERO = {0x7f: b'\x41\0', 0x7e: b'\x42\0', 0x7d: b'\x43' + b'\0' * 4, 0x7c: b'\x44' + b'\0' * 8}
def lower(wasm):
    secs = list(sections(wasm)); d = {s: p for s, p in secs if s}
    types = []; n, i = rd(d[1], 0); p = d[1]
    for _ in range(n):
        assert p[i] == 0x60; k, i = rd(p, i + 1); i += k; k, i = rd(p, i); types.append(p[i:i + k]); i += k
    nimp = 0; p = d.get(2, b'\0'); n, i = rd(p, 0)
    for _ in range(n):
        for _ in 0, 1: k, i = rd(p, i); i += k
        kind = p[i]; i += 1
        if kind == 0: nimp += 1; i = rd(p, i)[1]
        else: raise ValueError('import kind')
    p = d[3]; n, i = rd(p, 0); ftype = []
    for _ in range(n): t, i = rd(p, i); ftype.append(t)
    bodies = []; p = d[10]; n, i = rd(p, 0)
    for _ in range(n): k, i = rd(p, i); bodies.append(p[i:i + k]); i += k
    ng, gi = rd(d[6], 0); THR, PAY = ng, ng + 1
    # pass 1: call graph
    calls = []; thr = set()
    def start(b):
        n, i = rd(b, 0)
        for _ in range(n): _, i = rd(b, i); i += 1
        return i
    def loc(b):
        n, i = rd(b, 0); o = bytearray(uleb(n))
        for _ in range(n): c, i = rd(b, i); o += uleb(c) + bty(b[i:i + 1]); i += 1
        return o
    for fi, b in enumerate(bodies):
        i = start(b); cs = set()
        while i < len(b):
            op = b[i]; i += 1
            if op in (2, 3, 4): i = skip_bt(b, i)
            elif op in (5, 0x0b): pass
            elif op == 8: thr.add(fi); i = rd(b, i)[1]
            elif op == 0x0a: thr.add(fi)
            elif op == 0x1f:
                i = skip_bt(b, i); n, i = rd(b, i)
                for _ in range(n):
                    k = b[i]; i += 1
                    if k < 2: i = rd(b, i)[1]
                    i = rd(b, i)[1]
            elif op == 0x0e:
                n, i = rd(b, i)
                for _ in range(n + 1): i = rd(b, i)[1]
            elif op == 0x10: t, i = rd(b, i); cs.add(t - nimp)
            else:
                if op == 0x11: thr.add(fi)   # indirect: may throw
                i = skip_imm(b, i, op)
        calls.append(cs)
    callers = {}
    for f, cs in enumerate(calls):
        for c in cs: callers.setdefault(c, set()).add(f)
    work = list(thr)
    while work:
        c = work.pop()
        for f in callers.get(c, ()):
            if f not in thr: thr.add(f); work.append(f)
    # pass 2
    out = []; nsite = 0
    def push(k): return (b'', b'')[0] if k == 2 else b'\x23' + uleb(PAY) if k == 0 else b'\x41\0' if k == 3 else b'\x23' + uleb(PAY) + b'\x41\0'
    def bty(x): return b'\x7f' if x == b'\x69' else x
    for fi, b in enumerate(bodies):
        if fi not in thr: out.append(b); continue
        i = start(b); o = bytearray(loc(b)); o += b'\x02\x40'; ctl = []   # entries: None or catch label of a try_table
        def lab(k): return uleb(k + 1 if k == len(ctl) else k)
        def handler():
            for p in range(len(ctl) - 1, -1, -1):
                if ctl[p] is not None: return p, ctl[p]
        def after_call():
            h = handler()
            if h is None: return b'\x23' + uleb(THR) + b'\x0d' + uleb(len(ctl))
            p, (c, pay) = h; k = len(ctl) - p + c; k += (k >= len(ctl))
            return b'\x23' + uleb(THR) + b'\x04\x40' + b'\x41\0\x24' + uleb(THR) + push(pay) + b'\x0c' + uleb(k + 1) + b'\x0b'
        while i < len(b):
            s = i; op = b[i]; i += 1
            if op in (2, 3, 4): i = skip_bt(b, i); o += b[s:s + 1] + bty(b[s + 1:i]); ctl.append(None)
            elif op == 5: o += b'\x05'
            elif op == 0x0b:
                if not ctl:
                    assert i == len(b); o += b'\x0f\x0b' + b''.join(ZERO[t] for t in types[ftype[fi]]) + b'\x0b'; break
                ctl.pop(); o += b'\x0b'
            elif op == 0x1f:
                j = i; i = skip_bt(b, i); bt = b[j:i]; n, i = rd(b, i); cl = None
                for _ in range(n):
                    k = b[i]; i += 1
                    if k < 2: i = rd(b, i)[1]
                    l, i = rd(b, i); cl = cl or (l, k)
                o += b'\x02' + bty(bt); ctl.append(cl)
            elif op == 8:
                i = rd(b, i)[1]; o += b'\x24' + uleb(PAY); h = handler()
                if h is None: o += b'\x41\1\x24' + uleb(THR) + b'\x0c' + uleb(len(ctl))
                else:
                    p, (c, pay) = h; k = len(ctl) - p + c; k += (k >= len(ctl)); o += push(pay) + b'\x0c' + uleb(k)
            elif op == 0x0a:
                o += b'\x1a'; h = handler()
                if h is None: o += b'\x41\1\x24' + uleb(THR) + b'\x0c' + uleb(len(ctl))
                else:
                    p, (c, pay) = h; k = len(ctl) - p + c; k += (k >= len(ctl)); o += push(pay) + b'\x0c' + uleb(k)
            elif op in (0x0c, 0x0d): k, i = rd(b, i); o += bytes([op]) + lab(k)
            elif op == 0x0e:
                n, i = rd(b, i); o += b'\x0e' + uleb(n)
                for _ in range(n + 1): k, i = rd(b, i); o += lab(k)
            elif op == 0x10:
                t, i = rd(b, i); o += b[s:i]
                if t >= nimp and t - nimp in thr: o += after_call(); nsite += 1
            elif op == 0x11: i = skip_imm(b, i, op); o += b[s:i]; o += after_call(); nsite += 1
            else: i = skip_imm(b, i, op); o += b[s:i]
        out.append(bytes(o))
    res = []
    for s, p in secs:
        if s == 13 or (s == 0 and b'target_features' in p[:20]): continue
        if s == 1:
            n, i = rd(p, 0); q = bytearray(uleb(n))
            for _ in range(n):
                q += b'\x60'; i += 1
                for _ in 0, 1: k, i = rd(p, i); q += uleb(k) + bytes(0x7f if x == 0x69 else x for x in p[i:i + k]); i += k
            p = bytes(q)
        if s == 6: p = uleb(ng + 2) + p[gi:] + b'\x7f\x01\x41\0\x0b' * 2
        if s == 10: p = uleb(len(out)) + b''.join(uleb(len(x)) + x for x in out)
        res.append((s, p))
    return build(res)

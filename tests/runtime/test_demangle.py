"""Names of Rust functions in backtraces, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host.engine.protocol import Frame, Trap, TrapKind
from proxywasm_host.runtime.demangle import demangled
from proxywasm_host.runtime.failure import FailState, failure_of
from tests.support import REQUEST, code

V0 = {  # of tests/filters/rust/panics.wasm, as binutils and LLVM write them too
    "_RNvCs4CBnUHJIe4m_6panics13loop_for_ever": "panics::loop_for_ever",
    "_RNvMCs4CBnUHJIe4m_6panicsNtB2_4Plan5reach": "<panics::Plan>::reach",
    "_RNvXs0_Cs4CBnUHJIe4m_6panicsNtB5_4RootNtNtCsaWxQ54EYqN4_10proxy_wasm6traits11RootContext11on_vm_start": (
        "<panics::Root as proxy_wasm::traits::RootContext>::on_vm_start"
    ),
    "_RINvMs1_NtNtCs8ToDHkgE1cl_4core3fmt8buildersNtB6_11DebugStruct10field_withNCNvB2_5field0EBa_": (
        "<core::fmt::builders::DebugStruct>::field_with::<<core::fmt::builders::DebugStruct>::field::{closure#0}>"
    ),
    "_RINvNtCs39tTvaYBHog_3std9panicking11begin_panicReEB4_": "std::panicking::begin_panic::<&str>",
    "_RINvNtCs8ToDHkgE1cl_4core6escape14escape_unicodeKja_EB4_": "core::escape::escape_unicode::<10>",
    "_RINvNvMs2_NtCs3JtSjdKbPmw_5alloc7raw_vecINtB8_11RawVecInnerpE7reserve21do_reserve_and_handleNtNtBa_5alloc6GlobalEBa_": (
        "<alloc::raw_vec::RawVecInner<_>>::reserve::do_reserve_and_handle::<alloc::alloc::Global>"
    ),
    "_RINvNtNtCs39tTvaYBHog_3std3sys9backtrace26___rust_end_short_backtraceNCINvNtB6_9panicking11begin_panicReE0zEB6_": (
        "std::sys::backtrace::__rust_end_short_backtrace::<std::panicking::begin_panic<&str>::{closure#0}, !>"
    ),
    "_RINvNtCs8ToDHkgE1cl_4core3ptr13drop_in_placeINtNtB4_6option6OptionINtNtCs3JtSjdKbPmw_5alloc5boxed3BoxDNtNtCsaWxQ54EYqN4_"
    "10proxy_wasm6traits11HttpContextEL_EEEB1G_": (
        "core::ptr::drop_in_place::<core::option::Option<alloc::boxed::Box<dyn proxy_wasm::traits::HttpContext>>>"
    ),
    # What is not there: the examples of RFC 2603, and the rest of its grammar.
    "_RNvC6_123foo3bar": "123foo::bar",
    "_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y": "utf8_idents::საჭმელად_გემრიელი_სადილი",
    "_RIC1aFG_RL0_hEuE": "a::<for<'a> fn(&'a u8)>",
    "_RIC1aFUKCmEuE": 'a::<unsafe extern "C" fn(u32)>',
    "_RIC1aDNtC1b1Tp4ItemhEL_E": "a::<dyn b::T<Item = u8>>",
    "_RIC1aTeEAhj4_OlPmE": "a::<(str,), [u8; 4], *mut i32, *const u32>",
    "_RIC1aKb1_Ksna_Kc41_E": "a::<true, -10, 'A'>",
    "_RNvC1a1b.llvm.123": "a::b",
}
LEGACY = {
    "_ZN4core9panicking5panic17h0123456789abcdefE": "core::panicking::panic",
    "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE": (
        "<Test + 'static as foo::Bar<Test>>::bar"
    ),
    "_ZN65_$LT$alloc..boxed..Box$LT$F$GT$$u20$as$u20$alloc..Fn$LT$A$GT$$GT$4call17h0123456789abcdefE.llvm.1": (
        "<alloc::boxed::Box<F> as alloc::Fn<A>>::call"
    ),
    "_ZN4test1a2bc17h0123456789abcdefE": "test::a::bc",
}


@pytest.mark.parametrize(("mangled", "text"), [*V0.items(), *LEGACY.items()])
def test_names(mangled, text):
    assert demangled(mangled) == text


OTHERS = {
    "none": "",
    "a callback": "proxy_on_request_headers",
    "one without a name": "<wasm function 7>",
    "Go": "main.(*httpContext).OnHttpRequestHeaders",
    "C++": "_ZN9proxywasm7Context5onLogEv",
    "C++, by chance with a last part of 17": "_ZN3foo17harmonic_mean_sumE",
    "C++ with a template": "_ZNSt3__112basic_stringIcNS_11char_traitsIcEENS_9allocatorIcEEE4initEPKcm",
    "cut off": "_RNvNtCs39tTvaYBHog_3std7proc",
    "legacy, cut off": "_ZN4core9panick",
    "an unknown letter": "_RNvWC1a1b",
    "a reference to what comes later": "_RIC1aBz_E",
    "a reference to itself": "_RIC1aB3_E",
    "a number too large": "_RNvCszzzzzzzzzzzzzzz_1a1b",
    "an identifier beyond the end": "_RNvC1a99b",
    "paths without an end": "_R" + "I" * 4000,
    "types without an end": "_RMC0" + "S" * 4000,
    "legacy without an end": "_ZN" + "9" * 4000,
    "lifetimes without an end": "_RIC1aFGzzzzzz_EuE",
    "text without an end": "_RIC1a" + "T" + "".join(f"TB{'' if n == 0 else format(n, 'x')}_" + "B4_" * 8 + "E" for n in range(40)) + "EE",
    "a long one": "_RNvC1a5000" + "x" * 5000,
    "not of ASCII": "_RNvC2é1b",
    "bad Punycode": "_RNvC1au3___",
    "no character": "_RIC1aKcd800_E",
    "legacy, no character": "_ZN10$u110000$x17h0123456789abcdefE",
}


@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS)
def test_what_stays_as_it_is(name):
    assert demangled(name) == name


LETTERS = st.text("_RZNCMXYIBESTADFQLKpsuG0123456789abhjz$.", max_size=200)


@given(st.sampled_from([*V0, *LEGACY, "_R", "_ZN"]), st.integers(0, 200), LETTERS)
def test_any_name_is_read_or_left(name, at, more):
    text = demangled(name[:at] + more)
    assert len(text) <= 5000
    demangled(name[:at] + more + name[at:])


def test_a_backtrace_is_to_be_read(host):
    plugin = host.load_plugin(code("rust/panics"), configuration="request_headers")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
    names = [frame.function for frame in plugin.failure.backtrace]
    assert names[-5:] == [
        "core::panicking::panic_fmt",
        "panics::panic_as_told",
        "<panics::Plan>::reach",
        "<panics::Panics as proxy_wasm::traits::HttpContext>::on_http_request_headers",
        "proxy_on_request_headers",
    ]
    assert "    at <panics::Plan>::reach" in plugin.failure.report()


def test_a_name_of_a_megabyte_does_not_fill_a_report():
    trap = Trap(TrapKind.UNREACHABLE, frames=[Frame("x" * 1_000_000, "m", 7)])
    failure = failure_of(FailState.RUNTIME, "p", "proxy_on_tick", trap)
    assert failure.backtrace == (Frame("x" * 512 + "…", "m", 7),)

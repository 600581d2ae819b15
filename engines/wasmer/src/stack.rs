//! The stack that guests run on in one thread, the ways onto it and off it.
//!
//! Wasmer makes a new stack ready for each call, and changes between stacks with much ceremony. Here there is one for
//! each thread, made ready once: a call begins where the guest that called the host has left off, or at the top, and
//! one that ends with a trap is left by putting the host's stack pointer back. Nothing on it needs to be cleaned up, for
//! only guest code and the few functions that it calls directly are ever run on it.
//!
//! Wasmer's own functions have to find it as they left it. So it is a stack of Wasmer's, which believes that one long
//! call is under way on it, made from a stack that is only there for that (`believe`). What Wasmer's functions do on the
//! host's stack, they do there; and where one of them raises a trap, that call ends there, and the next one begins.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::catch_unwind;
use std::ptr::null_mut;

use backtrace::Backtrace;
use libc::{c_int, siginfo_t};
use wasmer_types::{RawValue, TrapCode};
use wasmer_vm::{Trap, VMConfig, VMFunctionContext, VMTrampoline, catch_traps};

use crate::reentrancy::CallState;
use crate::switch::{Frame, Function, Registers, enter, leave};

/// Bytes of it.
const SIZE: usize = 1 << 20;
/// Bytes of the stack that Wasmer believes to have been called from.
const HOST_SIZE: usize = 256 << 10;
/// Bytes at its top that are Wasmer's: what it does before it comes to us is on less than that.
const WASMERS: usize = 4096;
/// Bytes that are to be left for what is more than guest code.
const ROOM: usize = 64 << 10;
/// How many calls of guests may be under way in one thread.
const MOST: usize = 256;

/// How a call ends: it returns; a host function has raised something (see `CallState`); there was a trap (see `CallState`); too
/// little of the stack was left; or there is none.
pub const RETURNED: u32 = 0;
pub const RAISED: u32 = 1;
pub const TRAPPED: u32 = 2;
pub const EXHAUSTED: u32 = 3;
const FAILED: u32 = 4;

struct Stack {
    frames: [Frame; MOST],
    limit: Cell<usize>,
    base: Cell<usize>,
    /// Where a call begins that no guest has led to.
    top: Cell<usize>,
    host: *mut c_void,
    /// The stack for handlers of signals that Wasmer has made for this thread, or null.
    signals: Cell<*mut c_void>,
}

impl Drop for Stack {
    fn drop(&mut self) {
        SEAT.with(|seat| seat.stack.set(null_mut()));
        // SAFETY: nobody returns to what is suspended on them, which owns nothing but the first of them.
        unsafe {
            // The next to go, without a word to the kernel.
            if !self.signals.get().is_null() && signal_stack() == self.signals.get() {
                let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
                libc::sigaltstack(&none, null_mut());
            }
            if self.base.get() != 0 {
                libc::munmap(self.limit.get() as *mut c_void, self.base.get() - self.limit.get());
            }
            libc::munmap(self.host, HOST_SIZE + page());
        }
    }
}

/// What a thread has for its guests.
pub struct Seat {
    stack: Cell<*const Stack>,
    /// The call of a guest that is under way, the innermost one, or null.
    frame: Cell<*const Frame>,
    /// The kernel's number of the thread, 0 if it was not asked for yet.
    thread: Cell<c_int>,
}

thread_local! {
    static SEAT: Seat =
        const { Seat { stack: Cell::new(null_mut()), frame: Cell::new(null_mut()), thread: Cell::new(0) } };
    /// Frees it when the thread ends.
    static OWN: RefCell<Option<Box<Stack>>> = const { RefCell::new(None) };
}

impl Seat {
    /// That of this thread. It stays where it is as long as the thread lives.
    #[inline]
    pub fn mine() -> *const Self {
        SEAT.with(std::ptr::from_ref)
    }

    /// The kernel's number of this thread.
    #[inline]
    pub fn thread(&self) -> c_int {
        if self.thread.get() == 0 {
            self.thread.set(unsafe { libc::gettid() });
        }
        self.thread.get()
    }

    /// To be called in a child process, whose only thread has another number.
    pub fn after_fork() {
        SEAT.with(|seat| {
            seat.thread.set(0);
            seat.states().for_each(|state| state.after_fork(seat.thread()));
        });
    }

    /// The state of the guest whose code runs in this thread, or of the host function that runs for it.
    #[inline]
    pub fn state<'a>(&self) -> Option<&'a CallState> {
        // SAFETY: it is there as long as there is a call through it.
        unsafe { self.frame.get().as_ref().and_then(|frame| frame.state.get().as_ref()) }
    }

    /// Those of all calls that are under way.
    fn states<'a>(&self) -> impl Iterator<Item = &'a CallState> {
        let (stack, innermost) = (self.stack.get(), self.frame.get());
        // SAFETY: as above.
        let frames = unsafe { stack.as_ref() }.map_or(&[][..], |stack| &stack.frames[..]);
        let under_way = frames.iter().take_while(move |&frame| std::ptr::from_ref(frame) <= innermost);
        under_way.filter_map(|frame| unsafe { frame.state.get().as_ref() })
    }

    #[inline]
    pub fn is_innermost(&self, frame: *const Frame) -> bool {
        self.frame.get() == frame
    }

    /// Never use this stack again: calls have not ended in the order that they began in, which what is on it relies on.
    #[cold]
    pub fn abandon(&self) {
        self.stack.set(null_mut());
        self.frame.set(null_mut());
        _ = OWN.try_with(|own| std::mem::forget(own.take()));
    }

    /// Run a function of a guest. The frame of the call is noted at `place` meanwhile. Returns how it ended, or nothing
    /// if there is no room for another call.
    #[inline]
    pub unsafe fn run(
        &self,
        state: &CallState,
        place: &Cell<*const Frame>,
        function: &Function,
        slots: *mut RawValue,
    ) -> Option<u32> {
        let mut stack = self.stack.get();
        if stack.is_null() {
            let Some(made) = self.make() else { return Some(FAILED) };
            stack = made;
        }
        unsafe {
            let outer = self.frame.get();
            let (frame, from) = match outer.as_ref() {
                None => (&raw const (*stack).frames[0], (*stack).top.get()),
                Some(outer) if std::ptr::eq(outer, &(*stack).frames[MOST - 1]) => return None,
                Some(below) => (outer.add(1), below.guest.get() & !15),
            };
            (*frame).state.set(state);
            self.frame.set(frame);
            let before = place.replace(frame);
            let ended = enter(frame, function.context, function.body, slots, function.trampoline, from);
            place.set(before);
            if self.stack.get() == stack {
                self.frame.set(outer);
            }
            Some(ended)
        }
    }

    #[cold]
    fn make(&self) -> Option<*const Stack> {
        let anywhere = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: memory of our own, the lowest page of which is a guard.
        unsafe {
            let host = libc::mmap(null_mut(), HOST_SIZE + page(), libc::PROT_NONE, anywhere, -1, 0);
            if host == libc::MAP_FAILED {
                return None;
            }
            let frames = [const { Frame::new() }; MOST];
            let stack = Box::new(Stack {
                frames,
                limit: Cell::new(0),
                base: Cell::new(0),
                top: Cell::new(0),
                host,
                signals: Cell::new(null_mut()),
            });
            if libc::mprotect(host.add(page()), HOST_SIZE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return None;
            }
            let made = &raw const *stack;
            self.stack.set(made);
            self.frame.set(&stack.frames[0]);
            let function = std::mem::transmute::<unsafe extern "C" fn() -> !, VMTrampoline>(believe);
            let nothing = VMFunctionContext { host_env: null_mut() };
            let before = signal_stack();
            let ended =
                enter(&stack.frames[0], nothing, null_mut(), null_mut(), function, host.addr() + HOST_SIZE + page());
            self.frame.set(null_mut());
            if before != signal_stack() {
                stack.signals.set(signal_stack());
            }
            if ended != RETURNED {
                self.stack.set(null_mut());
                return None;
            }
            OWN.try_with(|own| own.replace(Some(stack))).ok()?; // or the thread is about to end
            Some(made)
        }
    }
}

/// Runs on the stack that Wasmer believes to have been called from. Whenever a function of Wasmer's has raised a trap,
/// it has the call of the guest end with it.
unsafe extern "C" fn believe() -> ! {
    let seat = unsafe { &*Seat::mine() };
    let config = VMConfig { wasm_stack_size: Some(SIZE) };
    while let Ok(Err(trap)) = catch_unwind(|| unsafe { catch_traps(None, &config, stand) }) {
        match seat.state() {
            Some(state) => state.note(trap),
            None => break,
        }
    }
    fail(seat)
}

/// Runs on the guests' stack whenever Wasmer has made it ready. It is never returned to.
fn stand() {
    let seat = unsafe { &*Seat::mine() };
    let stack = unsafe { &*seat.stack.get() };
    let here = (&raw const seat).addr();
    let base = (here | (WASMERS - 1)) + 1;
    // SAFETY: the last words of this page are there; the first of them links the stack with the one below.
    let link = unsafe { *((base - 2 * size_of::<usize>()) as *const usize) };
    let host = stack.host.addr();
    let is_known = (host..host + HOST_SIZE + page()).contains(&link) && here - (base - WASMERS) > WASMERS / 4;
    let ended = if !is_known || ![0, base].contains(&stack.base.get()) {
        fail(seat)
    } else if stack.base.replace(base) == 0 {
        stack.limit.set(base - SIZE - page());
        stack.top.set(base - WASMERS);
        RETURNED
    } else {
        TRAPPED
    };
    unsafe { leave(seat.frame.get(), ended) }
}

#[cold]
fn fail(seat: &Seat) -> ! {
    let frame = seat.frame.get();
    seat.abandon();
    unsafe { leave(frame, FAILED) }
}

/// The stack that handlers of signals run on in this thread, or null.
unsafe fn signal_stack() -> *mut c_void {
    let mut stack = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
    unsafe { libc::sigaltstack(null_mut(), &mut stack) };
    stack.ss_sp
}

fn page() -> usize {
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Whether little is left of the guests' stack, on which this is called.
#[inline]
pub fn is_short() -> bool {
    let here = 0u8;
    // SAFETY: there is one if it is called on it.
    let limit = unsafe { (*(*Seat::mine()).stack.get()).limit.get() };
    (&raw const here).addr() < limit + ROOM
}

/// End the call under way, from the guests' stack, on which nothing else is done any more.
#[cold]
pub unsafe fn give_up() -> ! {
    unsafe { leave((*Seat::mine()).frame.get(), EXHAUSTED) }
}

/// If the thread with the registers in `context` is on its guests' stack, have the call under way end with a trap. The
/// signal says what for. Returns whether it is.
pub unsafe fn trap(signal: c_int, info: *const siginfo_t, context: *mut c_void) -> bool {
    unsafe {
        let seat = &*Seat::mine();
        let Some(stack) = seat.stack.get().as_ref() else { return false };
        let whole = stack.limit.get()..stack.base.get();
        let registers = Registers(context);
        let (Some(state), true) = (seat.state(), whole.contains(&registers.stack())) else { return false };
        // What else there is to know of a trap, Wasmer knows by the address of the instruction.
        let reason = (signal == libc::SIGSEGV).then(|| match whole.contains(&(*info).si_addr().addr()) {
            true => TrapCode::StackOverflow,
            false => TrapCode::HeapAccessOutOfBounds,
        });
        let backtrace = match reason {
            Some(TrapCode::StackOverflow) => Backtrace::from(vec![]), // there may be half a frame
            _ => Backtrace::new_unresolved(),
        };
        state.note(Trap::wasm(registers.counter(), backtrace, reason));
        registers.call_leave(seat.frame.get(), TRAPPED);
        true
    }
}

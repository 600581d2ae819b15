//! The stack on which the guests of one thread run.
//!
//! Wasmer prepares a new stack for each call, and switches stacks slowly. Here each thread has one stack, prepared
//! once: a call begins at the position where the guest that called the host has stopped, or at the top, and a trap ends
//! a call by restoring the host's stack pointer. Nothing on the stack needs cleaning up, because only guest code runs
//! on it, and the few functions that guest code calls directly.
//!
//! Wasmer's functions expect a stack in the state that they have set up. So it is a stack of Wasmer, which acts as if
//! one long call were active on it, made from a second stack that exists only for this purpose (`believe`). Wasmer's
//! functions use that second stack as the host's. When one of them raises a trap, this call ends there, and the next
//! one begins.

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

/// Size of the guests' stack in bytes.
const SIZE: usize = 1 << 20;
/// Size in bytes of the stack that Wasmer regards as its caller's.
const HOST_SIZE: usize = 256 << 10;
/// Bytes at the top of the guests' stack for Wasmer, which uses less before it calls `stand`.
const WASMERS: usize = 4096;
/// Bytes of the stack that must be left for functions other than guest code.
const ROOM: usize = 64 << 10;
/// How many calls of guests may be active in one thread.
const MOST: usize = 256;

/// How a call ends: it returns; a host function has raised an exception, or there was a trap (`CallState` has both);
/// too little of the stack was left; or there is no stack.
pub const RETURNED: u32 = 0;
pub const RAISED: u32 = 1;
pub const TRAPPED: u32 = 2;
pub const EXHAUSTED: u32 = 3;
const FAILED: u32 = 4;

struct Stack {
    frames: [Frame; MOST],
    limit: Cell<usize>,
    base: Cell<usize>,
    /// Where an outermost call begins.
    top: Cell<usize>,
    host: *mut c_void,
    /// The stack for signal handlers that Wasmer has made for this thread, or null.
    signals: Cell<*mut c_void>,
}

impl Drop for Stack {
    fn drop(&mut self) {
        SEAT.with(|seat| seat.stack.set(null_mut()));
        // SAFETY: the calls suspended on both stacks never continue, and own only the guests' stack.
        unsafe {
            // It is freed next, but the kernel is not informed.
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

/// The state of a thread for its guests.
pub struct Seat {
    stack: Cell<*const Stack>,
    /// The innermost active call of a guest, or null.
    frame: Cell<*const Frame>,
    /// The kernel's ID of the thread; 0 until it is queried.
    thread: Cell<c_int>,
}

thread_local! {
    static SEAT: Seat =
        const { Seat { stack: Cell::new(null_mut()), frame: Cell::new(null_mut()), thread: Cell::new(0) } };
    /// Frees the stack when the thread ends.
    static OWN: RefCell<Option<Box<Stack>>> = const { RefCell::new(None) };
}

impl Seat {
    /// The seat of this thread. Its address is constant as long as the thread exists.
    #[inline]
    pub fn mine() -> *const Self {
        SEAT.with(std::ptr::from_ref)
    }

    /// The kernel's ID of this thread.
    #[inline]
    pub fn thread(&self) -> c_int {
        if self.thread.get() == 0 {
            self.thread.set(unsafe { libc::gettid() });
        }
        self.thread.get()
    }

    /// Must be called in a child process, whose only thread has another ID.
    pub fn after_fork() {
        SEAT.with(|seat| {
            seat.thread.set(0);
            seat.states().for_each(|state| state.after_fork(seat.thread()));
        });
    }

    /// The state of the guest whose code runs in this thread, or of the host function that runs for it.
    #[inline]
    pub fn state<'a>(&self) -> Option<&'a CallState> {
        // SAFETY: the state exists during each of its calls.
        unsafe { self.frame.get().as_ref().and_then(|frame| frame.state.get().as_ref()) }
    }

    /// The states of all active calls.
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

    /// Never use this stack again: calls have not ended in the reverse order of their beginnings, so that its contents
    /// are invalid.
    #[cold]
    pub fn abandon(&self) {
        self.stack.set(null_mut());
        self.frame.set(null_mut());
        _ = OWN.try_with(|own| std::mem::forget(own.take()));
    }

    /// Run a function of a guest. Meanwhile, `place` has the frame of the call. Returns how the call ended, or `None`
    /// if too many calls are active.
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
        // SAFETY: new memory, whose lowest page is a guard.
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
            OWN.try_with(|own| own.replace(Some(stack))).ok()?; // fails if the thread is about to end
            Some(made)
        }
    }
}

/// Runs on the stack that Wasmer regards as its caller's. When a function of Wasmer has raised a trap, the guest's call
/// ends with it.
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

/// Runs on the guests' stack each time that Wasmer has prepared it. It never returns.
fn stand() {
    let seat = unsafe { &*Seat::mine() };
    let stack = unsafe { &*seat.stack.get() };
    let here = (&raw const seat).addr();
    let base = (here | (WASMERS - 1)) + 1;
    // SAFETY: the last two words of this page exist; the first of them links the stack with that of its caller.
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

/// The stack of this thread for signal handlers, or null.
unsafe fn signal_stack() -> *mut c_void {
    let mut stack = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
    unsafe { libc::sigaltstack(null_mut(), &mut stack) };
    stack.ss_sp
}

fn page() -> usize {
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Whether little of the guests' stack is left. Must be called on that stack.
#[inline]
pub fn is_short() -> bool {
    let here = 0u8;
    // SAFETY: the stack exists, because this runs on it.
    let limit = unsafe { (*(*Seat::mine()).stack.get()).limit.get() };
    (&raw const here).addr() < limit + ROOM
}

/// End the active call, from the guests' stack, without any further work on it.
#[cold]
pub unsafe fn give_up() -> ! {
    unsafe { leave((*Seat::mine()).frame.get(), EXHAUSTED) }
}

/// If the thread with the registers in `context` is on its guests' stack, end the active call with a trap. The signal
/// determines the reason. Returns whether it is on that stack.
pub unsafe fn trap(signal: c_int, info: *const siginfo_t, context: *mut c_void) -> bool {
    unsafe {
        let seat = &*Seat::mine();
        let Some(stack) = seat.stack.get().as_ref() else { return false };
        let whole = stack.limit.get()..stack.base.get();
        let registers = Registers(context);
        let (Some(state), true) = (seat.state(), whole.contains(&registers.stack())) else { return false };
        // For other traps, Wasmer finds the reason by the address of the instruction.
        let reason = (signal == libc::SIGSEGV).then(|| match whole.contains(&(*info).si_addr().addr()) {
            true => TrapCode::StackOverflow,
            false => TrapCode::HeapAccessOutOfBounds,
        });
        let backtrace = match reason {
            Some(TrapCode::StackOverflow) => Backtrace::from(vec![]), // the last frame may be incomplete
            _ => Backtrace::new_unresolved(),
        };
        state.note(Trap::wasm(registers.counter(), backtrace, reason));
        registers.call_leave(seat.frame.get(), TRAPPED);
        true
    }
}

//! Switches between the host's stack and the guests' stack, in a few instructions. All code for specific processors.

use std::arch::naked_asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null;

use wasmer_types::RawValue;
use wasmer_vm::{VMContext, VMFunction, VMFunctionBody, VMFunctionContext, VMTrampoline};

use crate::reentrancy::CallState;

/// A call of a guest.
#[repr(C)]
pub struct Frame {
    /// The host's stack pointer when the guest was entered, and the guest's when it last called the host.
    pub host: Cell<usize>,
    pub guest: Cell<usize>,
    pub state: Cell<*const CallState>,
}

impl Frame {
    pub const fn new() -> Self {
        Self { host: Cell::new(0), guest: Cell::new(0), state: Cell::new(null()) }
    }
}

/// A function of a guest.
pub struct Function {
    pub context: VMFunctionContext,
    pub trampoline: VMTrampoline,
    pub body: *const VMFunctionBody,
}

impl Function {
    pub fn of(function: &VMFunction) -> Self {
        // SAFETY: it exists as long as the store.
        let place = unsafe { function.anyfunc.as_ptr().as_ref() };
        Self { context: place.vmctx, trampoline: place.call_trampoline, body: place.func_ptr }
    }
}

/// Call `trampoline(context, body, slots)` with the stack pointer `from`. Returns how the call ended.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn enter(
    frame: *const Frame,
    context: VMFunctionContext,
    body: *const VMFunctionBody,
    slots: *mut RawValue,
    trampoline: VMTrampoline,
    from: usize,
) -> u32 {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rdi], rsp",
        "mov rbx, rdi",
        "mov rsp, r9",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "call r8",
        "mov rsp, [rbx]",
        "xor eax, eax",
        "jmp {end}",
        end = sym end,
    )
}

/// The end of `enter`. The stack pointer must have the value that `enter` has saved.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn end() {
    naked_asm!("add rsp, 8", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp", "ret")
}

/// End the call of `frame`, from any function that it has called.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn leave(frame: *const Frame, ended: u32) -> ! {
    naked_asm!("mov rsp, [rdi]", "mov eax, esi", "jmp {end}", end = sym end)
}

/// Called by a guest: calls `answer` on the host's stack, with the address of the caller's stack frame.
///
/// `host` points to two words: the address of this function, and the address of a cell with the frame of the guest's
/// call.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn call_host(host: *const c_void, slots: *mut RawValue) {
    naked_asm!(
        "mov rdx, rbp",
        "push rbp",
        "mov rbp, rsp",
        "mov rax, [rdi + 8]",
        "mov rax, [rax]",
        "mov [rax + 8], rsp",
        "mov rsp, [rax]",
        "call {answer}",
        "test eax, eax",
        "jnz {end}",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
        answer = sym crate::host::answer,
        end = sym end,
    )
}

/// The same function as the trampoline of an import that is exported again.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn call_host_directly(host: *mut VMContext, _: *const VMFunctionBody, slots: *mut RawValue) {
    naked_asm!("mov rsi, rdx", "jmp {}", sym call_host)
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn enter(
    frame: *const Frame,
    context: VMFunctionContext,
    body: *const VMFunctionBody,
    slots: *mut RawValue,
    trampoline: VMTrampoline,
    from: usize,
) -> u32 {
    naked_asm!(
        "stp x29, x30, [sp, #-160]!",
        "mov x29, sp",
        "stp x19, x20, [sp, #16]",
        "stp x21, x22, [sp, #32]",
        "stp x23, x24, [sp, #48]",
        "stp x25, x26, [sp, #64]",
        "stp x27, x28, [sp, #80]",
        "stp d8, d9, [sp, #96]",
        "stp d10, d11, [sp, #112]",
        "stp d12, d13, [sp, #128]",
        "stp d14, d15, [sp, #144]",
        "mov x9, sp",
        "str x9, [x0]",
        "mov x19, x0",
        "mov sp, x5",
        "mov x0, x1",
        "mov x1, x2",
        "mov x2, x3",
        "blr x4",
        "ldr x9, [x19]",
        "mov sp, x9",
        "mov w0, #0",
        "b {end}",
        end = sym end,
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn end() {
    naked_asm!(
        "ldp x19, x20, [sp, #16]",
        "ldp x21, x22, [sp, #32]",
        "ldp x23, x24, [sp, #48]",
        "ldp x25, x26, [sp, #64]",
        "ldp x27, x28, [sp, #80]",
        "ldp d8, d9, [sp, #96]",
        "ldp d10, d11, [sp, #112]",
        "ldp d12, d13, [sp, #128]",
        "ldp d14, d15, [sp, #144]",
        "ldp x29, x30, [sp], #160",
        "ret",
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn leave(frame: *const Frame, ended: u32) -> ! {
    naked_asm!("ldr x9, [x0]", "mov sp, x9", "mov w0, w1", "b {end}", end = sym end)
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn call_host(host: *const c_void, slots: *mut RawValue) {
    naked_asm!(
        "mov x2, x29",
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "ldr x9, [x0, #8]",
        "ldr x9, [x9]",
        "mov x10, sp",
        "str x10, [x9, #8]",
        "ldr x10, [x9]",
        "mov sp, x10",
        "bl {answer}",
        "cbnz w0, 2f",
        "mov sp, x29",
        "ldp x29, x30, [sp], #16",
        "ret",
        "2:",
        "b {end}",
        answer = sym crate::host::answer,
        end = sym end,
    )
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn call_host_directly(host: *mut VMContext, _: *const VMFunctionBody, slots: *mut RawValue) {
    naked_asm!("mov x1, x2", "b {}", sym call_host)
}

/// The registers of a thread that a signal has interrupted.
pub struct Registers(pub *mut c_void);

#[cfg(target_arch = "x86_64")]
impl Registers {
    unsafe fn at(&self, index: libc::c_int) -> *mut i64 {
        unsafe { &raw mut (*self.0.cast::<libc::ucontext_t>()).uc_mcontext.gregs[index as usize] }
    }

    pub unsafe fn counter(&self) -> usize {
        unsafe { *self.at(libc::REG_RIP) as usize }
    }

    pub unsafe fn stack(&self) -> usize {
        unsafe { *self.at(libc::REG_RSP) as usize }
    }

    /// Continue at `counter`, with this stack pointer.
    pub unsafe fn go_on(&self, counter: usize, stack: usize) {
        unsafe {
            *self.at(libc::REG_RIP) = counter as i64;
            *self.at(libc::REG_RSP) = stack as i64;
        }
    }

    /// Continue in `leave`.
    pub unsafe fn call_leave(&self, frame: *const Frame, ended: u32) {
        unsafe {
            self.go_on(leave as *const () as usize, (*frame).host.get());
            *self.at(libc::REG_RDI) = frame as i64;
            *self.at(libc::REG_RSI) = ended.into();
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    unsafe fn context(&self) -> *mut libc::mcontext_t {
        unsafe { &raw mut (*self.0.cast::<libc::ucontext_t>()).uc_mcontext }
    }

    pub unsafe fn counter(&self) -> usize {
        unsafe { (*self.context()).pc as usize }
    }

    pub unsafe fn stack(&self) -> usize {
        unsafe { (*self.context()).sp as usize }
    }

    /// Continue in `leave`.
    pub unsafe fn call_leave(&self, frame: *const Frame, ended: u32) {
        unsafe {
            let context = self.context();
            (*context).pc = leave as *const () as u64;
            (*context).sp = (*frame).host.get() as u64;
            (*context).regs[0] = frame as u64;
            (*context).regs[1] = ended.into();
        }
    }
}

//! The functions that Wasmer's compiled code calls for some instructions, with additional checks.
//!
//! Bulk operations on memories and tables, and their growth, may take long. A signal of the watchdog has no effect
//! while one of them runs, and a guest that does nothing else is almost never outside of one. So these functions check
//! afterwards whether a signal arrived; and quick functions that take longer than the code around them check whether
//! the call is late.
//!
//! Functions that raise a trap or throw do so on the guest's stack, and meanwhile hold locks of the unwinder and the
//! allocator. If the stack overflowed then, the locks would remain taken for ever, and Wasmer would lose track of the
//! current stack. So each function first checks that enough of the stack is left.

use std::error::Error;
use std::fmt;

use wasmer_types::{TrapCode, VMBuiltinFunctionIndex as Index, VMOffsets};
use wasmer_vm::libcalls::{
    wasmer_vm_alloc_exception, wasmer_vm_data_drop, wasmer_vm_elem_drop, wasmer_vm_func_ref,
    wasmer_vm_memory32_atomic_notify, wasmer_vm_memory32_copy, wasmer_vm_memory32_fill, wasmer_vm_memory32_grow,
    wasmer_vm_memory32_init, wasmer_vm_memory32_size, wasmer_vm_raise_trap, wasmer_vm_table_copy, wasmer_vm_table_fill,
    wasmer_vm_table_get, wasmer_vm_table_grow, wasmer_vm_table_init, wasmer_vm_table_set, wasmer_vm_table_size,
    wasmer_vm_throw,
};
use wasmer_vm::{Trap, VMContext, on_host_stack, raise_lib_trap, raise_user_trap};

use crate::reentrancy::{catch_up, is_late, note_exception, release_gil_of_guest};
use crate::stack::{give_up, is_short};

/// Bytes or elements from which on a check for a signal is worthwhile, because the operation takes at least as long as
/// the code around it.
const LONG: u32 = 256;
/// Bytes or elements from which on other threads may run Python meanwhile.
const VERY_LONG: u32 = 1 << 20;

/// Make the instance with this context use the functions of this module.
pub unsafe fn replace(context: *mut VMContext, offsets: &VMOffsets) {
    let ours = [
        (Index::get_memory_copy_index(), memory_copy as *const () as usize),
        (Index::get_memory_fill_index(), memory_fill as *const () as usize),
        (Index::get_memory_init_index(), memory_init as *const () as usize),
        (Index::get_table_copy_index(), table_copy as *const () as usize),
        (Index::get_table_fill_index(), table_fill as *const () as usize),
        (Index::get_table_init_index(), table_init as *const () as usize),
        (Index::get_table_get_index(), table_get as *const () as usize),
        (Index::get_table_set_index(), table_set as *const () as usize),
        (Index::get_imported_alloc_exception_index(), alloc_exception as *const () as usize),
        (Index::get_imported_throw_index(), throw as *const () as usize),
        (Index::get_memory_atomic_wait32_index(), wait as *const () as usize),
        (Index::get_memory_atomic_wait64_index(), wait as *const () as usize),
        (Index::get_memory_atomic_notify_index(), notify as *const () as usize),
        (Index::get_raise_trap_index(), raise_trap as *const () as usize),
        (Index::get_memory32_grow_index(), memory_grow as *const () as usize),
        (Index::get_table_grow_index(), table_grow as *const () as usize),
        (Index::get_data_drop_index(), data_drop as *const () as usize),
        (Index::get_elem_drop_index(), elem_drop as *const () as usize),
        (Index::get_memory32_size_index(), memory_size as *const () as usize),
        (Index::get_table_size_index(), table_size as *const () as usize),
        (Index::get_func_ref_index(), func_ref as *const () as usize),
    ];
    for (index, function) in ours {
        // SAFETY: the context has the address of the function at this offset.
        unsafe {
            context.cast::<u8>().add(offsets.vmctx_builtin_function(index) as usize).cast::<usize>().write(function)
        }
    }
}

/// End the guest's call if little of its stack is left: too little even to raise a trap.
#[inline]
unsafe fn make_sure_of_room() {
    if is_short() {
        unsafe { give_up() }
    }
}

/// Run `operation`, which handles `size` bytes or elements.
#[inline]
unsafe fn run(size: u32, operation: impl FnOnce()) {
    unsafe { make_sure_of_room() };
    if size >= VERY_LONG {
        on_host_stack(release_gil_of_guest);
    }
    operation();
    if size >= LONG { unsafe { look() } } else { unsafe { look_if_late() } }
}

/// End the guest's call if its deadline has passed.
#[inline]
unsafe fn look_if_late() {
    if is_late() {
        unsafe { look() }
    }
}

/// Do what a signal that arrived meanwhile would have done.
unsafe fn look() {
    if let Some(trap) = on_host_stack(|| catch_up().then(|| Trap::lib(TrapCode::HostInterrupt))) {
        unsafe { raise_lib_trap(trap) }
    }
}

unsafe extern "C" fn memory_copy(context: *mut VMContext, into: u32, from: u32, to: u32, source: u32, size: u32) {
    unsafe { run(size, || wasmer_vm_memory32_copy(context, into, from, to, source, size)) }
}

unsafe extern "C" fn memory_fill(context: *mut VMContext, memory: u32, to: u32, value: u32, size: u32) {
    unsafe { run(size, || wasmer_vm_memory32_fill(context, memory, to, value, size)) }
}

unsafe extern "C" fn memory_init(context: *mut VMContext, memory: u32, data: u32, to: u32, source: u32, size: u32) {
    unsafe { run(size, || wasmer_vm_memory32_init(context, memory, data, to, source, size)) }
}

unsafe extern "C" fn table_copy(context: *mut VMContext, into: u32, from: u32, to: u32, source: u32, size: u32) {
    unsafe { run(size, || wasmer_vm_table_copy(context, into, from, to, source, size)) }
}

// The type of a table's element is private: a union of one word.

unsafe extern "C" fn table_fill(context: *mut VMContext, table: u32, to: u32, item: u64, size: u32) {
    type Fill = unsafe extern "C" fn(*mut VMContext, u32, u32, u64, u32);
    unsafe {
        let fill: Fill = std::mem::transmute(wasmer_vm_table_fill as *const ());
        run(size, || fill(context, table, to, item, size))
    }
}

unsafe extern "C" fn table_get(context: *mut VMContext, table: u32, index: u32) -> u64 {
    type Get = unsafe extern "C" fn(*mut VMContext, u32, u32) -> u64;
    unsafe {
        make_sure_of_room();
        let get: Get = std::mem::transmute(wasmer_vm_table_get as *const ());
        let item = get(context, table, index);
        look_if_late();
        item
    }
}

unsafe extern "C" fn table_set(context: *mut VMContext, table: u32, index: u32, item: u64) {
    type Set = unsafe extern "C" fn(*mut VMContext, u32, u32, u64);
    unsafe {
        make_sure_of_room();
        let set: Set = std::mem::transmute(wasmer_vm_table_set as *const ());
        set(context, table, index, item);
        look_if_late()
    }
}

unsafe extern "C" fn table_grow(context: *mut VMContext, item: u64, size: u32, table: u32) -> u32 {
    type Grow = unsafe extern "C" fn(*mut VMContext, u64, u32, u32) -> u32;
    unsafe {
        make_sure_of_room();
        let grow: Grow = std::mem::transmute(wasmer_vm_table_grow as *const ());
        let before = grow(context, item, size, table);
        look();
        before
    }
}

unsafe extern "C" fn memory_grow(context: *mut VMContext, pages: u32, memory: u32) -> u32 {
    unsafe {
        make_sure_of_room();
        let before = wasmer_vm_memory32_grow(context, pages, memory);
        look();
        before
    }
}

unsafe extern "C" fn data_drop(context: *mut VMContext, data: u32) {
    unsafe {
        make_sure_of_room();
        wasmer_vm_data_drop(context, data);
        look_if_late()
    }
}

unsafe extern "C" fn elem_drop(context: *mut VMContext, elements: u32) {
    unsafe {
        make_sure_of_room();
        wasmer_vm_elem_drop(context, elements);
        look_if_late()
    }
}

unsafe extern "C" fn memory_size(context: *mut VMContext, memory: u32) -> u32 {
    unsafe {
        make_sure_of_room();
        look_if_late();
        wasmer_vm_memory32_size(context, memory)
    }
}

unsafe extern "C" fn table_size(context: *mut VMContext, table: u32) -> u32 {
    unsafe {
        make_sure_of_room();
        look_if_late();
        wasmer_vm_table_size(context, table)
    }
}

unsafe extern "C" fn func_ref(context: *mut VMContext, function: u32) -> u64 {
    type Refer = unsafe extern "C" fn(*mut VMContext, u32) -> u64;
    unsafe {
        make_sure_of_room();
        look_if_late();
        let refer: Refer = std::mem::transmute(wasmer_vm_func_ref as *const ());
        refer(context, function)
    }
}

/// The instruction `unreachable` calls this.
unsafe extern "C" fn raise_trap(code: TrapCode) -> ! {
    unsafe {
        make_sure_of_room();
        wasmer_vm_raise_trap(code)
    }
}

unsafe extern "C-unwind" fn alloc_exception(context: *mut VMContext, tag: u32) -> u32 {
    unsafe {
        make_sure_of_room();
        let exception = wasmer_vm_alloc_exception(context, tag);
        if !on_host_stack(note_exception) {
            refuse("the guest throws too many exceptions in one call");
        }
        look();
        exception
    }
}

unsafe extern "C-unwind" fn throw(context: *mut VMContext, exception: u32) -> ! {
    unsafe {
        make_sure_of_room();
        wasmer_vm_throw(context, exception)
    }
}

unsafe extern "C" fn table_init(context: *mut VMContext, table: u32, elements: u32, to: u32, source: u32, size: u32) {
    unsafe { run(size, || wasmer_vm_table_init(context, table, elements, to, source, size)) }
}

/// The error of an operation that guests may not perform.
#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Error for Refused {}

unsafe fn refuse(why: &'static str) -> ! {
    let error = on_host_stack(|| Box::new(Refused(why)));
    unsafe { raise_user_trap(error) }
}

unsafe extern "C" fn notify(context: *mut VMContext, memory: u32, at: u32, count: u32) -> u32 {
    unsafe {
        make_sure_of_room();
        wasmer_vm_memory32_atomic_notify(context, memory, at, count)
    }
}

unsafe extern "C" fn wait() -> u32 {
    unsafe {
        make_sure_of_room();
        refuse("the guest waits for another thread, which it does not have") // nothing could end this wait
    }
}

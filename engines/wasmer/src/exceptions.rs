//! Frees exceptions of WebAssembly, which Wasmer keeps as long as their instance, each with a backtrace.
//!
//! Guests that throw would use more and more memory of the host, outside of the guest's limit. So exceptions are freed
//! before the next outermost call, when the last of them has been handled, unless the module has a place that can hold
//! a reference to one. Until then, their number is limited.

use std::cell::Cell;
use std::ptr::null_mut;

use wasmer_types::{ModuleInfo, Type};
use wasmer_vm::{StoreObject, StoreObjects, VMExceptionObj};

/// How many frames all backtraces may have: some hundreds of megabytes.
const MAX_FRAMES: usize = 1 << 20;
/// How many frames an exception counts as, in addition to those of its backtrace.
const ITSELF: usize = 8;

/// The exceptions of one instance.
#[derive(Default)]
pub struct Exceptions {
    objects: Cell<Option<*mut StoreObjects>>,
    can_forget: Cell<bool>,
    frames: Cell<usize>,
}

impl Exceptions {
    /// Must be called before anything is thrown. `objects` must exist as long as guest code may run.
    pub fn prepare(&self, objects: *mut StoreObjects, module: &ModuleInfo) {
        let tables = module.tables.values().map(|table| table.ty);
        let kept = tables.chain(module.globals.values().map(|global| global.ty)).any(|kind| kind == Type::ExceptionRef);
        self.objects.set(Some(objects));
        self.can_forget.set(!kept);
    }

    /// Count the last exception. Returns whether it is within the limit.
    pub fn note(&self) -> bool {
        let objects = self.objects.get().unwrap_or(null_mut());
        // SAFETY: guest code runs, so the objects exist, and nothing changes them now.
        let last = unsafe { objects.as_ref() }.and_then(|objects| VMExceptionObj::list(objects).last());
        let frames = last.map_or(0, |exception| exception.backtrace().frames().len());
        self.frames.set(self.frames.get() + frames + ITSELF);
        self.frames.get() <= MAX_FRAMES
    }

    /// Free all exceptions. Must be called while no thread is inside.
    #[inline]
    pub fn forget(&self) {
        if self.frames.get() != 0 && self.can_forget.get() {
            self.clear();
        }
    }

    #[cold]
    fn clear(&self) {
        self.frames.set(0);
        if let Some(objects) = self.objects.get() {
            // SAFETY: the instance is about to be called, so the objects exist, and nothing else refers to them.
            VMExceptionObj::list_mut(unsafe { &mut *objects }).clear();
        }
    }
}

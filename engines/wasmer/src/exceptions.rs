//! Exceptions of WebAssembly, which Wasmer keeps as long as their instance, each with a backtrace.
//!
//! A guest that throws now and then would need more and more memory, and one that does little else all of it, whatever
//! the limit to its own. So they are let go of before the next outermost call, which is after the last of them has been
//! handled, if there is no place in the module where a reference to one could be; and until then there may be so many.

use std::cell::Cell;
use std::ptr::null_mut;

use wasmer_types::{ModuleInfo, Type};
use wasmer_vm::{StoreObject, StoreObjects, VMExceptionObj};

/// How many frames all backtraces may have: some hundred megabytes.
const MAX_FRAMES: usize = 1 << 20;
/// What an exception counts for beside its frames.
const ITSELF: usize = 8;

/// The exceptions of one instance.
#[derive(Default)]
pub struct Exceptions {
    objects: Cell<Option<*mut StoreObjects>>,
    can_forget: Cell<bool>,
    frames: Cell<usize>,
}

impl Exceptions {
    /// To be called before anything is thrown. `objects` has to live as long as anything can be.
    pub fn prepare(&self, objects: *mut StoreObjects, module: &ModuleInfo) {
        let tables = module.tables.values().map(|table| table.ty);
        let kept = tables.chain(module.globals.values().map(|global| global.ty)).any(|kind| kind == Type::ExceptionRef);
        self.objects.set(Some(objects));
        self.can_forget.set(!kept);
    }

    /// Note the last one. Returns whether it may be.
    pub fn note(&self) -> bool {
        let objects = self.objects.get().unwrap_or(null_mut());
        // SAFETY: guest code runs, so they are there, and nobody changes them now.
        let last = unsafe { objects.as_ref() }.and_then(|objects| VMExceptionObj::list(objects).last());
        let frames = last.map_or(0, |exception| exception.backtrace().frames().len());
        self.frames.set(self.frames.get() + frames + ITSELF);
        self.frames.get() <= MAX_FRAMES
    }

    /// Let go of all, if there are any. To be called while nobody is inside.
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
            // SAFETY: the instance is about to be called, so they are there, and nobody else has them.
            VMExceptionObj::list_mut(unsafe { &mut *objects }).clear();
        }
    }
}

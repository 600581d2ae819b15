//! A running module.

use std::cell::{RefCell, UnsafeCell};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use wasmer_compiler::{ArtifactCreate, BaseTunables, InstantiationError, Tunables};
use wasmer_types::{ExportIndex, ExternType, FunctionIndex, MemoryType, Pages, TableType, WASM_PAGE_SIZE};
use wasmer_vm::{
    MemoryError, MemoryStyle, StoreObjects, TableStyle, VMConfig, VMExtern, VMInstance, VMMemory, VMMemoryDefinition,
    VMTable, VMTableDefinition,
};

use crate::builtins;
use crate::deadline::Watch;
use crate::guest::guest_function;
use crate::host::{NativeEntry, host_function};
use crate::module::Module;
use crate::reentrancy::{CallState, closed};
use crate::switch::Function;

/// `PyBUF_WRITE`.
const WRITABLE: std::ffi::c_int = 0x200;

/// The objects of a guest, in the order in which they are freed.
struct Store {
    objects: Box<StoreObjects>,
    instance: VMInstance,
}

/// An instance of a module.
#[pyclass(frozen, module = "proxywasm_engine_wasmer._native")]
pub struct Instance {
    store: UnsafeCell<Option<Store>>,
    state: Box<CallState>,
    handlers: RefCell<Vec<Py<PyAny>>>,
    memory: Option<NonNull<VMMemoryDefinition>>,
    range: Box<Range>,
    module: Py<Module>,
}

/// `Proxywasm_memory` of `proxywasm_host.h`: the address of the guest's memory, and its size.
type Range = [AtomicU64; 2];

const _: () = assert!(size_of::<Range>() == 16);

// SAFETY: fields are accessed with the GIL held, or by the only thread inside.
unsafe impl Send for Instance {}
unsafe impl Sync for Instance {}

#[pymethods]
impl Instance {
    /// Run the module's start function. `ready` is called once, when the guest's memory is usable.
    fn start(&self, py: Python<'_>, ready: Py<PyAny>) -> PyResult<()> {
        let Module { artifact, start, .. } = self.module.get();
        let store = unsafe { &mut *self.store()? };
        let nothing = VMConfig { wasm_stack_size: None };
        // SAFETY: the instance has not been started, and the artifact has no start function, see `Module`.
        match unsafe { artifact.finish_instantiation(&nothing, None, &mut store.instance) } {
            Err(InstantiationError::Start(trap)) => return Err(self.state.failure(py, &trap)),
            Err(error) => return Err(PyValueError::new_err(error.to_string())),
            Ok(()) => self.state.ready.replace(Some(ready)),
        };
        if let Some(index) = start {
            let function = store.instance.lookup_by_declaration(ExportIndex::Function(FunctionIndex::from_u32(*index)));
            let VMExtern::Function(function) = function else { unreachable!("validated") };
            let function = Function::of(function.get(&store.objects));
            let called = unsafe { self.state.call(&function, null_mut()) };
            if self.state.is_left() {
                self.free();
            }
            called?;
        }
        self.state.be_ready(py)
    }

    /// The exported function `name` as a callable of numbers. Raises KeyError if it does not exist.
    fn function<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let store = slf.get().store()?;
        // SAFETY: nothing else accesses the store now, and a function found in it stays.
        let store = unsafe { &mut *store };
        match store.instance.lookup(name) {
            Some(VMExtern::Function(function)) => guest_function(slf, function.get(&store.objects)),
            _ => Err(PyKeyError::new_err(name.to_owned())),
        }
    }

    /// A new view of the exported memory named `memory`, not to be used after `close`. Updates the words of `range`.
    /// Raises RuntimeError if the memory does not exist any more.
    fn view<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let memory = self.memory().ok_or_else(closed)?;
        self.range[0].store(memory.base as u64, Relaxed);
        self.range[1].store(memory.current_length as u64, Relaxed);
        // SAFETY: a memory's style is static, so it neither moves nor shrinks.
        unsafe {
            let made = ffi::PyMemoryView_FromMemory(memory.base.cast(), memory.current_length as isize, WRITABLE);
            Bound::from_owned_ptr_or_err(py, made)
        }
    }

    /// The address of two words, which exist as long as this object: the address and number of the bytes in the last
    /// `view`. The number is 0 after `close`.
    fn range(&self) -> usize {
        (&raw const *self.range) as usize
    }

    /// The size of this memory in bytes; 0 if it does not exist any more.
    fn size(&self) -> usize {
        self.memory().map_or(0, |memory| memory.current_length)
    }

    /// Whether the module exports a memory named `memory`.
    fn has_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Free everything, or let the active call do so when it ends.
    ///
    /// Raises RuntimeError if another thread is inside.
    fn close(&self) -> PyResult<()> {
        let left = self.state.close()?;
        self.range[1].store(0, Relaxed);
        if left {
            self.free();
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for handler in self.handlers.borrow().iter() {
            visit.call(handler)?;
        }
        visit.call(&*self.state.ready.borrow())?;
        visit.call(&self.state.failed)
    }

    fn __clear__(&self) {
        if self.state.close().unwrap_or(false) {
            self.free();
        }
    }
}

impl Instance {
    pub fn make<'py>(
        module: &Bound<'py, Module>,
        handlers: &Bound<'py, PyList>,
        failed: Py<PyAny>,
        memory: Option<u64>,
        deadline: Option<f64>,
    ) -> PyResult<Bound<'py, Self>> {
        let Module { artifact, code, engine, .. } = module.get();
        let state = Box::new(CallState::new(failed, Watch::new(deadline, code.clone())));
        let mut objects = Box::new(StoreObjects::default());
        let mut imports = Vec::with_capacity(handlers.len());
        for (handler, import) in handlers.iter().zip(artifact.module_info().imports()) {
            let ExternType::Function(signature) = import.ty() else { continue };
            let hash = engine.register_signature(signature);
            let entry = NativeEntry::of(&handler, signature)?;
            imports.push(host_function(&mut objects, signature, hash, handler.as_ptr(), entry, &*state));
        }
        let maximum = memory.map(|bytes| Pages(u32::try_from(bytes / WASM_PAGE_SIZE as u64).unwrap_or(u32::MAX)));
        let tunables = Limited { base: BaseTunables::new(), maximum };
        // SAFETY: all imports belong to `objects`, which does not move.
        let made = unsafe { artifact.instantiate(&tunables, &imports, &mut objects) };
        let mut instance = made.map_err(|error| PyValueError::new_err(error.to_string()))?;
        // SAFETY: nothing runs in it yet.
        unsafe { builtins::replace(instance.vmctx_ptr(), instance.vmoffsets()) };
        let memory = match instance.lookup("memory") {
            Some(VMExtern::Memory(memory)) => Some(memory.get(&objects).0.vmmemory()),
            _ => None,
        };
        state.exceptions.prepare(&raw mut *objects, artifact.module_info());
        let made = Self {
            store: UnsafeCell::new(Some(Store { objects, instance })),
            state,
            handlers: RefCell::new(handlers.iter().map(Bound::unbind).collect()),
            memory,
            range: Box::default(),
            module: module.clone().unbind(),
        };
        Bound::new(module.py(), made)
    }

    pub fn state(&self) -> *const CallState {
        &*self.state
    }

    /// Free everything except the state that records that it is closed.
    pub fn free(&self) {
        self.range[1].store(0, Relaxed);
        Python::attach(|_| {
            // SAFETY: no thread is inside. The store is taken out first, because freed objects may call this again.
            drop(unsafe { (*self.store.get()).take() });
            drop(self.handlers.take());
            drop(self.state.ready.take());
        });
    }

    fn store(&self) -> PyResult<*mut Store> {
        unsafe { &mut *self.store.get() }.as_mut().map(|store| &raw mut *store).ok_or_else(closed)
    }

    fn memory(&self) -> Option<&VMMemoryDefinition> {
        self.store().ok()?;
        // SAFETY: the memory is in the store.
        self.memory.map(|memory| unsafe { memory.as_ref() })
    }
}

/// Makes memories and tables, with a limit for memories.
struct Limited {
    base: BaseTunables,
    maximum: Option<Pages>,
}

impl Limited {
    fn limit(&self, memory: &MemoryType) -> MemoryType {
        let maximum = memory.maximum.into_iter().chain(self.maximum).min();
        MemoryType { maximum: maximum.map(|pages| pages.min(Pages::max_value())), ..*memory }
    }
}

impl Tunables for Limited {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(&self, memory: &MemoryType, style: &MemoryStyle) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(&self.limit(memory), style)
    }

    unsafe fn create_vm_memory(
        &self,
        memory: &MemoryType,
        style: &MemoryStyle,
        place: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        unsafe { self.base.create_vm_memory(&self.limit(memory), style, place) }
    }

    fn create_host_table(&self, table: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(table, style)
    }

    unsafe fn create_vm_table(
        &self,
        table: &TableType,
        style: &TableStyle,
        place: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        unsafe { self.base.create_vm_table(table, style, place) }
    }
}

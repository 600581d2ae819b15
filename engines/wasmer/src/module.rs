//! Compiled code.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::thread::available_parallelism;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use rayon::ThreadPoolBuilder;
use wasmer_compiler::{Artifact, ArtifactCreate, Engine, EngineBuilder};
use wasmer_compiler_cranelift::{Cranelift, CraneliftOptLevel};
use wasmer_types::{ExternType, Type};

use crate::instance::Instance;

/// Changes when this file changes, because the result of `Module.serialise` may change too.
pub const FINGERPRINT: u64 = fingerprint(include_bytes!("module.rs"));

type Signature = (Vec<&'static str>, Vec<&'static str>);

/// A module that Wasmer has compiled. It owns its engine, because an engine keeps all code that it has compiled.
#[pyclass(frozen, module = "proxywasm_engine_wasmer._native")]
pub struct Module {
    pub artifact: Arc<Artifact>,
    /// The range of the code of the guest's functions.
    pub code: Range<usize>,
    pub engine: Engine,
    /// The index of the start function. It is hidden from Wasmer, which would call it on another stack.
    pub start: Option<u32>,
}

#[pymethods]
impl Module {
    /// Module, name, kind and (for functions) type of each import.
    fn imports(&self) -> Vec<(String, String, &'static str, Option<Signature>)> {
        let describe = |import: wasmer_types::ImportType| {
            let (kind, signature) = describe(import.ty());
            (import.module().into(), import.name().into(), kind, signature)
        };
        self.artifact.module_info().imports().map(describe).collect()
    }

    /// Name, kind and (for functions) type of each export.
    fn exports(&self) -> Vec<(String, &'static str, Option<Signature>)> {
        let describe = |export: wasmer_types::ExportType| {
            let (kind, signature) = describe(export.ty());
            (export.name().into(), kind, signature)
        };
        self.artifact.module_info().exports().map(describe).collect()
    }

    /// The name of the module, if it has one.
    fn name(&self) -> Option<&str> {
        self.artifact.module_info().name.as_deref()
    }

    /// Initial size of the linear memory in bytes.
    fn initial_memory(&self) -> u64 {
        let memories = self.artifact.module_info().memories.values();
        memories.map(|memory| memory.minimum.bytes().0 as u64).max().unwrap_or(0)
    }

    /// The compiled code as bytes, after the index of the start function, or all ones.
    fn serialise<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let start = self.start.map_or(u64::MAX, u64::from).to_le_bytes();
        let bytes = py.detach(|| self.artifact.serialize().map(|code| [&start, &code[..]].concat()));
        bytes.map(|bytes| PyBytes::new(py, &bytes)).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    /// Make an instance, without running its start function.
    ///
    /// `handlers` has a callable for each import. `failed` makes the exception for a trap: its arguments are code,
    /// message and frames (function, offset). Raises ValueError if another memory cannot be reserved.
    #[pyo3(signature = (handlers, failed, memory=None, deadline=None))]
    fn instantiate<'py>(
        slf: &Bound<'py, Self>,
        handlers: &Bound<'py, PyList>,
        failed: Py<PyAny>,
        memory: Option<u64>,
        deadline: Option<f64>,
    ) -> PyResult<Bound<'py, Instance>> {
        Instance::make(slf, handlers, failed, memory, deadline)
    }
}

impl Module {
    fn new(engine: Engine, artifact: Arc<Artifact>, start: Option<u32>) -> Self {
        let extents = artifact.finished_function_extents().unwrap_or_default();
        let first = extents.iter().map(|(_, extent)| extent.ptr.0 as usize).min().unwrap_or(0);
        let end = extents.iter().map(|(_, extent)| extent.ptr.0 as usize + extent.length).max().unwrap_or(0);
        let code = first..end;
        Self { artifact, code, engine, start }
    }
}

/// Validate and compile a module. Raises ValueError.
#[pyfunction]
pub fn compile(py: Python<'_>, bytecode: &[u8], optimise: bool, parallel: bool) -> PyResult<Module> {
    let threads =
        if parallel { available_parallelism().unwrap_or(NonZero::<usize>::MIN) } else { NonZero::<usize>::MIN };
    let work = || {
        let engine = engine(optimise, threads);
        engine.validate(bytecode).map_err(|error| error.to_string())?;
        // Rayon's global pool does not work in a child process, which does not have its threads.
        let pool = ThreadPoolBuilder::new().num_threads(threads.get()).build().map_err(|error| error.to_string())?;
        let (bytecode, start) = without_start(bytecode.to_vec()).ok_or("the module ends within a section")?;
        let artifact = pool.install(|| engine.compile(&bytecode)).map_err(|error| error.to_string())?;
        Ok(Module::new(engine, artifact, start))
    };
    py.detach(work).map_err(|error: String| PyValueError::new_err(error))
}

/// Load the result of `Module.serialise`. Raises ValueError.
#[pyfunction]
pub fn deserialise(py: Python<'_>, compiled: &[u8]) -> PyResult<Module> {
    let work = || {
        let engine = engine(true, NonZero::<usize>::MIN);
        // SAFETY: the caller guarantees that the bytes come from a trusted source; their layout is checked.
        let (start, code) = compiled.split_first_chunk().ok_or("there is no compiled code")?;
        let artifact = unsafe { engine.deserialize(code.to_vec().into()) }.map_err(|error| error.to_string())?;
        Ok(Module::new(engine, artifact, u32::try_from(u64::from_le_bytes(*start)).ok()))
    };
    py.detach(work).map_err(|error: String| PyValueError::new_err(error))
}

/// Replace the start section of a valid module with a custom section of the same size, so that all offsets stay the
/// same. Returns the module and the index of its start function.
fn without_start(mut bytecode: Vec<u8>) -> Option<(Vec<u8>, Option<u32>)> {
    const HEAD: usize = 8;
    const CUSTOM: u8 = 0;
    const START: u8 = 8;
    let (mut at, mut start) = (HEAD, None);
    while at < bytecode.len() {
        let (size, content) = number(&bytecode, at + 1)?;
        if bytecode[at] == START {
            start = Some(number(&bytecode, content)?.0);
            bytecode[at] = CUSTOM;
            *bytecode.get_mut(content)? = 0; // the length of the section's name
        }
        at = content + size as usize;
    }
    Some((bytecode, start))
}

/// The LEB128 number at `at`, and the position after it.
fn number(bytes: &[u8], mut at: usize) -> Option<(u32, usize)> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *bytes.get(at)?;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        (at, shift) = (at + 1, shift + 7);
        if byte < 0x80 {
            return Some((number, at));
        }
    }
}

fn engine(optimise: bool, threads: NonZero<usize>) -> Engine {
    let mut config = Cranelift::new();
    config.opt_level(if optimise { CraneliftOptLevel::Speed } else { CraneliftOptLevel::None });
    config.num_threads(threads);
    EngineBuilder::new(config).engine()
}

fn describe(item: &ExternType) -> (&'static str, Option<Signature>) {
    let names = |types: &[Type]| types.iter().copied().map(type_name).collect();
    match item {
        ExternType::Function(item) => ("function", Some((names(item.params()), names(item.results())))),
        ExternType::Memory(_) => ("memory", None),
        ExternType::Table(_) => ("table", None),
        ExternType::Global(_) => ("global", None),
        ExternType::Tag(_) => ("tag", None),
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::V128 => "v128",
        Type::ExternRef => "externref",
        Type::FuncRef => "funcref",
        Type::ExceptionRef => "exnref",
    }
}

/// The FNV-1a hash of `source`.
const fn fingerprint(source: &[u8]) -> u64 {
    let (mut number, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < source.len() {
        number = (number ^ source[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    number
}

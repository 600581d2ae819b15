//! Wasmer as a Python extension: modules, instances and calls of plain numbers. What Python should see of it is made
//! in the Python package around it; no ABI above WebAssembly is known here.
//!
//! This stands on the crates beneath `wasmer`: their functions and memories are plain addresses, so that calls nest
//! without a store that has to be borrowed, and cost a third.

mod builtins;
mod deadline;
mod exceptions;
mod guest;
mod host;
mod instance;
mod module;
mod reentrancy;
mod signals;
mod stack;
mod switch;
mod values;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("this engine is for Linux on x86-64 and ARM64");

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    signals::install(module.py());
    module.add("VERSION", wasmer_vm::VERSION)?;
    module.add("FINGERPRINT", module::FINGERPRINT)?;
    module.add("NATIVE_ABI", 1)?; // as in proxywasm_host.h, and in the names of its capsules
    module.add_class::<module::Module>()?;
    module.add_class::<instance::Instance>()?;
    module.add_function(wrap_pyfunction!(module::compile, module)?)?;
    module.add_function(wrap_pyfunction!(module::deserialise, module)?)?;
    module.add_function(wrap_pyfunction!(deadline::after_fork, module)?)?;
    module.add_function(wrap_pyfunction!(signals::handlers_changed, module)?)?;
    Ok(())
}

//! Wasmer as a Python extension: modules, instances and calls with plain numbers. The Python package around it has the
//! public interface; this crate does not depend on any ABI above WebAssembly.
//!
//! It uses the crates below `wasmer`. Their functions and memories are plain addresses, so calls nest without borrowing
//! a store, and take a third of the time.

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

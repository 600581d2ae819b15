//! A substitute for the linker of this name, which `wasmer-compiler` needs only for artifacts in the ELF format.
//!
//! This engine never makes such artifacts, but the linker would take as long to build as everything else. This crate
//! has the part of its interface that `wasmer-compiler` uses, and refuses to link.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod error {
    //! Errors.

    /// An error with a message.
    #[derive(Debug)]
    pub struct Error(pub String);

    impl From<String> for Error {
        fn from(message: String) -> Self {
            Self(message)
        }
    }

    pub type Result<T = (), E = Error> = std::result::Result<T, E>;
}

/// An error with a formatted message.
#[macro_export]
macro_rules! error {
    ($($part:tt)*) => {
        $crate::error::Error(format!($($part)*))
    };
}

pub trait InputFileData: Send + Sync + 'static {
    fn bytes(&self) -> &[u8];
}

pub trait OutputFileData: Send + 'static {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
    fn finish(self) -> error::Result;
}

pub enum FileType {
    File,
}

pub struct OutputOptions {
    pub size: u64,
}

pub trait FileSystem: Send + Sync + 'static {
    type Input: InputFileData;
    type Output: OutputFileData;

    fn open_input(&self, path: &Path, populate: bool) -> error::Result<(Self::Input, Option<Arc<File>>)>;
    fn file_type(&self, path: &Path) -> error::Result<FileType>;
    fn canonicalize(&self, path: &Path) -> error::Result<PathBuf>;
    fn remove_file(&self, path: &Path) -> error::Result;
    fn rename_file(&self, path: &Path, new_path: &Path) -> error::Result;
    fn create_output(&self, path: Arc<Path>, options: OutputOptions) -> error::Result<Self::Output>;
    fn write_auxiliary(&self, path: &Path, bytes: &[u8]) -> error::Result;
}

pub struct Args;

impl Args {
    pub fn new<'a, I: Iterator<Item = &'a str>>(_: impl Fn() -> I) -> error::Result<Self> {
        Err(error!("this build of Wasmer has no linker"))
    }

    pub fn parse<'a, I: Iterator<Item = &'a str>>(&mut self, _: impl Fn() -> I) -> error::Result {
        Ok(())
    }
}

pub struct Linker<F>(F);

impl<F: FileSystem> Linker<F> {
    pub fn with_file_system(files: F) -> Self {
        Self(files)
    }

    pub fn run(&self, _: &Args) -> error::Result {
        let _ = &self.0;
        Err(error!("this build of Wasmer has no linker"))
    }
}

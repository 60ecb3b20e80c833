//! The operating system's side: the only `unsafe` code of this crate.

#![allow(unsafe_code)]

pub(crate) mod block;
pub(crate) mod bounce;
pub mod dest;
pub mod direct;
pub(crate) mod elements;
pub mod file;
pub mod file_system;
pub(crate) mod huge_pages;
pub mod memory;
pub mod mmap;
pub mod output;
pub mod residency;
pub mod source;
pub(crate) mod strided;
mod transpose;
#[cfg(all(feature = "uring", target_os = "linux"))]
pub(crate) mod uring;

//! The operating system's side: the only `unsafe` code of this crate.

#![allow(unsafe_code)]

pub mod dest;
pub mod direct;
pub mod file;
pub mod mmap;
pub mod output;
pub mod source;

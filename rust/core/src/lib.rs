//! The engine of windlass: safetensors checkpoints, read at the speed of the hardware.
//!
//! No Python, no torch, no printing. The way of a byte:
//!
//! 1. [`header`] and [`index`] turn bytes into validated tables (pure);
//! 2. [`Checkpoint`] opens one file or many shards as one table name → place;
//! 3. [`plan`] turns "these tensors" into merged, chunked reads (pure);
//! 4. [`read`] carries the plan out on threads, straight into memory the caller owns;
//! 5. [`save`] writes from such memory, and replaces the old checkpoint whole or not at all.
//!
//! The way out begins with [`shard`]: which tensor goes into which file (pure).
//!
//! ```
//! use windlass_core::{Checkpoint, Control, Dest, Job, ReadOptions, Strictness};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.safetensors");
//! # let text = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}   "#;
//! # let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
//! # bytes.extend_from_slice(text);
//! # bytes.extend_from_slice(&[1, 2, 3, 4]);
//! # std::fs::write(&path, bytes)?;
//! let checkpoint = Checkpoint::open_file(&path, Strictness::Reference)?;
//! let tensor = checkpoint.position("w")?;
//!
//! let mut memory = [0_u8; 4];
//! let job = Job { tensor, start: 0, dest: Dest::from_slice(&mut memory).into() };
//! checkpoint.read_into(vec![job], &ReadOptions::default(), &Control::default())?;
//! assert_eq!(memory, [1, 2, 3, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs)]

pub mod alias;
pub mod checkpoint;
mod checksum;
pub mod convert;
pub mod copy;
pub mod dtype;
pub mod error;
pub mod header;
pub mod index;
pub mod names;
pub mod overlap;
pub mod plan;
pub mod read;
pub mod runs;
pub mod save;
pub mod shard;
pub mod spans;
pub mod sys;
pub mod tensor;

pub use checkpoint::{Checkpoint, Located, Shard};
pub use dtype::Dtype;
pub use error::{Error, FormatError, IndexError, Result};
pub use header::{Header, NewTensor, Strictness};
pub use index::Index;
pub use names::ByName;
pub use read::{
    Ahead, BlockReader, Cache, Control, Cut, CutJob, Io, Job, JobDest, Place, Prefetch,
    ReadOptions, ReadStats, Spare, Way, Ways,
};
pub use save::{Family, Save, SaveOptions};
pub use sys::dest::Dest;
pub use sys::mmap::Mapping;
pub use sys::source::Source;
pub use tensor::TensorInfo;

//! Durable saves write whole blocks past the page cache, and what is left through it; nobody can
//! tell from the bytes.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::naive_read;
use builders::saving::{new_file, new_tensor};
use builders::scenes::{plain, temporary_folder};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use windlass_core::save::{Disk, IndexTexts, Part, RealDisk};
use windlass_core::{Control, Save, SaveOptions, Source};

const BLOCK: usize = 4096;

/// A real disk that counts the bytes that a durable save writes through the page cache. Where there
/// are no direct writes, plain ones take their place.
#[derive(Debug, Default)]
struct Counting {
    cached: AtomicU64,
    /// A length of blocks that is too short for any disk: it refuses writes of such.
    told: Option<usize>,
}

impl Disk for Counting {
    fn open_direct(&self, file: &File) -> Option<(File, usize)> {
        let real = RealDisk.open_direct(file);
        let (file, block) = real.unwrap_or_else(|| (file.try_clone().unwrap(), BLOCK));
        Some((file, self.told.unwrap_or(block)))
    }

    fn start_write_back(&self, _: &File, _: u64, len: u64) -> io::Result<()> {
        self.cached.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

/// Tensors that begin and end anywhere, of several windows and of less than a block.
fn tensors() -> Vec<(&'static str, Vec<u8>)> {
    let lens = [("a", (5 << 20) + 3), ("b", 5), ("c", 3 << 20), ("d", 0), ("e", BLOCK - 7)];
    let byte = |i: usize| u8::try_from(i * 167 / 13 % 251).unwrap();
    lens.map(|(name, len)| (name, (len..2 * len).map(byte).collect())).into()
}

/// Saves with so many threads, each tensor in so many calls; returns how many bytes went through the
/// page cache.
fn save(disk: Counting, threads: usize, calls: usize) -> u64 {
    let (folder, disk) = (temporary_folder(), Arc::new(disk));
    let (path, tensors) = (folder.path().join("a"), tensors());
    let new = tensors.iter().map(|(name, bytes)| new_tensor(name, bytes.len() as u64));
    let options = SaveOptions { disk: disk.clone(), durable: true, ..plain(true) };
    let save = Save::file(&path, new_file("", new.collect()), options).unwrap();
    for call in 0..calls {
        let mut parts = Vec::new();
        for (name, bytes) in &tensors {
            let (start, end) = (bytes.len() * call / calls, bytes.len() * (call + 1) / calls);
            let (tensor, source) = (save.position(0, name).unwrap(), &bytes[start..end]);
            let (start, source) = (start as u64, Source::from_slice(source).into());
            parts.push(Part { file: 0, tensor, start, source });
        }
        save.write(parts, threads, &Control::default()).unwrap();
    }
    save.commit(&IndexTexts::default(), &Control::default()).unwrap();
    let expected = tensors.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    assert!(naive_read(&path) == expected.collect(), "{disk:?}, {threads} threads, {calls} calls");
    disk.cached.load(Ordering::Relaxed)
}

#[test]
fn all_but_the_blocks_at_both_ends_goes_past_the_page_cache() {
    for threads in [0, 1, 5] {
        let cached = save(Counting::default(), threads, 1);
        assert!(cached < 2 * BLOCK as u64, "{cached} bytes with {threads} threads");
    }
}

#[test]
fn blocks_may_come_in_several_calls() {
    for calls in [2, 3, 7] {
        // In each call, each tensor has two ends.
        let cached = save(Counting::default(), 4, calls);
        assert!(cached < (calls * tensors().len() * 2 * BLOCK) as u64, "{cached} bytes");
    }
}

#[test]
fn what_the_disk_refuses_goes_through_the_page_cache() {
    for told in [8, 64] {
        save(Counting { told: Some(told), ..Counting::default() }, 3, 2);
    }
}

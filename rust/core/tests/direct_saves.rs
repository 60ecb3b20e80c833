//! Durable saves write whole blocks past the page cache, and what is left through it; nobody can
//! tell from the bytes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::naive_read;
use builders::saving::{family, file_names, new_file, new_tensor};
use builders::scenes::{plain, temporary_folder};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use windlass_core::save::{Disk, IndexTexts, Part, RealDisk};
use windlass_core::sys::direct::stop_direct;
use windlass_core::{Control, Error, Result, Save, SaveOptions, Source};

const BLOCK: usize = 4096;

/// What happens to a write past the page cache.
#[derive(Clone, Copy, Debug, Default)]
enum Fate {
    #[default]
    Whole,
    /// The disk takes so many bytes of it.
    Short(usize),
    /// It ends with this error.
    Fails(i32),
}

/// A real disk that counts the bytes that a durable save writes through the page cache.
#[derive(Debug)]
struct Counting {
    cached: AtomicU64,
    /// How often a file can still be opened for writes past it.
    openings: AtomicUsize,
    fate: Fate,
}

impl Counting {
    fn new(openings: usize, fate: Fate) -> Self {
        Self { cached: AtomicU64::default(), openings: AtomicUsize::new(openings), fate }
    }
}

/// Where there are no direct writes, plain ones take their place, by a file with a mark.
fn open_marked(file: &File) -> (File, usize) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    (file.unwrap(), BLOCK)
}

fn is_direct(file: &File) -> bool {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    flags & (libc::O_DIRECT | libc::O_NONBLOCK) != 0
}

impl Disk for Counting {
    fn open_direct(&self, file: &File) -> Option<(File, usize)> {
        let one_less = |left: usize| left.checked_sub(1);
        self.openings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        Some(RealDisk.open_direct(file).unwrap_or_else(|| open_marked(file)))
    }

    fn write_some(&self, file: &File, offset: u64, sources: &[Source<'_>]) -> io::Result<usize> {
        match self.fate {
            Fate::Fails(code) if is_direct(file) => Err(io::Error::from_raw_os_error(code)),
            Fate::Short(count) if is_direct(file) => {
                stop_direct(file)?; // A part of a block is written as the kernel would.
                let mut blocks = sources[0];
                let part = blocks.split_off_front(count.min(blocks.len()));
                RealDisk.write_some(file, offset, &[part])
            }
            _ => RealDisk.write_some(file, offset, sources),
        }
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
fn save(disk: Counting, threads: usize, calls: usize) -> Result<u64> {
    let (folder, disk) = (temporary_folder(), Arc::new(disk));
    let (path, tensors) = (folder.path().join("a"), tensors());
    let new = tensors.iter().map(|(name, bytes)| new_tensor(name, bytes.len() as u64));
    let options = SaveOptions { disk: disk.clone(), durable: true, ..plain(true) };
    let save = Save::file(&path, new_file("", new.collect()), options)?;
    for call in 0..calls {
        let mut parts = Vec::new();
        for (name, bytes) in &tensors {
            let (start, end) = (bytes.len() * call / calls, bytes.len() * (call + 1) / calls);
            let (tensor, source) = (save.position(0, name)?, &bytes[start..end]);
            let (start, source) = (start as u64, Source::from_slice(source).into());
            parts.push(Part { file: 0, tensor, start, source });
        }
        save.write(parts, threads, &Control::default())?;
    }
    save.commit(&IndexTexts::default(), &Control::default())?;
    let expected = tensors.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    assert!(naive_read(&path) == expected.collect(), "{disk:?}, {threads} threads, {calls} calls");
    Ok(disk.cached.load(Ordering::Relaxed))
}

#[test]
fn all_but_the_blocks_at_both_ends_goes_past_the_page_cache() {
    for threads in [0, 1, 5] {
        let cached = save(Counting::new(usize::MAX, Fate::Whole), threads, 1).unwrap();
        assert!(cached < 2 * BLOCK as u64, "{cached} bytes with {threads} threads");
    }
}

#[test]
fn blocks_may_come_in_several_calls() {
    for calls in [2, 3, 7] {
        // In each call, each tensor has two ends.
        let cached = save(Counting::new(usize::MAX, Fate::Whole), 4, calls).unwrap();
        assert!(cached < (calls * tensors().len() * 2 * BLOCK) as u64, "{cached} bytes");
    }
}

#[test]
fn what_is_refused_or_cut_short_goes_through_the_page_cache() {
    let all: usize = tensors().iter().map(|(_, bytes)| bytes.len()).sum();
    let fates = [
        Counting::new(usize::MAX, Fate::Fails(libc::EINVAL)),
        Counting::new(usize::MAX, Fate::Short(5000)),
        Counting::new(0, Fate::Whole),
        Counting::new(2, Fate::Whole), // One to see whether there are such writes, and one more.
    ];
    for disk in fates {
        let asked = format!("{disk:?}");
        let cached = save(disk, 3, 1).unwrap();
        assert!(cached > all as u64 / 2, "{asked}: {cached} bytes");
    }
}

#[test]
fn an_error_of_the_disk_is_told_and_not_tried_again_through_the_page_cache() {
    for code in [libc::EIO, libc::ENOSPC] {
        let error = save(Counting::new(usize::MAX, Fate::Fails(code)), 3, 1).unwrap_err();
        let Error::Save { action, source, .. } = error else { panic!("{error}") };
        assert_eq!((action, source.raw_os_error()), ("writing", Some(code)));
    }
}

#[test]
fn files_that_are_closed_until_they_are_written_to_are_opened_for_both_ways() {
    const COUNT: usize = 150; // More than are kept open.
    let temporary = temporary_folder();
    let bytes = vec![7; 2 * BLOCK + 5];
    let names = file_names(COUNT);
    let file = |name: &String| new_file(name, vec![new_tensor(name, bytes.len() as u64)]);
    let disk = Arc::new(Counting::new(usize::MAX, Fate::Whole));
    let options = SaveOptions { disk: disk.clone(), durable: true, ..plain(true) };
    let (files, control) = (names.iter().map(file).collect(), Control::default());
    let save = Save::folder(temporary.path(), family(), files, options, &control).unwrap();
    let source = Source::from_slice(&bytes);
    let part = |file| Part { file, tensor: 0, start: 0, source: source.into() };
    save.write((0..COUNT).map(part).collect(), 0, &control).unwrap();
    let cached = disk.cached.load(Ordering::Relaxed);
    assert!(cached < (COUNT * 2 * BLOCK) as u64, "{cached} bytes");
    for file in 0..COUNT {
        let staged = fs::read(save.staged_path(file)).unwrap();
        assert!(staged.ends_with(&bytes), "{}", save.staged_path(file).display());
    }
}

//! Folders as a save may find them.

use super::faulty_disk::FaultyDisk;
use super::saving::{file_names, index, options, save, save_file};
use super::seen::{FOREIGN_INDEX, INDEX, SINGLE};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use windlass_core::SaveOptions;

/// What is in a folder before a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Nothing,
    Single,
    Sharded(usize),
    /// A single file and a sharded checkpoint, of different values.
    Both,
    /// Shards in the work folder of a save on a file system without hard links.
    Kept(usize),
    /// A single file, and an index that names it.
    IndexedSingle,
    /// A whole checkpoint in a file that is called like a shard, and no index.
    Stray,
    /// A single file, and shards that no index names.
    SingleAndStrays,
    /// Shards, and their index by its foreign name.
    ForeignIndex(usize),
    /// Shards, and their index by both names.
    BothIndexes(usize),
    /// A single file and a sharded checkpoint of different values, its index by its foreign name.
    SingleAndForeignIndex(usize),
    /// A single file, and an index by its foreign name that names it.
    ForeignIndexOfSingle,
}

impl Start {
    pub(crate) const ALL: [Self; 14] = [
        Self::Nothing,
        Self::Single,
        Self::Sharded(2),
        Self::Sharded(3),
        Self::Both,
        Self::Kept(2),
        Self::IndexedSingle,
        Self::Stray,
        Self::SingleAndStrays,
        Self::ForeignIndex(2),
        Self::ForeignIndex(3),
        Self::BothIndexes(2),
        Self::SingleAndForeignIndex(2),
        Self::ForeignIndexOfSingle,
    ];

    pub(crate) fn build(self) -> TempDir {
        let temporary = temporary_folder();
        let folder = temporary.path();
        let single = folder.join(SINGLE);
        match self {
            Self::Nothing => {}
            Self::Single => save(folder, 1, 1, plain(true)).unwrap(),
            Self::Sharded(count) => save(folder, count, 2, plain(true)).unwrap(),
            Self::Both => {
                save(folder, 2, 2, plain(true)).unwrap();
                save_file(&single, 1, plain(true)).unwrap();
            }
            Self::Kept(count) => save(folder, count, 3, plain(false)).unwrap(),
            Self::IndexedSingle => {
                save(folder, 1, 1, plain(true)).unwrap();
                fs::write(folder.join(INDEX), index(&file_names(1), str::to_owned)).unwrap();
            }
            Self::Stray => save_file(&folder.join(&file_names(2)[0]), 4, plain(true)).unwrap(),
            Self::SingleAndStrays => {
                save(folder, 3, 4, plain(true)).unwrap();
                save_file(&single, 1, plain(true)).unwrap();
                fs::remove_file(folder.join(INDEX)).unwrap();
            }
            Self::ForeignIndex(count) => {
                save(folder, count, 2, plain(true)).unwrap();
                fs::rename(folder.join(INDEX), folder.join(FOREIGN_INDEX)).unwrap();
            }
            Self::BothIndexes(count) => {
                save(folder, count, 2, plain(true)).unwrap();
                fs::copy(folder.join(INDEX), folder.join(FOREIGN_INDEX)).unwrap();
            }
            Self::SingleAndForeignIndex(count) => {
                save(folder, count, 2, plain(true)).unwrap();
                fs::rename(folder.join(INDEX), folder.join(FOREIGN_INDEX)).unwrap();
                save_file(&single, 1, plain(true)).unwrap();
            }
            Self::ForeignIndexOfSingle => {
                save(folder, 1, 1, plain(true)).unwrap();
                let text = index(&file_names(1), str::to_owned);
                fs::write(folder.join(FOREIGN_INDEX), text).unwrap();
            }
        }
        temporary
    }
}

/// An empty folder, in memory where there is one: these tests make many thousand files.
pub(crate) fn temporary_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Options of a save in which nothing fails.
pub(crate) fn plain(links: bool) -> SaveOptions {
    options(Arc::new(FaultyDisk::faultless(links)), false)
}

/// A copy with files and times of its own.
pub(crate) fn copy_of(folder: &Path) -> TempDir {
    let copy = temporary_folder();
    copy_into(folder, copy.path());
    copy
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// What a foreign writer writes: shards, then the index over them.
pub(crate) fn foreign_save(folder: &Path, count: usize, value: u8) {
    let names = file_names(count);
    let elsewhere = temporary_folder();
    save(elsewhere.path(), count, value, plain(true)).unwrap();
    for name in &names {
        fs::write(folder.join(name), fs::read(elsewhere.path().join(name)).unwrap()).unwrap();
    }
    if count > 1 {
        fs::write(folder.join(INDEX), index(&names, str::to_owned)).unwrap();
    }
}

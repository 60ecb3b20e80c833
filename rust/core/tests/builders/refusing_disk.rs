//! [`Refusing`]: a real disk on which some things always fail; saves that are begun and committed on it.

use super::saving::{family, file_names, index, new_file, new_tensor};
use super::scenes::plain;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use windlass_core::save::{self as saves, Disk, IndexTexts, Part, RealDisk};
use windlass_core::{Control, Result, Save, SaveOptions, Source};

/// A disk on which some things always end with the same error; it notes what was asked of it.
#[derive(Debug, Default)]
pub(crate) struct Refusing {
    pub(crate) close: Option<i32>,
    pub(crate) link: Option<i32>,
    pub(crate) lock: Option<i32>,
    pub(crate) remove_folder: Option<i32>,
    pub(crate) set_mode: Option<i32>,
    pub(crate) sync_folder: Option<i32>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Refusing {
    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap().to_str().unwrap();
        self.asked.lock().unwrap().push(format!("{what} {name}"));
    }
}

fn refused(code: Option<i32>) -> io::Result<()> {
    code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

impl Disk for Refusing {
    fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.note(&format!("create {mode:o}"), path);
        RealDisk.create_file(path, mode)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.asked.lock().unwrap().push(format!("mode {mode:o}"));
        refused(self.set_mode)?;
        RealDisk.set_mode(file, mode)
    }

    fn close(&self, file: File) -> io::Result<()> {
        self.asked.lock().unwrap().push("close".to_owned());
        RealDisk.close(file)?;
        refused(self.close)
    }

    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        refused(self.lock).map_err(TryLockError::Error)?;
        RealDisk.try_lock(file)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        refused(self.sync_folder)?;
        RealDisk.sync_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let is_complete = from.extension().is_some_and(|ending| ending == "incomplete");
        self.note(if is_complete { "complete" } else { "rename to" }, to);
        RealDisk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        refused(self.link)?;
        RealDisk.link(from, to)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        refused(self.remove_folder)?;
        RealDisk.remove_folder(path)
    }
}

pub(crate) fn on(disk: Refusing) -> SaveOptions {
    SaveOptions { disk: Arc::new(disk), ..plain(true) }
}

pub(crate) fn recover(
    disk: &dyn Disk,
    folder: &Path,
    timeout: Duration,
) -> Result<Vec<saves::Recovered>> {
    saves::recover(disk, folder, timeout, &Control::default())
}

/// A save of two shards of one tensor each, all written.
pub(crate) fn begun(folder: &Path, options: SaveOptions) -> Save {
    let names = file_names(2);
    let files = names.iter().map(|name| new_file(name, vec![new_tensor("t0", 1)])).collect();
    let save = Save::folder(folder, family(), files, options, &Control::default()).unwrap();
    let source = Source::from_slice(&[7]);
    let part = |file| Part { file, tensor: 0, start: 0, source: source.into() };
    save.write(vec![part(0), part(1)], 1, &Control::default()).unwrap();
    save
}

pub(crate) fn commit(save: Save) -> Result<()> {
    let names = file_names(2);
    let work = save.work_name().unwrap();
    let interim = index(&names, |name| format!("{work}/{name}"));
    save.commit(&IndexTexts { interim, last: index(&names, str::to_owned) }, &Control::default())
}

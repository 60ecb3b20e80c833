//! Files that change after their header was read, and backends that fail halfway: each its own
//! error, which names the file, the tensor and the numbers.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{naive_read, open_new, sizes};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use windlass_core::Shard;
use windlass_core::plan::PlanOptions;
use windlass_core::read::{Backend, ShardReader, backend};
use windlass_core::{Checkpoint, Control, Dest, Error, Io, Job, ReadOptions, Result};

const EVERY_IO: [Io; 5] = [Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring];
const TENSOR_LEN: usize = 1000;

/// Three tensors of 1000 bytes in one shard.
struct Opened {
    folder: TempDir,
    checkpoint: Checkpoint,
}

impl Opened {
    fn new() -> Self {
        let (folder, checkpoint) = open_new(&[("a", sizes("t", 3, &[TENSOR_LEN]))]);
        Self { folder, checkpoint }
    }

    fn shard(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    /// Where a tensor ends within the file.
    fn end_of(&self, tensor: &str) -> u64 {
        self.checkpoint.tensors()[tensor].file_range.end
    }

    fn read(&self, io: Io) -> Result<Vec<Vec<u8>>> {
        self.read_with(backend(io), &Control::default())
    }

    /// Reads all tensors on one thread, each in several reads.
    fn read_with(&self, backend: &dyn Backend, control: &Control) -> Result<Vec<Vec<u8>>> {
        let mut memory = vec![vec![0; TENSOR_LEN]; 3];
        let job =
            |(tensor, memory)| Job { tensor, start: 0, dest: Dest::from_slice(memory).into() };
        let jobs = memory.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect();
        let plan = PlanOptions { chunk_bytes: 256, ..PlanOptions::default() };
        let options = ReadOptions { threads: 1, plan, ..ReadOptions::default() };
        self.checkpoint.read_with(backend, jobs, &options, control)?;
        Ok(memory)
    }
}

fn truncate(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_file_truncated_after_opening_is_named_with_both_sizes() {
    for io in EVERY_IO {
        let opened = Opened::new();
        let len = opened.end_of("t2");
        truncate(&opened.shard(), len - 1);
        let error = opened.read(io).unwrap_err();
        let Error::Replaced { path, expected, found } = error else { panic!("{error}") };
        assert_eq!(path, opened.shard());
        assert!(expected.starts_with(&format!("{len} bytes, ")), "{expected}");
        assert!(found.starts_with(&format!("{} bytes, ", len - 1)), "{found}");
    }
}

#[test]
fn a_file_that_another_was_renamed_over_is_refused() {
    for io in EVERY_IO {
        let opened = Opened::new();
        let twin = opened.folder.path().join("twin");
        fs::copy(opened.shard(), &twin).unwrap();
        set_modified(&twin, modified(&opened.shard()));
        fs::rename(&twin, opened.shard()).unwrap();
        let error = opened.read(io).unwrap_err();
        assert!(matches!(error, Error::Replaced { path, .. } if path == opened.shard()));
    }
}

#[test]
fn a_file_rewritten_in_place_is_refused() {
    for io in EVERY_IO {
        let opened = Opened::new();
        set_modified(&opened.shard(), modified(&opened.shard()) + Duration::from_nanos(1));
        let error = opened.read(io).unwrap_err();
        assert!(matches!(error, Error::Replaced { path, .. } if path == opened.shard()));
    }
}

#[test]
fn a_file_deleted_after_opening_is_named() {
    for io in EVERY_IO {
        let opened = Opened::new();
        fs::remove_file(opened.shard()).unwrap();
        let error = opened.read(io).unwrap_err();
        let Error::Replaced { path, found, .. } = error else { panic!("{error}") };
        assert_eq!((path, &*found), (opened.shard(), "no file"));
    }
}

#[test]
fn a_file_swapped_for_a_folder_is_refused() {
    for io in EVERY_IO {
        let opened = Opened::new();
        fs::remove_file(opened.shard()).unwrap();
        fs::create_dir(opened.shard()).unwrap();
        let error = opened.read(io).unwrap_err();
        assert!(matches!(error, Error::NotAFile { kind: "folder", .. }), "{error}");
    }
}

/// Another backend that does something each time after it has opened a shard.
struct AfterOpening<'a> {
    inner: &'a dyn Backend,
    then: &'a (dyn Fn(&Shard) + Sync),
}

impl Backend for AfterOpening<'_> {
    fn name(&self) -> &'static str {
        "after opening"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let reader = self.inner.open(shard)?;
        (self.then)(shard);
        Ok(reader)
    }
}

#[test]
fn a_file_that_shrinks_while_being_read_names_the_tensor_that_is_cut() {
    for io in EVERY_IO {
        for (len_of_cut, cut) in [(1, "t1"), (999, "t1"), (1000, "t2"), (1999, "t2")] {
            let opened = Opened::new();
            let len_left = opened.end_of("t0") + len_of_cut;
            let shrink = |shard: &Shard| truncate(&shard.path, len_left);
            let backend = AfterOpening { inner: backend(io), then: &shrink };
            let error = opened.read_with(&backend, &Control::default()).unwrap_err();
            let Error::Shrunk { path, tensor, expected, found } = error else { panic!("{error}") };
            assert_eq!((path, tensor.as_str()), (opened.shard(), cut));
            assert_eq!((expected, found), (opened.end_of(cut), len_left));
        }
    }
}

/// Writes the same number of other bytes to a file that stays the same otherwise.
fn rewrite(path: &Path) {
    let (len, time) = (path.metadata().unwrap().len(), modified(path));
    let mut file = File::options().write(true).open(path).unwrap();
    io::Write::write_all(&mut file, &vec![7; usize::try_from(len).unwrap()]).unwrap();
    file.set_modified(time + Duration::from_nanos(1)).unwrap();
}

#[test]
fn a_file_rewritten_while_it_is_read_is_refused_and_nothing_of_it_counts_as_loaded() {
    for io in EVERY_IO {
        let opened = Opened::new();
        let rewrite = |shard: &Shard| rewrite(&shard.path);
        let backend = AfterOpening { inner: backend(io), then: &rewrite };
        let control = Control::default();
        let error = opened.read_with(&backend, &control).unwrap_err();
        let message = error.to_string();
        let Error::Rewritten { path, expected, found } = error else { panic!("{io:?}: {error}") };
        let words = "was written to, or its time set, while it was read";
        let told =
            format!("`{}`: the file {words}: expected {expected}, found {found}", path.display());
        assert_eq!(message, told);
        assert_eq!(path, opened.shard());
        assert!(expected.len == found.len && expected != found, "{expected}, {found}");
        let touched = control.ledger().unwrap().touched();
        assert!(touched.len() > 1 && touched.iter().all(|one| !one.whole), "{io:?}: {touched:?}");
    }
}

#[test]
fn a_file_that_gets_another_name_or_other_permissions_while_it_is_read_is_the_same() {
    for io in EVERY_IO {
        let opened = Opened::new();
        let change = |shard: &Shard| {
            fs::hard_link(&shard.path, shard.path.with_extension("b")).unwrap();
            fs::set_permissions(&shard.path, Permissions::from_mode(0o600)).unwrap();
        };
        let backend = AfterOpening { inner: backend(io), then: &change };
        opened.read_with(&backend, &Control::default()).unwrap();
    }
}

#[test]
fn a_map_of_a_file_that_shrank_is_not_touched_beyond_its_end() {
    let opened = Opened::new();
    let mut mapping = backend(Io::Mapped).open(&opened.checkpoint.shards()[0]).unwrap();
    truncate(&opened.shard(), opened.end_of("t0"));
    let mut read = |offset, len| {
        let mut memory = vec![0; len];
        mapping.read(offset, &mut [Dest::from_slice(&mut memory)]).map_err(|error| error.kind())
    };
    assert_eq!(read(0, 16), Ok(()));
    let eof = Err(io::ErrorKind::UnexpectedEof);
    assert_eq!(read(opened.end_of("t0") - 1, 2), eof);
    assert_eq!(read(opened.end_of("t0"), 1), eof);
    assert_eq!(read(u64::MAX, 1), eof);
}

#[test]
fn a_file_replaced_while_it_is_open_is_read_to_its_own_end() {
    for io in EVERY_IO {
        let opened = Opened::new();
        let expected = naive_read(&opened.shard()).remove("t2").unwrap();
        let delete = |shard: &Shard| fs::remove_file(&shard.path).unwrap();
        let backend = AfterOpening { inner: backend(io), then: &delete };
        let read = opened.read_with(&backend, &Control::default()).unwrap();
        assert_eq!(read[2], expected);
    }
}

/// Another backend, of which a read fails.
struct FailsAt<'a> {
    read: usize,
    inner: &'a dyn Backend,
}

struct FailingReader {
    reads_left: usize,
    inner: Box<dyn ShardReader>,
}

impl Backend for FailsAt<'_> {
    fn name(&self) -> &'static str {
        "fails at"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let inner = self.inner.open(shard)?;
        Ok(Box::new(FailingReader { reads_left: self.read, inner }))
    }
}

impl ShardReader for FailingReader {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        let Some(left) = self.reads_left.checked_sub(1) else {
            return Err(io::Error::other("cable pulled"));
        };
        self.reads_left = left;
        self.inner.read(offset, dests)
    }
}

/// A backend that cannot open anything.
struct Unopenable;

impl Backend for Unopenable {
    fn name(&self) -> &'static str {
        "unopenable"
    }

    fn open(&self, _: &Shard) -> Result<Box<dyn ShardReader>> {
        Err(Error::Cancelled)
    }
}

/// A backend of which the second read does something else.
struct SecondRead<F>(F);

impl<F: Fn() -> io::Result<()> + Copy + Sync + 'static> Backend for SecondRead<F> {
    fn name(&self) -> &'static str {
        "second read"
    }

    fn open(&self, _: &Shard) -> Result<Box<dyn ShardReader>> {
        Ok(Box::new(Counted { reads: 0, second: self.0 }))
    }
}

struct Counted<F> {
    reads: usize,
    second: F,
}

impl<F: Fn() -> io::Result<()>> ShardReader for Counted<F> {
    fn read(&mut self, _: u64, _: &mut [Dest<'_>]) -> io::Result<()> {
        self.reads += 1;
        assert!(self.reads <= 2, "an error ends the work");
        if self.reads == 2 { (self.second)() } else { Ok(()) }
    }
}

#[test]
fn a_failing_disk_is_reported_with_file_and_tensor() {
    let opened = Opened::new();
    let broken = SecondRead(|| Err(io::Error::other("cable pulled")));
    let control = Control::default();
    let error = opened.read_with(&broken, &control).unwrap_err();
    let expected =
        format!("`{}`, tensor `t0`: reading failed: cable pulled", opened.shard().display());
    assert_eq!(error.to_string(), expected);
    assert!(control.bytes() > 0, "the first read counts");
    assert!(control.bytes() <= 256, "the second does not");
}

#[test]
fn a_read_that_fails_says_which_destinations_it_has_touched() {
    let touched = |backend: &dyn Backend| {
        let control = Control::default();
        let outcome = Opened::new().read_with(backend, &control);
        let ledger = control.ledger().unwrap();
        let touched = ledger.touched().into_iter().map(|one| (one.job, one.whole)).collect();
        (outcome.is_ok(), touched)
    };
    let none: Vec<(usize, bool)> = Vec::new();
    let fails_at = |read| FailsAt { read, inner: backend(Io::Buffered) };
    assert_eq!(touched(&fails_at(0)), (false, vec![(0, false)]));
    assert_eq!(touched(&fails_at(3)), (false, vec![(0, false)]));
    assert_eq!(touched(&fails_at(4)), (false, vec![(0, false), (1, false)]));
    assert_eq!(touched(&fails_at(5)), (false, vec![(0, true), (1, false)]));
    assert_eq!(touched(&fails_at(100)), (true, vec![(0, true), (1, true), (2, true)]));
    assert_eq!(touched(&Unopenable), (false, none));
}

#[test]
fn a_panicking_backend_is_an_error() {
    let opened = Opened::new();
    let panicking = SecondRead(|| panic!("a bug"));
    let error = opened.read_with(&panicking, &Control::default()).unwrap_err();
    assert!(matches!(error, Error::Panicked { message } if message == "a bug"));
}

#[test]
fn cancelling_stops_before_the_next_read() {
    static CONTROL: std::sync::OnceLock<Control> = std::sync::OnceLock::new();
    let control = CONTROL.get_or_init(Control::default);
    let cancelling = SecondRead(|| {
        CONTROL.wait().cancel();
        Ok(())
    });
    let error = Opened::new().read_with(&cancelling, control).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
}

//! Files that only a system can make (FIFOs, devices, files of somebody else) → the exact error,
//! at once.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#![cfg(target_os = "linux")]

mod builders;

use builders::{shard_bytes, sizes};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tempfile::tempdir;
use windlass_core::{Checkpoint, Control, Error, Result, Strictness};

/// Both ways of opening.
const OPENERS: [fn(&Path) -> Result<Checkpoint>; 2] = [
    |path| Checkpoint::open_file(path, Strictness::Reference),
    |path| Checkpoint::open_index(path, Strictness::Reference, &Control::default()),
];

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let folder = tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let rows = [
        (fifo, "FIFO"),
        (folder.path().to_owned(), "folder"),
        (Path::new("/dev/null").to_owned(), "device"),
    ];
    for open in OPENERS {
        for (path, expected) in rows.clone() {
            let error = within_a_minute(move || open(&path).unwrap_err());
            let Error::NotAFile { kind, .. } = error else { panic!("{error}") };
            assert_eq!(kind, expected);
        }
    }
}

/// Runs `work` on a thread that this test does not wait for: if it hangs, the test fails.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer without waiting")
}

#[test]
fn a_file_without_permission_says_so() {
    let folder = tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, shard_bytes(&sizes("t", 1, &[4]))).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    for open in OPENERS {
        let error = thread::scope(|scope| {
            scope.spawn(|| as_nobody(|| open(&secret).unwrap_err())).join().unwrap()
        });
        assert!(matches!(error, Error::PermissionDenied { path, .. } if path == secret));
    }
}

/// Root may read everything, so a thread of root's becomes another user first. Linux keeps the
/// user per thread, and the thread ends with the test.
fn as_nobody<T>(work: impl FnOnce() -> T) -> T {
    if rustix::process::geteuid().is_root() {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
    }
    work()
}

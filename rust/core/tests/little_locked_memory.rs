//! A user who may lock no memory, alone in its process: the limit is for all of it.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#![cfg(target_os = "linux")]

mod builders;

use builders::{naive_read, sizes, write_checkpoint};
use rustix::process::{Resource, Rlimit, Uid, geteuid, setrlimit};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use windlass_core::{Cache, Checkpoint, Control, Dest, Io, Job, ReadOptions, Strictness};

const TENSOR_LEN: usize = 3_000_000;

#[test]
fn where_no_memory_may_be_locked_reads_by_io_uring_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let index = write_checkpoint(folder.path(), &[("a", sizes("t", 3, &[TENSOR_LEN]))]);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let expected = naive_read(&folder.path().join("a"));
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
    let read = || {
        // Root may lock what it likes, so a thread of root's becomes another user first.
        if geteuid().is_root() {
            rustix::thread::set_thread_uid(Uid::from_raw(65534)).unwrap();
        }
        let control = Control::default();
        let checkpoint = Checkpoint::open_index(&index, Strictness::Strict, &control).unwrap();
        for cache in [Cache::Keep, Cache::Drop] {
            let mut memory = vec![vec![0; TENSOR_LEN]; 3];
            let job =
                |(tensor, memory)| Job { tensor, start: 0, dest: Dest::from_slice(memory).into() };
            let jobs = memory.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect();
            let options = ReadOptions { io: Io::Uring, cache, ..ReadOptions::default() };
            checkpoint.read_into(jobs, &options, &control).unwrap();
            assert!(memory.iter().eq(expected.values()), "{cache:?}");
        }
    };
    thread::scope(|scope| scope.spawn(read).join().unwrap());
}

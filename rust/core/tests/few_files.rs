//! A process that may open few files at once, alone in its process: the limit is for all of it.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#![cfg(target_os = "linux")]

mod builders;

use builders::{naive_read, sizes, write_checkpoint};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use windlass_core::{Cache, Checkpoint, Control, Dest, Error, Io, Job, ReadOptions, Strictness};

const EVERY_IO: [Io; 5] = [Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring];
const SHARDS: usize = 200;
const TENSOR_LEN: usize = 100_000;

fn read(checkpoint: &Checkpoint, io: Io, cache: Cache) -> Result<Vec<Vec<u8>>, Error> {
    let mut memory = vec![vec![0; TENSOR_LEN]; SHARDS];
    let job = |(tensor, memory)| Job { tensor, start: 0, dest: Dest::from_slice(memory).into() };
    let jobs = memory.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect();
    let options = ReadOptions { io, cache, ..ReadOptions::default() };
    checkpoint.read_into(jobs, &options, &Control::default())?;
    Ok(memory)
}

#[test]
fn many_shards_are_read_with_few_files_open() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..SHARDS).map(|shard| format!("s{shard}")).collect();
    let shards: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), sizes(&format!("{name}."), 1, &[TENSOR_LEN])))
        .collect();
    let index = write_checkpoint(folder.path(), &shards);
    let open = || Checkpoint::open_index(&index, Strictness::Strict, &Control::default());
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let checkpoint = open().unwrap();
    let naive: Vec<_> = checkpoint.shards().iter().map(|shard| naive_read(&shard.path)).collect();
    for io in EVERY_IO {
        for cache in [Cache::Keep, Cache::Drop] {
            let memory = read(&checkpoint, io, cache).unwrap();
            for ((name, tensor), bytes) in checkpoint.tensors().iter().zip(&memory) {
                assert!(naive[tensor.shard][name] == *bytes, "{name}, {io:?}, {cache:?}");
            }
        }
    }

    let mut taken = Vec::new();
    while let Ok(file) = File::open(&index) {
        taken.push(file);
    }
    for io in EVERY_IO {
        let error = read(&checkpoint, io, Cache::Drop).unwrap_err();
        assert!(matches!(error, Error::Io { action: "opening", .. }), "{error}");
        assert!(error.to_string().contains("Too many open files"), "{error}");
    }
    drop(taken);
    setrlimit(Resource::Nofile, before).unwrap();
}

//! What a save does to what is already there, what it refuses, and how saves keep apart.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::naive_read;
use builders::saving::{TENSOR_LEN, family, file_names, new_file, new_tensor, save, save_file};
use builders::scenes::{Start, plain, temporary_folder};
use builders::seen::{INDEX, SINGLE, Seen, all_see, list};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use windlass_core::save::{CHECKSUM_KEY, Contents, IndexTexts, LOCK_FILE, NewFile, Part};
use windlass_core::{Checkpoint, Control, Error, Header, NewTensor, Result, Save, SaveOptions};
use windlass_core::{Source, Strictness, save as saves};

/// Ways to begin the save of a file of these tensors, named `model.safetensors`.
type Begin = fn(&Path, Vec<NewTensor>) -> Result<Save>;
const EVERY_SAVE: [Begin; 2] = [
    |folder, tensors| Save::file(&folder.join(SINGLE), new_file("", tensors), plain(true)),
    |folder, tensors| {
        let files = vec![new_file(SINGLE, tensors)];
        Save::folder(folder, family(), files, plain(true), &Control::default())
    },
];

fn part(tensor: usize, start: u64, bytes: &[u8]) -> Part<'_> {
    Part { file: 0, tensor, start, source: Source::from_slice(bytes).into() }
}

fn write(save: &Save, parts: Vec<Part<'_>>) -> Result<()> {
    save.write(parts, 1, &Control::default())
}

fn commit(save: Save) -> Result<()> {
    save.commit(&IndexTexts::default(), &Control::default())
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn is_nothing(folder: &Path) -> bool {
    list(folder).is_empty()
}

#[test]
fn bytes_that_are_missing_or_written_twice_fail_the_commit_and_leave_nothing() {
    let rows = [
        (vec![], 0),
        (vec![(0, 0, 4)], 4),
        (vec![(0, 0, 4), (1, 1, 3)], 7),
        (vec![(0, 0, 4), (0, 0, 4)], 4),
        (vec![(0, 0, 3), (0, 2, 2), (1, 0, 3)], 7),
        (vec![(0, 0, 4), (1, 0, 4), (1, 3, 1)], 9),
    ];
    for begin in EVERY_SAVE {
        for (parts, expected_found) in rows.clone() {
            let folder = temporary_folder();
            let tensors = vec![new_tensor("a", 4), new_tensor("b", 4)];
            let save = begin(folder.path(), tensors).unwrap();
            let source = [1; 4];
            let parts =
                parts.iter().map(|&(tensor, start, len)| part(tensor, start, &source[..len]));
            write(&save, parts.collect()).unwrap();
            let error = commit(save).unwrap_err();
            let Error::Incomplete { expected: 8, found, .. } = error else { panic!("{error}") };
            assert_eq!(found, expected_found);
            assert!(is_nothing(folder.path()), "{:?}", list(folder.path()));
        }
    }
}

#[test]
fn a_part_outside_its_tensor_is_refused() {
    for begin in EVERY_SAVE {
        for (start, len) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 2)] {
            let folder = temporary_folder();
            let save = begin(folder.path(), vec![new_tensor("a", 4)]).unwrap();
            let error = write(&save, vec![part(0, start, &[0; 5][..len])]).unwrap_err();
            let Error::RangeOutside { tensor, byte_len: 4, .. } = error else { panic!("{error}") };
            assert_eq!(tensor, "a");
            drop(save);
            assert!(is_nothing(folder.path()));
        }
    }
}

#[test]
fn tensors_over_many_chunks_and_many_small_tensors_arrive_whole() {
    let sizes = [(9 << 20) + 1, 0, (8 << 20) - 1];
    let byte = |i: usize| u8::try_from(i % 251).unwrap();
    let mut contents: Vec<(String, Vec<u8>)> = Vec::new();
    contents.extend(sizes.iter().map(|&len| (format!("a{len}"), (0..len).map(byte).collect())));
    contents.extend((0..3000).map(|i| (format!("b{i:04}"), vec![byte(i)])));
    for begin in EVERY_SAVE {
        let folder = temporary_folder();
        let new = contents.iter().map(|(name, bytes)| new_tensor(name, bytes.len() as u64));
        let save = begin(folder.path(), new.collect()).unwrap();
        let parts =
            contents.iter().map(|(name, bytes)| part(save.position(0, name).unwrap(), 0, bytes));
        save.write(parts.collect(), 3, &Control::default()).unwrap();
        commit(save).unwrap();
        assert_eq!(naive_read(&folder.path().join(SINGLE)), contents.iter().cloned().collect());
    }
}

#[test]
fn checksums_of_another_file_are_not_taken_over() {
    let folder = temporary_folder();
    let path = folder.path().join(SINGLE);
    let metadata = [(CHECKSUM_KEY, r#"{"of_another":"00000000"}"#), ("kept", "as it was")];
    let metadata = metadata.map(|(key, text)| (key.to_owned(), text.to_owned()));
    for checksums in [false, true] {
        let metadata = Some(metadata.iter().cloned().collect());
        let header = Header::lay_out(vec![new_tensor("a", 4)], metadata).unwrap();
        let new = NewFile::of_tensors(String::new(), header, checksums).unwrap();
        let save = Save::file(&path, new, plain(true)).unwrap();
        write(&save, vec![part(0, 0, &[1, 2, 3, 4])]).unwrap();
        commit(save).unwrap();
        let checkpoint = Checkpoint::open_file(&path, Strictness::Strict).unwrap();
        let metadata = checkpoint.shards()[0].metadata.as_ref().unwrap();
        assert_eq!(metadata["kept"], "as it was");
        assert_eq!(metadata.get(CHECKSUM_KEY).is_some(), checksums);
        assert!(fs::read(&path).unwrap().ends_with(&[1, 2, 3, 4]));
    }
}

#[test]
fn a_file_that_the_caller_writes_is_committed_too() {
    let folder = temporary_folder();
    let new = NewFile { name: SINGLE.to_owned(), contents: Contents::Foreign { len: 5 } };
    let control = Control::default();
    let save = Save::folder(folder.path(), family(), vec![new], plain(true), &control).unwrap();
    fs::write(save.staged_path(0), "theirs").unwrap();
    commit(save).unwrap();
    assert_eq!(fs::read(folder.path().join(SINGLE)).unwrap(), b"theirs");
}

#[test]
fn a_commit_that_needs_an_index_is_refused_without_one() {
    for start in [Start::Sharded(2), Start::Stray] {
        let temporary = start.build();
        let (before, names) = (all_see(temporary.path()), list(temporary.path()));
        let begun = begin_within(temporary.path(), Duration::ZERO, &Control::default());
        let error = commit(begun.unwrap()).unwrap_err();
        assert!(error.to_string().contains("its text is missing"), "{error}");
        assert_eq!((all_see(temporary.path()), list(temporary.path())), (before, names));
    }
}

#[test]
fn permissions_stay_and_those_of_a_new_file_are_the_umasks() {
    let folder = temporary_folder();
    let (path, plain_file) = (folder.path().join(SINGLE), folder.path().join("plain"));
    File::create(&plain_file).unwrap();
    save_file(&path, 1, plain(true)).unwrap();
    assert_eq!(mode(&path), mode(&plain_file));
    for wanted in [0o600, 0o664, 0o444] {
        fs::set_permissions(&path, Permissions::from_mode(wanted)).unwrap();
        save_file(&path, 2, plain(true)).unwrap();
        assert_eq!(mode(&path), wanted);
    }
}

#[test]
fn permissions_of_a_checkpoint_stay_also_when_its_files_change_their_names() {
    let temporary = Start::Sharded(2).build();
    let folder = temporary.path();
    for name in list(folder) {
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o640)).unwrap();
    }
    for count in [3, 2, 1] {
        save(folder, count, 5, plain(true)).unwrap();
        for name in list(folder) {
            assert_eq!(mode(&folder.join(&name)), 0o640, "{name}");
        }
    }
}

#[test]
fn a_link_is_followed_by_a_save_of_a_file() {
    let folder = temporary_folder();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    save_file(&target, 1, plain(true)).unwrap();
    symlink("target", &link).unwrap();
    save_file(&link, 2, plain(true)).unwrap();
    assert!(link.is_symlink());
    assert!(fs::read(&target).unwrap().ends_with(&[2; 18]));
    assert_eq!(list(folder.path()).len(), 2);
}

#[test]
fn a_link_in_a_checkpoint_is_replaced_and_what_it_leads_to_stays() {
    let (blobs, folder) = (temporary_folder(), temporary_folder());
    for (count, start) in [(1, 1), (2, 1), (2, 2), (1, 2)] {
        save(blobs.path(), start, 1, plain(true)).unwrap();
        for name in list(blobs.path()) {
            let _ = fs::remove_file(folder.path().join(&name));
            symlink(blobs.path().join(&name), folder.path().join(&name)).unwrap();
        }
        save(folder.path(), count, 2, plain(true)).unwrap();
        assert_eq!(all_see(folder.path()), [const { Seen::Whole(2) }; 3]);
        assert_eq!(all_see(blobs.path()), [const { Seen::Whole(1) }; 3]);
        assert!(list(folder.path()).iter().all(|name| !folder.path().join(name).is_symlink()));
    }
}

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let folder = temporary_folder();
    let link = folder.path().join("link");
    symlink("nowhere", &link).unwrap();
    let error = save_file(&link, 1, plain(true)).unwrap_err();
    assert!(error.to_string().contains("it is a link to `nowhere`"), "{error}");
    let Error::Save { path, source, .. } = error else { panic!("{error}") };
    assert_eq!((path, source.kind()), (link, io::ErrorKind::NotFound));
    assert_eq!(list(folder.path()).len(), 1);
}

#[test]
fn a_hard_link_is_replaced_and_never_written_through() {
    for count in [1, 2] {
        let folder = temporary_folder();
        save(folder.path(), count, 1, plain(true)).unwrap();
        let names = file_names(count);
        let elsewhere = temporary_folder();
        for name in &names {
            fs::hard_link(folder.path().join(name), elsewhere.path().join(name)).unwrap();
        }
        save(folder.path(), count, 2, plain(true)).unwrap();
        for name in &names {
            assert!(fs::read(elsewhere.path().join(name)).unwrap().ends_with(&[1; TENSOR_LEN]));
            let links = folder.path().join(name).metadata().unwrap().nlink();
            assert_eq!(links, 1, "nor does the new file keep a second name");
        }
        save_file(&elsewhere.path().join(&names[0]), 3, plain(true)).unwrap();
        assert_eq!(all_see(folder.path())[2], Seen::Whole(2));
    }
}

#[test]
fn what_is_no_regular_file_is_refused_before_anything_is_written() {
    for begin in EVERY_SAVE {
        let folder = temporary_folder();
        fs::create_dir(folder.path().join(SINGLE)).unwrap();
        let error = begin(folder.path(), vec![new_tensor("a", 1)]).unwrap_err();
        assert!(matches!(error, Error::NotAFile { kind: "folder", .. }), "{error}");
        assert_eq!(list(folder.path()).len(), 1);
    }
    let folder = temporary_folder();
    fs::create_dir(folder.path().join(INDEX)).unwrap();
    let error = save(folder.path(), 2, 1, plain(true)).unwrap_err();
    assert!(matches!(error, Error::NotAFile { kind: "folder", .. }), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_fifo_is_refused_without_waiting_for_it() {
    for begin in EVERY_SAVE {
        let folder = temporary_folder();
        let fifo = folder.path().join(SINGLE);
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        let error = begin(folder.path(), vec![new_tensor("a", 1)]).unwrap_err();
        assert!(matches!(error, Error::NotAFile { kind: "FIFO", .. }), "{error}");
    }
}

#[test]
fn a_save_that_cannot_fit_is_refused_before_the_first_byte() {
    for begin in EVERY_SAVE {
        let folder = temporary_folder();
        let error = begin(folder.path(), vec![new_tensor("a", 1 << 60)]).unwrap_err();
        let Error::NoSpace { needed, found, .. } = error else { panic!("{error}") };
        assert!(needed > 1 << 60 && found < 1 << 60);
        assert!(is_nothing(folder.path()));
    }
    let folder = temporary_folder();
    let file = |name: String| new_file(&name, vec![new_tensor("a", 1 << 60)]);
    let files = file_names(17).into_iter().map(file).collect();
    let begun = Save::folder(folder.path(), family(), files, plain(true), &Control::default());
    assert!(matches!(begun, Err(Error::NoSpace { needed: u64::MAX, .. })));
}

#[test]
fn a_folder_that_is_not_there_is_an_error_of_the_system() {
    let nowhere = temporary_folder().path().join("nowhere");
    for begin in EVERY_SAVE {
        let error = begin(&nowhere, vec![new_tensor("a", 1)]).unwrap_err();
        let Error::Save { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn a_cancelled_save_leaves_nothing() {
    for begin in EVERY_SAVE {
        let folder = temporary_folder();
        let save = begin(folder.path(), vec![new_tensor("a", 0)]).unwrap();
        let control = Control::default();
        control.cancel();
        let error = save.commit(&IndexTexts::default(), &control).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(is_nothing(folder.path()));
    }
}

fn begin_within(folder: &Path, lock_timeout: Duration, control: &Control) -> Result<Save> {
    let options = SaveOptions { lock_timeout, ..plain(true) };
    Save::folder(folder, family(), vec![new_file(SINGLE, Vec::new())], options, control)
}

#[test]
fn a_second_save_gives_up_after_its_timeout_and_names_the_first() {
    let folder = temporary_folder();
    let control = Control::default();
    let first = begin_within(folder.path(), Duration::ZERO, &control).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let errors = [
            begin_within(folder.path(), timeout, &control).unwrap_err(),
            saves::recover(&saves::RealDisk, folder.path(), timeout, &control).unwrap_err(),
        ];
        for error in errors {
            let Error::Locked { path, holder, seconds } = error else { panic!("{error}") };
            assert_eq!(path, folder.path().join(LOCK_FILE));
            assert_eq!(holder, format!("process {}", std::process::id()));
            assert!((seconds - timeout.as_secs_f64()).abs() < f64::EPSILON);
        }
    }
    control.cancel();
    let error = begin_within(folder.path(), Duration::MAX, &control).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    drop(first);
    assert!(is_nothing(folder.path()), "the lock file is gone");
    begin_within(folder.path(), Duration::ZERO, &Control::default()).unwrap();
}

#[test]
fn a_second_save_waits_for_the_first() {
    let folder = temporary_folder();
    let first = begin_within(folder.path(), Duration::ZERO, &Control::default()).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| save(folder.path(), 2, 2, plain(true)));
        commit(first).unwrap();
        second.join().unwrap().unwrap();
    });
    assert_eq!(all_see(folder.path()), [const { Seen::Whole(2) }; 3]);
}

#[test]
fn a_lock_file_that_nobody_holds_holds_nobody_up() {
    let folder = temporary_folder();
    for text in ["", "1\n", "not a number"] {
        fs::write(folder.path().join(LOCK_FILE), text).unwrap();
        let begun = begin_within(folder.path(), Duration::ZERO, &Control::default());
        assert_eq!(
            fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(begun.unwrap());
        assert!(is_nothing(folder.path()));
    }
}

#[test]
fn saves_into_one_folder_from_two_threads_leave_one_whole_checkpoint() {
    let folder = temporary_folder();
    thread::scope(|scope| {
        for thread in 0..2 {
            let folder = folder.path();
            scope.spawn(move || {
                for round in 0..20 {
                    save(
                        folder,
                        1 + (round + thread) % 3,
                        1 + u8::try_from(thread).unwrap(),
                        plain(true),
                    )
                    .unwrap();
                }
            });
        }
    });
    let seen = all_see(folder.path());
    assert!(matches!(seen[0], Seen::Whole(1 | 2)) && seen.iter().all(|one| *one == seen[0]));
    let left = list(folder.path());
    assert!([1, 3, 4].contains(&left.len()), "{left:?}");
}

#[test]
fn saves_of_one_file_from_many_threads_all_succeed_and_are_whole_at_any_time() {
    const THREADS: u8 = 6;
    let folder = temporary_folder();
    let path = folder.path().join(SINGLE);
    let start = Barrier::new(THREADS.into());
    thread::scope(|scope| {
        for value in 1..=THREADS {
            let (start, path) = (&start, &path);
            scope.spawn(move || {
                start.wait();
                for _ in 0..20 {
                    save_file(path, value, plain(true)).unwrap();
                    let tensors = naive_read(path);
                    let first = tensors["t0"][0];
                    assert!(tensors.values().all(|bytes| *bytes == [first; TENSOR_LEN]));
                }
            });
        }
    });
    assert_eq!(list(folder.path()).len(), 1, "{:?}", list(folder.path()));
}

#[test]
fn what_a_killed_save_of_a_file_left_is_removed_by_the_next_and_by_recovery() {
    let folder = temporary_folder();
    let path = folder.path().join("a");
    // What a save of its own makes, where nobody else saves that file.
    let killed = Save::file(&path, new_file("", Vec::new()), plain(true)).unwrap();
    let leftover = killed.staged_path(0).to_owned();
    drop(killed);
    let of_others = folder.path().join(".b.windlass-0123456789abcdef");
    for file in [&leftover, &of_others] {
        fs::write(file, "half").unwrap();
    }
    let running = Save::file(&path, new_file("", Vec::new()), plain(true)).unwrap();
    assert_eq!(running.staged_path(0), leftover, "it was removed");
    save_file(&path, 1, plain(true)).unwrap();
    assert!(of_others.exists() && running.staged_path(0).exists());
    let control = Control::default();
    let recovered =
        saves::recover(&saves::RealDisk, folder.path(), Duration::ZERO, &control).unwrap();
    assert!(matches!(&recovered[..], [one] if one.name.starts_with(".b.")), "{recovered:?}");
    commit(running).unwrap();
    assert_eq!(list(folder.path()).len(), 1);
}

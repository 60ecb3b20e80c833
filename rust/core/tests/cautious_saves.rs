//! What a save or a recovery cannot be sure of, it does not act on.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::refusing_disk::{Refusing, begun, commit, on, recover};
use builders::saving::{family, save, save_file};
use builders::scenes::{Start, foreign_save, plain, temporary_folder};
use builders::seen::{INDEX, SINGLE, Seen, all_see, list};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use windlass_core::save::{Contents, IndexTexts, NewFile, RealDisk};
use windlass_core::{Control, Error, Save, SaveOptions};

const WORK: &str = "model.windlass-0123456789abcdef";

#[test]
fn a_staged_file_that_is_gone_or_another_fails_the_save_and_leaves_the_old_checkpoint() {
    let harms: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let text = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, text).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(elsewhere, path).unwrap();
        },
    ];
    for start in [Start::Sharded(2), Start::Both, Start::Single] {
        for file in [0, 1] {
            for harm in harms {
                let temporary = start.build();
                let before = all_see(temporary.path());
                let save = begun(temporary.path(), plain(true));
                let path = save.staged_path(file).to_owned();
                harm(&path);
                let error = commit(save).unwrap_err();
                assert!(error.to_string().contains("finding the staged file failed"), "{error}");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                assert_eq!(all_see(temporary.path()), before, "{start:?}");
            }
        }
    }
}

#[test]
fn a_file_of_the_callers_that_is_gone_fails_the_save_too() {
    let temporary = Start::Single.build();
    let before = all_see(temporary.path());
    let new = NewFile { name: SINGLE.to_owned(), contents: Contents::Foreign { len: 5 } };
    let control = Control::default();
    let save = Save::folder(temporary.path(), family(), vec![new], plain(true), &control).unwrap();
    fs::remove_file(save.staged_path(0)).unwrap();
    let error = save.commit(&IndexTexts::default(), &control).unwrap_err();
    assert!(error.to_string().contains("removed, changed or replaced"), "{error}");
    assert_eq!(all_see(temporary.path()), before);
}

#[test]
fn only_an_error_that_speaks_of_links_means_that_there_are_none() {
    let (yes, no) = (
        [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS, libc::EMLINK, libc::EXDEV],
        [libc::ENOENT, libc::EIO, libc::EACCES, libc::ENOSPC, libc::EDQUOT],
    );
    for code in yes.into_iter().chain(no) {
        let temporary = Start::Sharded(3).build();
        let (before, names) = (all_see(temporary.path()), list(temporary.path()));
        let saved =
            save(temporary.path(), 2, 7, on(Refusing { link: Some(code), ..Refusing::default() }));
        if yes.contains(&code) {
            saved.unwrap();
            assert_eq!(all_see(temporary.path()), [const { Seen::Whole(7) }; 3], "{code}");
        } else {
            let error = saved.unwrap_err();
            assert!(
                matches!(&error, Error::Save { source, .. } if source.raw_os_error() == Some(code))
            );
            assert_eq!((all_see(temporary.path()), list(temporary.path())), (before, names));
        }
    }
}

/// A file that is there and cannot be read, whoever asks.
fn unreadable(path: &Path) {
    let _ = fs::remove_file(path);
    symlink(path, path).unwrap();
}

#[test]
fn a_work_folder_stays_while_an_index_or_its_journal_cannot_be_read() {
    for unread in [INDEX, "any.json", "journal"] {
        let temporary = temporary_folder();
        let work = temporary.path().join(WORK);
        fs::create_dir(&work).unwrap();
        fs::write(work.join("weights"), "the only copy").unwrap();
        let journal = work.join("journal.json");
        let path = if unread == "journal" { journal } else { temporary.path().join(unread) };
        unreadable(&path);
        let error = recover(&RealDisk, temporary.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(&error, Error::Save { path: found, .. } if *found == path), "{error}");
        assert!(work.join("weights").exists());
        fs::remove_file(&path).unwrap();
        assert_eq!(recover(&RealDisk, temporary.path(), Duration::ZERO).unwrap().len(), 1);
    }
}

#[test]
fn a_save_over_an_index_that_cannot_be_read_is_refused() {
    let temporary = Start::Sharded(2).build();
    let names = list(temporary.path());
    unreadable(&temporary.path().join(INDEX));
    let error = save(temporary.path(), 3, 7, plain(true)).unwrap_err();
    assert!(error.to_string().contains("reading the index failed"), "{error}");
    assert_eq!(list(temporary.path()), names);
}

#[test]
fn every_new_file_is_closed_before_the_first_is_renamed() {
    let temporary = temporary_folder();
    for durable in [false, true] {
        let disk = Arc::new(Refusing::default());
        let options = SaveOptions { disk: disk.clone(), durable, ..plain(true) };
        save(temporary.path(), 3, 7, options).unwrap();
        let asked = disk.asked.lock().unwrap().clone();
        let first = asked.iter().position(|what| what.starts_with("rename to")).unwrap();
        let count = |what: &str| asked[..first].iter().filter(|one| one.starts_with(what)).count();
        // Three shards, two indexes, the journal.
        assert_eq!((count("create"), count("close")), (6, 6), "{asked:?}");
        assert_eq!(asked[first], "rename to journal.json");
    }
}

#[test]
fn what_is_told_when_a_file_is_closed_fails_the_save() {
    for code in [libc::EDQUOT, libc::ENOSPC, libc::EIO] {
        let refusing = || on(Refusing { close: Some(code), ..Refusing::default() });
        let temporary = Start::Sharded(2).build();
        let (before, names) = (all_see(temporary.path()), list(temporary.path()));
        let file = temporary.path().join("file");
        for saved in [save(temporary.path(), 3, 7, refusing()), save_file(&file, 7, refusing())] {
            let Error::Save { action, source, .. } = saved.unwrap_err() else { panic!("{code}") };
            assert_eq!((action, source.raw_os_error()), ("closing", Some(code)));
        }
        assert_eq!((all_see(temporary.path()), list(temporary.path())), (before, names));
    }
}

#[test]
fn an_error_after_readers_see_the_new_checkpoint_says_so() {
    let refusing = Refusing { remove_folder: Some(libc::ENOTEMPTY), ..Refusing::default() };
    let temporary = Start::Sharded(2).build();
    let error = save(temporary.path(), 3, 7, on(refusing)).unwrap_err();
    assert!(matches!(&error, Error::AfterSave { path, .. } if path == temporary.path()));
    assert!(error.to_string().contains("what was saved is in place and whole"), "{error}");
    assert!(error.to_string().contains(".windlass-"), "says where: {error}");
    assert_eq!(all_see(temporary.path()), [const { Seen::Whole(7) }; 3]);
    assert_eq!(recover(&RealDisk, temporary.path(), Duration::ZERO).unwrap().len(), 1);
    assert_eq!(list(temporary.path()).len(), 4);

    let path = temporary.path().join("file");
    let refusing = Refusing { sync_folder: Some(libc::EIO), ..Refusing::default() };
    let options = SaveOptions { durable: true, ..on(refusing) };
    let error = save_file(&path, 7, options).unwrap_err();
    assert!(matches!(&error, Error::AfterSave { path: found, .. } if *found == path), "{error}");
    assert!(fs::read(&path).unwrap().ends_with(&[7; 18]));
}

#[test]
fn files_are_staged_for_their_owner_and_get_their_permissions_at_the_end() {
    let temporary = Start::Sharded(2).build();
    for name in list(temporary.path()) {
        fs::set_permissions(temporary.path().join(name), Permissions::from_mode(0o444)).unwrap();
    }
    let disk = Arc::new(Refusing::default());
    let options = SaveOptions { disk: disk.clone(), ..plain(true) };
    let save = begun(temporary.path(), options);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    for file in [0, 1] {
        assert_eq!(mode(save.staged_path(file)), 0o600, "it can be opened again by its name");
    }
    commit(save).unwrap();
    for name in list(temporary.path()) {
        assert_eq!(mode(&temporary.path().join(&name)), 0o444, "{name}");
    }
    let asked = disk.asked.lock().unwrap();
    let created: Vec<_> = asked.iter().filter(|one| one.starts_with("create 600")).collect();
    // Two shards, two indexes; the journal is nobody's successor.
    assert_eq!(created.len(), 4, "{asked:?}");
}

#[test]
fn a_work_folder_has_all_the_permissions_of_its_folder() {
    for mode in [0o2775, 0o1777, 0o3770, 0o555] {
        let temporary = temporary_folder();
        fs::set_permissions(temporary.path(), Permissions::from_mode(mode)).unwrap();
        let save = begun(temporary.path(), plain(true));
        let work = save.staged_path(0).parent().unwrap().to_owned();
        let found = work.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode | 0o700);
    }
}

#[test]
fn what_came_into_the_folder_during_a_save_is_replaced_by_it() {
    let temporary = temporary_folder();
    let save = begun(temporary.path(), plain(true));
    foreign_save(temporary.path(), 1, 3);
    assert_eq!(all_see(temporary.path()), [const { Seen::Whole(3) }; 3]);
    commit(save).unwrap();
    assert!(!temporary.path().join(SINGLE).exists(), "{:?}", list(temporary.path()));
    assert_eq!(list(temporary.path()).len(), 3);
}

/// Where a file system keeps no permissions, all are the same, and setting them is refused.
#[test]
fn permissions_that_are_right_are_not_set() {
    for old in [None, Some(0o600)] {
        let temporary = temporary_folder();
        if let Some(mode) = old {
            save(temporary.path(), 2, 3, plain(true)).unwrap();
            for name in list(temporary.path()) {
                let path = temporary.path().join(name);
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
        }
        let disk = Refusing { set_mode: Some(libc::EPERM), ..Refusing::default() };
        save(temporary.path(), 2, 9, on(disk)).unwrap();
        assert_eq!(all_see(temporary.path()), [const { Seen::Whole(9) }; 3]);
    }
}

#[test]
fn what_is_incomplete_has_no_name_of_a_weights_file() {
    let temporary = temporary_folder();
    let save = begun(temporary.path(), plain(true));
    let work = save.staged_path(0).parent().unwrap().to_owned();
    let found = fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().path());
    let endings: Vec<_> = found.map(|path| path.extension().unwrap().to_owned()).collect();
    assert_eq!(endings, ["incomplete", "incomplete"]);
    commit(save).unwrap();
    assert_eq!(list(temporary.path()).len(), 3, "{:?}", list(temporary.path()));
}

#[cfg(target_os = "linux")]
#[test]
fn old_files_are_held_open_until_all_steps_are_done() {
    let temporary = temporary_folder();
    let old = temporary.path().join("model-00001-of-00003.safetensors");
    fs::write(&old, vec![0; 1 << 20]).unwrap();
    let held = || {
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let targets = open.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
        targets
            .filter(|target| target.starts_with(temporary.path().canonicalize().unwrap()))
            .count()
    };
    let save = begun(temporary.path(), plain(true));
    // The lock, two staged files, and the old one.
    assert_eq!(held(), 4);
    commit(save).unwrap();
    assert_eq!(held(), 0);
    assert!(!old.exists());
}

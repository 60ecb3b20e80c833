//! One save at a time in a folder, also where the file system has no locks.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::refusing_disk::{Refusing, begun, commit, on, recover};
use builders::saving::{save, save_file};
use builders::scenes::{plain, temporary_folder};
use builders::seen::{Seen, all_see, list};
use std::fs::{self, File};
use std::thread;
use std::time::{Duration, SystemTime};
use windlass_core::{Error, SaveOptions};

/// What keeps others out where there are no locks.
const CLAIM: &str = ".windlass.claim";

/// Where the file system has no locks.
fn unlocked() -> SaveOptions {
    on(Refusing { lock: Some(libc::ENOSYS), ..Refusing::default() })
}

#[test]
fn only_an_error_that_speaks_of_locks_means_that_there_are_none() {
    let temporary = temporary_folder();
    for code in [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL, libc::ENOLCK] {
        save(temporary.path(), 2, 7, on(Refusing { lock: Some(code), ..Refusing::default() }))
            .unwrap();
    }
    for code in [libc::EIO, libc::EBADF] {
        let refusing = Refusing { lock: Some(code), ..Refusing::default() };
        let error = save(temporary.path(), 2, 7, on(refusing)).unwrap_err();
        assert!(error.to_string().contains("locking the folder failed"), "{error}");
    }
}

#[test]
fn without_locks_saves_take_turns_too() {
    let temporary = temporary_folder();
    let first = begun(temporary.path(), unlocked());
    let claim = temporary.path().join(CLAIM);
    let impatient = SaveOptions { lock_timeout: Duration::from_millis(30), ..unlocked() };
    let disk = Refusing { lock: Some(libc::ENOSYS), ..Refusing::default() };
    let errors = [
        save(temporary.path(), 1, 3, impatient).unwrap_err(),
        recover(&disk, temporary.path(), Duration::ZERO).unwrap_err(),
    ];
    for error in errors {
        let Error::Locked { path, holder, .. } = error else { panic!("{error}") };
        assert_eq!((path, holder), (claim.clone(), format!("process {}", std::process::id())));
    }
    thread::scope(|scope| {
        let second = scope.spawn(|| save(temporary.path(), 2, 9, unlocked()));
        thread::sleep(Duration::from_millis(50));
        commit(first).unwrap();
        second.join().unwrap().unwrap();
    });
    assert_eq!(all_see(temporary.path()), [const { Seen::Whole(9) }; 3]);
    assert_eq!(list(temporary.path()).len(), 3, "{:?}", list(temporary.path()));
}

#[test]
fn without_locks_a_claim_that_is_not_refreshed_is_taken_over_and_its_holder_fails() {
    for age in [Duration::from_secs(60), Duration::from_secs(120)] {
        let temporary = temporary_folder();
        save(temporary.path(), 2, 3, plain(true)).unwrap();
        let slow = begun(temporary.path(), unlocked());
        let claim = File::options().write(true).open(temporary.path().join(CLAIM)).unwrap();
        claim.set_modified(SystemTime::now() - age).unwrap();
        let impatient = SaveOptions { lock_timeout: Duration::from_millis(30), ..unlocked() };
        let taken_over = save(temporary.path(), 2, 9, impatient);
        if age < Duration::from_secs(90) {
            assert!(matches!(taken_over, Err(Error::Locked { .. })), "{taken_over:?}");
            commit(slow).unwrap();
        } else {
            taken_over.unwrap();
            commit(slow).unwrap_err();
            assert_eq!(all_see(temporary.path()), [const { Seen::Whole(9) }; 3]);
        }
        assert_eq!(list(temporary.path()).len(), 3, "{:?}", list(temporary.path()));
    }
}

#[test]
fn without_locks_a_save_that_has_lost_its_claim_changes_nothing() {
    let temporary = temporary_folder();
    save(temporary.path(), 2, 3, plain(true)).unwrap();
    let slow = begun(temporary.path(), unlocked());
    let claim = temporary.path().join(CLAIM);
    fs::remove_file(&claim).unwrap();
    fs::write(&claim, "somebody else's").unwrap();
    let error = commit(slow).unwrap_err();
    assert!(error.to_string().contains("another save has taken the folder"), "{error}");
    assert_eq!(all_see(temporary.path()), [const { Seen::Whole(3) }; 3]);
    assert_eq!(fs::read_to_string(&claim).unwrap(), "somebody else's", "it stays");
}

#[test]
fn without_locks_what_a_killed_save_of_a_file_left_goes_when_it_is_old() {
    for (age, stays) in [(Duration::from_secs(300), true), (Duration::from_secs(900), false)] {
        let temporary = temporary_folder();
        let leftover = temporary.path().join(".one.safetensors.windlass-0000000000000000");
        let file = File::create(&leftover).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        save_file(&temporary.path().join("one.safetensors"), 3, unlocked()).unwrap();
        assert_eq!(leftover.exists(), stays, "{age:?}");
        assert_eq!(list(temporary.path()).len(), if stays { 2 } else { 1 });
        let disk = Refusing { lock: Some(libc::ENOSYS), ..Refusing::default() };
        let file = File::create(&leftover).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        recover(&disk, temporary.path(), Duration::ZERO).unwrap();
        assert_eq!(leftover.exists(), stays, "{age:?}");
    }
}

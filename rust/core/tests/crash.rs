//! A save that is cut short anywhere: every reader finds the old checkpoint or the new one.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::faulty_disk::{Fault, FaultyDisk};
use builders::saving::{options, save};
use builders::scenes::{Start, copy_of, plain};
use builders::seen::{INDEX, SINGLE, Seen, all_see, foreign_sees, list, weight_map};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use windlass_core::save::{Disk, LOCK_FILE, Recovered};
use windlass_core::{Control, Result, save as saves};

const NEW: u8 = 7;
const NEXT: u8 = 9;

/// A save: from what, to how many files, and how.
#[derive(Clone, Copy, Debug)]
struct Transition {
    start: Start,
    count: usize,
    links: bool,
    durable: bool,
}

impl Transition {
    fn all(durable: bool) -> Vec<Self> {
        let mut all = Vec::new();
        for start in Start::ALL {
            for count in [1, 2, 3] {
                // One file beside no index takes its place by one rename, links or not.
                let by_rename = count == 1
                    && matches!(start, Start::Nothing | Start::Single | Start::SingleAndStrays);
                let links = [true, false].into_iter().filter(|links| *links || !by_rename);
                all.extend(links.map(|links| Self { start, count, links, durable }));
            }
        }
        all
    }

    fn operations_before_the_journal(self, template: &Path) -> usize {
        let (copy, count) = (copy_of(template), Arc::new(AtomicUsize::new(0)));
        let (watched, counted) = (copy.path().to_owned(), Arc::clone(&count));
        let journalled = AtomicBool::new(false);
        let mut disk = FaultyDisk::faultless(self.links);
        disk.before_each = Box::new(move || {
            journalled.fetch_or(has_journal(&watched), Ordering::SeqCst);
            let is_before = !journalled.load(Ordering::SeqCst);
            counted.fetch_add(usize::from(is_before), Ordering::SeqCst);
        });
        self.save(copy.path(), disk).unwrap();
        count.load(Ordering::SeqCst)
    }

    fn save(self, folder: &Path, disk: FaultyDisk) -> Result<()> {
        save(folder, self.count, NEW, options(Arc::new(disk), self.durable))
    }

    /// Calls `check` with what each fault of this kind left, until none happens.
    ///
    /// Before the journal all saves do the same, whatever is there: of one start every such
    /// operation is tried, of the others some.
    fn cut_short(self, fault: Fault, check: impl Fn(&Cut<'_>)) {
        let template = self.start.build();
        let staging = self.operations_before_the_journal(template.path());
        let stride = if self.start == Start::Both { 1 } else { 5 };
        for at in (0..staging).step_by(stride).chain(staging..) {
            let temporary = copy_of(template.path());
            let folder = temporary.path();
            let (before, names_before) = (all_see(folder), list(folder));
            let foreign_before = foreign_sees(folder);
            let disk = Arc::new(FaultyDisk::failing(at, fault, self.links));
            let saved = save(folder, self.count, NEW, options(disk.clone(), self.durable));
            if fault == Fault::Death {
                fs::write(folder.join(LOCK_FILE), "1\n").unwrap();
            }
            if !disk.has_failed() {
                return saved.unwrap();
            }
            let label = format!("{self:?}, {disk:?}");
            check(&Cut { label, folder, saved, before, foreign_before, names_before });
        }
    }
}

/// A save that was cut short.
struct Cut<'a> {
    label: String,
    folder: &'a Path,
    saved: Result<()>,
    before: [Seen; 3],
    foreign_before: Seen,
    names_before: BTreeSet<String>,
}

impl Cut<'_> {
    /// Every reader of `folder` finds what it found before the save, or the new checkpoint.
    fn check_whole(&self, folder: &Path, when: &str) {
        let now = all_see(folder);
        for (now, before) in now.iter().zip(&self.before) {
            let whole = now == before || *now == Seen::Whole(NEW);
            assert!(whole, "{when}: {now:?}, {:?}, {}", list(folder), self.label);
        }
        let foreign = foreign_sees(folder);
        let whole = is_whole_or_gone(&foreign, &self.foreign_before);
        assert!(whole, "{when}: {foreign:?}, {:?}, {}", list(folder), self.label);
    }

    fn has_journal(&self) -> bool {
        has_journal(self.folder)
    }

    /// What readers that agreed before the save find in a folder that has been recovered.
    fn check_recovered(&self, folder: &Path) {
        self.check_whole(folder, "recovered");
        let now = all_see(folder);
        if self.before.iter().all(|seen| *seen == self.before[0]) {
            assert!(now.iter().all(|seen| *seen == now[0]), "{now:?}, {}", self.label);
        }
        if now == [const { Seen::Whole(NEW) }; 3] {
            check_tidy(folder, &self.label);
        } else {
            assert_eq!(list(folder), self.names_before, "{}", self.label);
        }
    }
}

/// A reader that knows the index by its foreign name only finds the old checkpoint, or nothing for
/// want of an index, or the new one in a single file.
fn is_whole_or_gone(now: &Seen, before: &Seen) -> bool {
    now == before || [Seen::Nothing, Seen::Whole(NEW)].contains(now)
}

fn has_journal(folder: &Path) -> bool {
    list(folder).iter().any(|name| folder.join(name).join("journal.json").exists())
}

fn recover(disk: &dyn Disk, folder: &Path) -> Result<Vec<Recovered>> {
    saves::recover(disk, folder, Duration::from_secs(60), &Control::default())
}

/// A recovery in which nothing fails.
fn recovered(folder: &Path) -> Vec<Recovered> {
    recover(&FaultyDisk::faultless(true), folder).unwrap()
}

/// Nothing is in the folder but the checkpoint.
fn check_tidy(folder: &Path, label: &str) {
    let named = weight_map(folder).into_iter().flatten().map(|(_, file)| file);
    let tops = named.map(|file| file.split('/').next().unwrap().to_owned());
    let used: BTreeSet<_> = tops.chain([SINGLE.to_owned()]).collect();
    let unused: Vec<_> = list(folder).into_iter().filter(|name| !used.contains(name)).collect();
    let is_index = |name: &String| name == INDEX;
    assert!(unused.iter().all(is_index), "left: {unused:?}, {label}");
}

fn check_next_save(transition: Transition, folder: &Path, label: &str) {
    let count = 1 + transition.count % 3;
    let next = save(folder, count, NEXT, plain(transition.links));
    next.unwrap_or_else(|error| panic!("{error}, {label}"));
    assert_eq!(all_see(folder), [const { Seen::Whole(NEXT) }; 3], "{label}");
    check_tidy(folder, label);
}

#[test]
fn a_save_without_a_fault_is_seen_by_all_readers() {
    for transition in [Transition::all(true), Transition::all(false)].concat() {
        let temporary = transition.start.build();
        let folder = temporary.path();
        transition.save(folder, FaultyDisk::faultless(transition.links)).unwrap();
        let label = format!("{transition:?}");
        assert_eq!(all_see(folder), [const { Seen::Whole(NEW) }; 3], "{label}");
        check_tidy(folder, &label);
        check_next_save(transition, folder, &label);
    }
}

#[test]
fn between_any_two_operations_every_reader_finds_the_old_or_the_new_checkpoint() {
    for transition in Transition::all(true) {
        let temporary = transition.start.build();
        let folder = temporary.path().to_owned();
        let (before, foreign_before) = (all_see(&folder), foreign_sees(&folder));
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let mut disk = FaultyDisk::faultless(transition.links);
        let (of_disk, watched) = (Arc::clone(&wrong), folder.clone());
        disk.before_each = Box::new(move || {
            for (now, before) in all_see(&watched).into_iter().zip(&before) {
                if now != *before && now != Seen::Whole(NEW) {
                    of_disk.lock().unwrap().push((now, list(&watched)));
                }
            }
            let foreign = foreign_sees(&watched);
            if !is_whole_or_gone(&foreign, &foreign_before) {
                of_disk.lock().unwrap().push((foreign, list(&watched)));
            }
        });
        transition.save(&folder, disk).unwrap();
        assert!(wrong.lock().unwrap().is_empty(), "{:?}, {transition:?}", wrong.lock().unwrap());
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_checkpoint() {
    for transition in Transition::all(false) {
        transition.cut_short(Fault::Death, |cut| {
            assert!(cut.saved.is_err(), "{}", cut.label);
            cut.check_whole(cut.folder, "crashed");
            let copy = copy_of(cut.folder);
            check_next_save(transition, copy.path(), &cut.label);
            recovered(cut.folder);
            cut.check_recovered(cut.folder);
            assert_eq!(recovered(cut.folder), [], "{}", cut.label);
        });
    }
}

#[test]
fn a_copy_of_what_a_crash_left_is_recovered_whole() {
    for transition in Transition::all(false) {
        transition.cut_short(Fault::Death, |cut| {
            let copy = copy_of(cut.folder);
            recovered(copy.path());
            cut.check_whole(copy.path(), "recovered copy");
        });
    }
}

#[test]
fn an_operation_that_is_refused_fails_the_save_and_leaves_one_whole_checkpoint() {
    // What a durable save does besides is to wait, which changes nothing on the way.
    let durable = Transition::all(true).into_iter().filter(|one| one.start == Start::Both);
    for transition in Transition::all(false).into_iter().chain(durable) {
        for fault in [Fault::Refused, Fault::DoneAndRefused] {
            transition.cut_short(fault, |cut| {
                cut.check_whole(cut.folder, "refused");
                assert!(!cut.folder.join(LOCK_FILE).exists(), "{}", cut.label);
                if cut.saved.is_ok() {
                    assert_eq!(all_see(cut.folder), [const { Seen::Whole(NEW) }; 3]);
                } else if fault == Fault::Refused && all_see(cut.folder) == cut.before {
                    assert_eq!(list(cut.folder), cut.names_before, "{}", cut.label);
                }
                recovered(cut.folder);
                cut.check_recovered(cut.folder);
            });
        }
    }
}

#[test]
fn a_recovery_may_crash_at_any_operation_and_be_done_again() {
    for transition in Transition::all(false) {
        let undone = Cell::new(false);
        transition.cut_short(Fault::Death, |cut| {
            // Whatever is there before the journal, recovery removes it: once is enough.
            if !cut.has_journal() && undone.replace(true) {
                return;
            }
            for at in 0.. {
                let copy = copy_of(cut.folder);
                let disk = FaultyDisk::failing(at, Fault::Death, true);
                let outcome = recover(&disk, copy.path());
                cut.check_whole(copy.path(), "recovery crashed");
                if !disk.has_failed() {
                    outcome.unwrap();
                    break;
                }
                recovered(copy.path());
                cut.check_whole(copy.path(), "recovered again");
            }
        });
    }
}

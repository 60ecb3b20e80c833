//! What recovery leaves alone: files of others, saves of others, folders that came from elsewhere.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::faulty_disk::{Fault, FaultyDisk};
use builders::saving::{file_names, new_file, new_tensor, options, save, save_file};
use builders::scenes::{Start, copy_of, foreign_save, plain, temporary_folder};
use builders::seen::{FOREIGN_INDEX, INDEX, SINGLE, Seen, all_see, foreign_sees, list};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use windlass_core::save::{IndexTexts, Outcome, Recovered};
use windlass_core::{Control, Family, Save, save as saves};

const JOURNAL: &str = "journal.json";
const NEW: u8 = 7;
const FOREIGN: u8 = 5;

/// Files beside the checkpoint, none of which are part of it.
const BYSTANDERS: [&str; 10] = [
    "model.fp16-00001-of-00002.safetensors",
    "model.safetensors.index.fp16.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "model-00001-of-00002.safetensors.bak",
    "modelX-12345-of-12345.safetensors",
    "pytorch_model-00001-of-00002.bin",
    "model-1-of-2.safetensors",
    "config.json",
    ".model.safetensors.swp",
];

/// Saves `count` files of [`NEW`] until the process dies at operation `at`; whether it did.
fn crash(folder: &Path, count: usize, links: bool, at: usize) -> bool {
    let disk = Arc::new(FaultyDisk::failing(at, Fault::Death, links));
    let saved = save(folder, count, NEW, options(disk.clone(), false));
    assert_eq!(saved.is_err(), disk.has_failed());
    disk.has_failed()
}

fn recover(folder: &Path) -> Vec<Recovered> {
    let disk = FaultyDisk::faultless(true);
    saves::recover(&disk, folder, Duration::from_secs(60), &Control::default()).unwrap()
}

/// Every crash of a save that begins with `start`, in a folder of its own.
fn each_crash(start: Start, count: usize, links: bool, check: impl Fn(&Path)) {
    let template = start.build();
    for at in 0.. {
        let temporary = copy_of(template.path());
        if !crash(temporary.path(), count, links, at) {
            break;
        }
        check(temporary.path());
    }
}

/// The first crash after which `is_so` of the folder.
fn crash_when(start: Start, count: usize, is_so: impl Fn(&Path) -> bool) -> tempfile::TempDir {
    let template = start.build();
    let crashed = (0..).map(|at| {
        let temporary = copy_of(template.path());
        assert!(crash(temporary.path(), count, true, at), "no crash is like that");
        temporary
    });
    crashed.into_iter().find(|temporary| is_so(temporary.path())).unwrap()
}

/// The only work folder.
fn work_folder(folder: &Path) -> PathBuf {
    let is_one = |name: &String| name.starts_with("model.windlass-");
    folder.join(list(folder).into_iter().find(is_one).unwrap())
}

/// A crash right after the commit: the index points into the work folder.
fn committed() -> tempfile::TempDir {
    crash_when(Start::Sharded(2), 3, |folder| all_see(folder)[2] == Seen::Whole(NEW))
}

fn contents(folder: &Path, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

#[test]
fn files_of_others_are_untouched_by_saves_crashes_and_recovery() {
    for start in Start::ALL {
        for (count, links) in [(1, true), (1, false), (2, true), (3, true), (3, false)] {
            let template = start.build();
            for name in BYSTANDERS {
                fs::write(template.path().join(name), name).unwrap();
            }
            for at in (0..).step_by(7) {
                let temporary = copy_of(template.path());
                let folder = temporary.path();
                let crashed = crash(folder, count, links, at);
                recover(folder);
                let expected = BYSTANDERS.map(|name| name.as_bytes().to_vec());
                assert_eq!(contents(folder, &BYSTANDERS), expected, "{start:?}, {count}, {at}");
                if !crashed {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_save_of_another_variant_leaves_a_checkpoint_in_its_work_folder_alone() {
    let temporary = Start::Kept(2).build();
    let folder = temporary.path();
    let before = all_see(folder);
    for (prefix, suffix) in [("model.fp16", ".safetensors"), ("model", ".bin")] {
        let index = format!("{prefix}{suffix}.index.json");
        let (prefix, suffix) = (prefix.to_owned(), suffix.to_owned());
        let family = Family { prefix, suffix, index, foreign_index: None };
        let file = new_file(&family.single(), vec![new_tensor("t", 0)]);
        let control = Control::default();
        let save = Save::folder(folder, family, vec![file], plain(true), &control).unwrap();
        save.commit(&IndexTexts::default(), &control).unwrap();
        assert_eq!(all_see(folder)[2], before[2]);
    }
}

/// What somebody else wrote is newer than all else, also where clocks are coarse.
fn foreign_files(folder: &Path, count: usize) -> BTreeMap<String, Vec<u8>> {
    foreign_save(folder, count, FOREIGN);
    let mut names = file_names(count);
    names.extend((count > 1).then(|| INDEX.to_owned()));
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    let read = |name: String| {
        let path = folder.join(&name);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        (name, fs::read(path).unwrap())
    };
    names.into_iter().map(read).collect()
}

#[test]
fn what_somebody_else_saved_after_a_crash_is_left_alone() {
    for start in [Start::Nothing, Start::Single, Start::Sharded(2), Start::Sharded(3), Start::Both]
    {
        for (count, links) in [(1, true), (1, false), (2, true), (3, true), (3, false)] {
            for foreign_count in [1, 2, 3] {
                each_crash(start, count, links, |folder| {
                    let theirs = foreign_files(folder, foreign_count);
                    recover(folder);
                    for (name, bytes) in theirs {
                        let label =
                            format!("{start:?} to {count}, {foreign_count} over it: {name}");
                        assert_eq!(fs::read(folder.join(&name)).unwrap(), bytes, "{label}");
                    }
                    let reader = if foreign_count == 1 { 0 } else { 2 };
                    assert_eq!(all_see(folder)[reader], Seen::Whole(FOREIGN));
                });
            }
        }
    }
}

#[test]
fn what_somebody_else_saved_with_an_index_of_another_name_is_left_alone() {
    for start in [Start::ForeignIndex(2), Start::BothIndexes(2)] {
        for (count, links) in [(1, true), (2, true), (2, false), (3, true)] {
            each_crash(start, count, links, |folder| {
                let ours = fs::read(folder.join(INDEX)).ok();
                foreign_files(folder, 2);
                fs::rename(folder.join(INDEX), folder.join(FOREIGN_INDEX)).unwrap();
                if let Some(text) = ours {
                    fs::write(folder.join(INDEX), text).unwrap();
                }
                // A single file goes before an index, for those who know it by that name.
                let _ = fs::remove_file(folder.join(SINGLE));
                recover(folder);
                assert_eq!(foreign_sees(folder), Seen::Whole(FOREIGN), "{start:?} to {count}");
            });
        }
    }
}

#[test]
fn what_was_done_is_reported() {
    let has_work_folder =
        |folder: &Path| list(folder).iter().any(|name| name.starts_with("model.windlass-"));
    let rows = [
        (crash_when(Start::Sharded(2), 3, has_work_folder), 0, Outcome::Undone),
        (committed(), 0, Outcome::Completed),
        (committed(), 2, Outcome::Superseded),
    ];
    for (temporary, foreign_count, outcome) in rows {
        let folder = temporary.path();
        let work = work_folder(folder);
        if foreign_count > 0 {
            foreign_files(folder, foreign_count);
        }
        let name = work.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(recover(folder), [Recovered { name, outcome }]);
    }
}

#[test]
fn a_work_folder_that_an_index_names_stays_whatever_its_journal_says() {
    for journal in [None, Some("{"), Some("{}")] {
        let temporary = Start::Kept(2).build();
        let folder = temporary.path();
        if let Some(text) = journal {
            fs::write(work_folder(folder).join(JOURNAL), text).unwrap();
        }
        let before = all_see(folder);
        assert_eq!(recover(folder), []);
        assert_eq!(all_see(folder), before);
    }
}

#[test]
fn a_single_file_that_was_put_back_beside_a_kept_work_folder_stays() {
    let temporary = Start::Single.build();
    let folder = temporary.path();
    let (single, backup) = (folder.join(SINGLE), folder.join("backup"));
    fs::hard_link(&single, &backup).unwrap();
    save(folder, 2, NEW, plain(false)).unwrap();
    fs::rename(&backup, &single).unwrap();
    recover(folder);
    assert!(single.exists());
}

#[test]
fn an_index_that_was_removed_after_a_crash_takes_no_old_file_along() {
    let committed = |folder: &Path| all_see(folder)[2] == Seen::Whole(NEW);
    let temporary = crash_when(Start::Single, 2, committed);
    let folder = temporary.path();
    fs::remove_file(folder.join(INDEX)).unwrap();
    let before = all_see(folder);
    recover(folder);
    assert_eq!(all_see(folder), before);
}

#[test]
fn an_index_that_was_put_back_after_a_crash_keeps_its_shards() {
    let template = Start::Sharded(3).build();
    for at in 0.. {
        let temporary = copy_of(template.path());
        let folder = temporary.path();
        let (index, backup) = (folder.join(INDEX), folder.join("backup"));
        fs::hard_link(&index, &backup).unwrap();
        if !crash(folder, 3, true, at) {
            break;
        }
        fs::rename(&backup, &index).unwrap();
        let before = all_see(folder);
        recover(folder);
        assert_eq!(all_see(folder), before, "{at}");
    }
}

#[test]
fn a_work_folder_that_is_removed_loses_its_journal_first() {
    let has_journal =
        |folder: &Path| list(folder).iter().any(|name| folder.join(name).join(JOURNAL).exists());
    for at in 0.. {
        let temporary = crash_when(Start::Sharded(2), 3, has_journal);
        let work = work_folder(temporary.path());
        // Wherever the journal stands in the listing, and some file systems begin with the latest.
        (0..4).for_each(|i| fs::write(work.join(format!("later{i}")), "").unwrap());
        let before = list(&work);
        let disk = FaultyDisk::failing(at, Fault::Death, true);
        let (folder, control) = (temporary.path(), Control::default());
        if saves::recover(&disk, folder, Duration::ZERO, &control).is_ok() {
            break;
        }
        assert!(!work.join(JOURNAL).exists() || list(&work) == before, "{at}");
    }
}

#[test]
fn a_recovery_without_hard_links_leaves_the_checkpoint_where_it_is() {
    let temporary = committed();
    let folder = temporary.path();
    let disk = FaultyDisk::faultless(false);
    let recovered = saves::recover(&disk, folder, Duration::ZERO, &Control::default()).unwrap();
    assert_eq!(recovered, []);
    assert_eq!(all_see(folder), [const { Seen::Whole(NEW) }; 3]);
    save(folder, 2, 9, plain(false)).unwrap();
    assert_eq!(all_see(folder), [const { Seen::Whole(9) }; 3]);
    assert_eq!(list(folder).len(), 2, "{:?}", list(folder));
}

#[test]
fn a_journal_cannot_reach_out_of_its_folder() {
    let outer = temporary_folder();
    let (folder, victim) = (outer.path().join("checkpoint"), outer.path().join("victim"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("a"), "theirs").unwrap();
    for name in ["../victim", "/tmp/../victim", "..", ".", "", "a/../../victim", "./../victim"] {
        let work = folder.join("model.windlass-0123456789abcdef");
        fs::create_dir_all(&work).unwrap();
        let text = |steps: Value, index: &str| {
            let plan = json!({"steps": steps, "keep_work_folder": false});
            json!({"index": index, "index_before": null, "last_index": null, "durable": false,
                   "plan": plan})
        };
        let remove = json!([{"RemoveFolder": {"name": name}}]);
        let moves = json!([{"Move": {"from": "x", "to": format!("{name}/a")}}]);
        let out = json!([{"Move": {"from": "x", "to": "y"}}, {"Move": {"from": name, "to": "z"}}]);
        for journal in [text(remove, "i"), text(moves, "i"), text(out, "i"), text(json!([]), name)]
        {
            fs::create_dir_all(&work).unwrap();
            fs::write(work.join(JOURNAL), journal.to_string()).unwrap();
            let undone = Outcome::Undone;
            assert!(matches!(&recover(&folder)[..], [one] if one.outcome == undone), "{journal}");
            assert_eq!(fs::read(victim.join("a")).unwrap(), b"theirs");
            assert!(!work.exists(), "a journal that no save wrote is no journal");
        }
    }
}

#[test]
fn a_link_that_is_called_like_a_leftover_is_not_followed() {
    let outer = temporary_folder();
    let (folder, victim) = (outer.path().join("checkpoint"), outer.path().join("victim"));
    for path in [&folder, &victim] {
        fs::create_dir(path).unwrap();
    }
    fs::write(victim.join("a"), "theirs").unwrap();
    symlink(&victim, folder.join("model.windlass-0123456789abcdef")).unwrap();
    symlink(victim.join("a"), folder.join(".model.windlass-0123456789abcdef")).unwrap();
    assert_eq!(recover(&folder), []);
    assert_eq!(fs::read(victim.join("a")).unwrap(), b"theirs");
}

#[test]
fn a_single_file_is_the_old_or_the_new_one_after_a_crash_at_any_operation() {
    for old in [None, Some(1)] {
        for fault in [Fault::Death, Fault::Refused, Fault::DoneAndRefused] {
            for at in 0.. {
                let temporary = temporary_folder();
                let path = temporary.path().join("weights");
                if let Some(value) = old {
                    save_file(&path, value, plain(true)).unwrap();
                }
                let before = fs::read(&path).ok();
                let disk = Arc::new(FaultyDisk::failing(at, fault, true));
                let saved = save_file(&path, NEW, options(disk.clone(), true));
                let after = fs::read(&path).ok();
                if !disk.has_failed() {
                    saved.unwrap();
                    break;
                }
                let is_new = after.as_ref().is_some_and(|bytes| bytes.ends_with(&[NEW; 18]));
                assert!(saved.is_err() && (after == before || is_new), "{disk:?}");
                let left = list(temporary.path()).len();
                assert!(fault != Fault::Refused || left == usize::from(after.is_some()), "{left}");
                save_file(&path, 9, plain(true)).unwrap();
                assert_eq!(list(temporary.path()).len(), 1, "{disk:?}");
            }
        }
    }
}

//! [`Plan`]: the changes of names that turn the old checkpoint into the new one. Pure.
//!
//! New files wait in a work folder inside the checkpoint's folder. At every point between two
//! steps, each of these readers finds the old checkpoint or the new one, whole:
//!
//! - one that takes the single file first, then the index (transformers);
//! - one that takes the index first, then the single file (windlass), and that refuses a folder
//!   with several weights files and no index (`huggingface_hub`).
//!
//! ARCHITECTURE.md tells what each of them sees at each step.

use super::stamp::Stamp;
use serde::{Deserialize, Serialize};

/// Name, in the work folder, of the index that points into the work folder.
pub(super) const INTERIM_INDEX: &str = "interim.index";

/// Name, in the work folder, of the index that points to the names that stay.
pub(super) const LAST_INDEX: &str = "last.index";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Moves a file out of the work folder, over what is there.
    Move {
        /// Name in the work folder.
        from: String,
        /// Name in the folder.
        to: String,
    },
    /// Gives a file of the work folder a name in the folder, over what is there.
    Link {
        /// Name in both.
        name: String,
    },
    /// Removes a file of the old checkpoint, if it is still the same.
    Remove {
        /// Name in the folder.
        name: String,
        /// What it was.
        stamp: Stamp,
    },
    /// Removes the work folder of an older save, which its index pointed into.
    RemoveFolder {
        /// Name in the folder.
        name: String,
    },
}

/// What is in the folder before the save.
#[derive(Clone, Debug, Default)]
pub(super) struct Existing {
    pub(super) single: Option<Stamp>,
    pub(super) shards: Vec<(String, Stamp)>,
    pub(super) index: Option<Stamp>,
    /// Work folders that the index points into.
    pub(super) work_folders: Vec<String>,
}

/// What the new checkpoint consists of.
pub(super) struct New<'a> {
    /// Name of a single file of this family.
    pub(super) single: &'a str,
    /// Name of its index.
    pub(super) index: &'a str,
    /// Names of the new files.
    pub(super) files: &'a [String],
    /// Stamp of the staged last index.
    pub(super) last_index: Option<Stamp>,
}

/// The steps, in order. The first one is the commit: before it the save can be undone, after it
/// only completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The index goes on pointing into the work folder.
    pub(super) keep_work_folder: bool,
}

/// Plans the commit.
pub(super) fn plan(new: &New<'_>, existing: &Existing, hard_links: bool) -> Plan {
    let sharded = new.files.len() > 1;
    let steps = match (sharded, existing.index, hard_links) {
        (true, _, true) => through_links(new, existing),
        (true, _, false) => into_work_folder(new, existing),
        (false, None, _) => single_alone(new, existing),
        (false, Some(_), true) => single_through_link(new, existing),
        (false, Some(_), false) => single_beside_index(new, existing),
    };
    let older = existing.work_folders.iter().cloned().map(|name| Step::RemoveFolder { name });
    let steps = steps.into_iter().chain(older).collect();
    Plan { steps, keep_work_folder: sharded && !hard_links }
}

fn through_links(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(INTERIM_INDEX, new.index)];
    steps.extend(remove_single(new, existing));
    steps.extend(new.files.iter().map(|name| Step::Link { name: name.clone() }));
    steps.push(move_file(LAST_INDEX, new.index));
    steps.extend(remove_shards(existing, |name| !new.files.iter().any(|file| file == name)));
    steps
}

fn into_work_folder(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(INTERIM_INDEX, new.index)];
    steps.extend(remove_single(new, existing));
    steps.extend(remove_shards(existing, |_| true));
    steps
}

fn single_alone(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(new.single, new.single)];
    steps.extend(remove_shards(existing, |_| true));
    steps
}

fn single_through_link(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![
        move_file(INTERIM_INDEX, new.index),
        Step::Link { name: new.single.to_owned() },
        move_file(LAST_INDEX, new.index),
    ];
    steps.extend(remove_shards(existing, |_| true));
    steps.extend(remove_index(new));
    steps
}

fn single_beside_index(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(new.single, new.single), move_file(LAST_INDEX, new.index)];
    steps.extend(remove_shards(existing, |_| true));
    steps.extend(remove_index(new));
    steps
}

fn move_file(from: &str, to: &str) -> Step {
    Step::Move { from: from.to_owned(), to: to.to_owned() }
}

fn remove_single(new: &New<'_>, existing: &Existing) -> Option<Step> {
    existing.single.map(|stamp| Step::Remove { name: new.single.to_owned(), stamp })
}

fn remove_index(new: &New<'_>) -> Option<Step> {
    new.last_index.map(|stamp| Step::Remove { name: new.index.to_owned(), stamp })
}

fn remove_shards(existing: &Existing, is_old: impl Fn(&str) -> bool) -> Vec<Step> {
    let old = existing.shards.iter().filter(|(name, _)| is_old(name));
    old.map(|(name, stamp)| Step::Remove { name: name.clone(), stamp: *stamp }).collect()
}

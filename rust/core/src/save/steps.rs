//! [`Plan`]: the changes of names that turn the old checkpoint into the new one. Pure.
//!
//! New files wait in a work folder inside the checkpoint's folder. At every point between two
//! steps, each of these readers finds the old checkpoint or the new one, whole:
//!
//! - one that takes the single file first, then the index (transformers);
//! - one that takes the index first, then the single file (windlass), and that refuses a folder
//!   with several weights files and no index (`huggingface_hub`).
//!
//! One that knows the index by its foreign name only (transformers, of a variant) finds the old
//! checkpoint, or nothing once that index is removed, or the new one in a single file.
//!
//! The same holds after a loss of power, of which [`Step::Sync`] says how much it may undo: between
//! two of them, changes reach the disk in any order. ARCHITECTURE.md tells what each reader sees at
//! each step.

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
        /// What was there.
        over: Option<Stamp>,
    },
    /// Removes a file of the old checkpoint, if it is still the same.
    Remove {
        /// Name in the folder.
        name: String,
        /// What it was.
        stamp: Stamp,
    },
    /// Removes an index that others follow. If it is another by now, what comes after would change
    /// what it means.
    RemoveIndex {
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
    /// Waits, if the save is durable, until all of the above is on the disk.
    Sync,
}

impl Step {
    /// Every file name in it.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Move { from, to } => vec![from, to],
            Self::Link { name, .. }
            | Self::Remove { name, .. }
            | Self::RemoveIndex { name, .. }
            | Self::RemoveFolder { name } => vec![name],
            Self::Sync => Vec::new(),
        }
    }
}

/// What is in the folder before the save.
#[derive(Clone, Debug, Default)]
pub(super) struct Existing {
    pub(super) single: Option<Stamp>,
    pub(super) shards: Vec<(String, Stamp)>,
    pub(super) index: Option<Stamp>,
    /// An index that others write, and its name.
    pub(super) foreign_index: Option<(String, Stamp)>,
    /// One of the indexes names the single file.
    pub(super) index_names_single: bool,
    /// Work folders that the index points into.
    pub(super) work_folders: Vec<String>,
}

impl Existing {
    /// Whether a single file can take its place without an index. A shard that no index names
    /// would, beside a single file, leave a reader with two files to choose from: it may have been
    /// the only one.
    fn gives_way_to_single(&self) -> bool {
        self.index.is_none()
            && self.foreign_index.is_none()
            && (self.shards.is_empty() || self.single.is_some())
    }

    fn stamp_of(&self, name: &str, single: &str) -> Option<Stamp> {
        let of_shard = || self.shards.iter().find(|(shard, _)| shard == name).map(|(_, s)| *s);
        if name == single { self.single } else { of_shard() }
    }
}

/// What the new checkpoint consists of.
pub(super) struct New<'a> {
    /// Name of a single file of this family.
    pub(super) single: &'a str,
    /// Name of its index.
    pub(super) index: &'a str,
    /// Names of the new files.
    pub(super) files: &'a [String],
}

impl New<'_> {
    fn is_single(&self) -> bool {
        self.files == [self.single]
    }

    /// Whether readers need an index, be it for an instant.
    pub(super) fn needs_index(&self, existing: &Existing) -> bool {
        !(self.is_single() && existing.gives_way_to_single())
    }
}

/// The steps, in order. The first one is the commit: before it the save can be undone, after it
/// only completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The index goes on pointing into the work folder.
    pub(super) keep_work_folder: bool,
}

/// Plans the commit. `last_index` is the stamp of the staged last index, where one is needed.
pub(super) fn plan(
    new: &New<'_>,
    existing: &Existing,
    last_index: Option<Stamp>,
    hard_links: bool,
) -> Plan {
    let beside = existing.index.is_some() && !existing.index_names_single;
    let (mut steps, keep_work_folder) = match (new.is_single(), hard_links) {
        (true, _) if existing.gives_way_to_single() => (single_alone(new, existing), false),
        (true, true) => (single_through_link(new, existing, last_index), false),
        (true, false) if beside => (single_beside_index(new, existing, last_index), false),
        (false, true) => (through_links(new, existing), false),
        (_, false) => (into_work_folder(new, existing), true),
    };
    steps.extend(existing.work_folders.iter().cloned().map(|name| Step::RemoveFolder { name }));
    steps.push(Step::Sync);
    Plan { steps, keep_work_folder }
}

fn through_links(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = begin_with_index(new, existing);
    steps.extend(remove_single(new, existing));
    steps.extend(new.files.iter().map(|name| link(name, new, existing)));
    steps.extend([Step::Sync, move_file(LAST_INDEX, new.index), Step::Sync]);
    steps.extend(remove_shards(existing, |name| !new.files.iter().any(|file| file == name)));
    steps
}

fn into_work_folder(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = begin_with_index(new, existing);
    steps.extend(remove_single(new, existing));
    steps.extend(remove_shards(existing, |_| true));
    steps
}

fn single_alone(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(new.single, new.single), Step::Sync];
    steps.extend(remove_shards(existing, |_| true));
    steps
}

fn single_through_link(new: &New<'_>, existing: &Existing, last_index: Option<Stamp>) -> Vec<Step> {
    let mut steps = begin_with_index(new, existing);
    steps.extend([link(new.single, new, existing), Step::Sync]);
    steps.extend([move_file(LAST_INDEX, new.index), Step::Sync]);
    steps.extend(remove_all_but_single(new, existing, last_index));
    steps
}

fn single_beside_index(new: &New<'_>, existing: &Existing, last_index: Option<Stamp>) -> Vec<Step> {
    let mut steps = vec![move_file(new.single, new.single), Step::Sync];
    steps.extend([move_file(LAST_INDEX, new.index), Step::Sync]);
    steps.extend(remove_foreign_index(existing));
    steps.extend(remove_all_but_single(new, existing, last_index));
    steps
}

/// Leads readers into the work folder; then no name outside it means anything to them, once the
/// foreign index is gone too.
fn begin_with_index(new: &New<'_>, existing: &Existing) -> Vec<Step> {
    let mut steps = vec![move_file(INTERIM_INDEX, new.index), Step::Sync];
    steps.extend(remove_foreign_index(existing));
    steps
}

fn remove_foreign_index(existing: &Existing) -> Vec<Step> {
    let remove = |(name, stamp): &(String, Stamp)| {
        vec![Step::RemoveIndex { name: name.clone(), stamp: *stamp }, Step::Sync]
    };
    existing.foreign_index.as_ref().map(remove).unwrap_or_default()
}

/// The index goes last: without it, a single file has to be the only one.
fn remove_all_but_single(
    new: &New<'_>,
    existing: &Existing,
    last_index: Option<Stamp>,
) -> Vec<Step> {
    let mut steps = remove_shards(existing, |_| true);
    steps.push(Step::Sync);
    steps.extend(last_index.map(|stamp| Step::Remove { name: new.index.to_owned(), stamp }));
    steps
}

fn move_file(from: &str, to: &str) -> Step {
    Step::Move { from: from.to_owned(), to: to.to_owned() }
}

fn link(name: &str, new: &New<'_>, existing: &Existing) -> Step {
    Step::Link { name: name.to_owned(), over: existing.stamp_of(name, new.single) }
}

fn remove_single(new: &New<'_>, existing: &Existing) -> Option<Step> {
    existing.single.map(|stamp| Step::Remove { name: new.single.to_owned(), stamp })
}

fn remove_shards(existing: &Existing, is_old: impl Fn(&str) -> bool) -> Vec<Step> {
    let old = existing.shards.iter().filter(|(name, _)| is_old(name));
    old.map(|(name, stamp)| Step::Remove { name: name.clone(), stamp: *stamp }).collect()
}

#[cfg(test)]
mod tests;

//! Sizes and a limit → which tensor goes into which shard. Greedy, in order. Pure.
//!
//! Two rules are in use, and checkpoints must come out the same under either as they always have:
//! they differ in what a tensor over the limit does to the open shard, and in where the later
//! names of a storage stand. Both keep all names of a storage together and count it once.

use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A tensor as far as a plan needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Size, in any unit that the limit is in too. Of a storage, the first item's size counts.
    pub size: u64,
    /// Number of the storage that it shares with others; `None` shares with nobody.
    pub storage: Option<u64>,
}

/// How shards are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The hub's, which transformers saves with since 4.45. A tensor over the limit becomes a
    /// shard at once, and the open shard stays open. Later names of a storage stand at the end of
    /// their shard, by storage.
    Hub,
    /// That of `shard_checkpoint` in transformers up to 4.46. A tensor over the limit closes the
    /// open shard. Later names of a storage stand where the shard was when they came.
    ShardCheckpoint,
}

/// Which items go together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardPlan {
    /// Positions of the items, by shard; every item is in exactly one, and no shard is empty.
    pub shards: Vec<Vec<usize>>,
    /// Sum of the sizes, each storage counted once.
    pub total: u128,
}

/// Distributes items over shards of at most `max`; what is larger has a shard to itself, which it
/// shares with the other names of its storage only.
///
/// O(n) but for sorting the later names of storages under [`Rule::Hub`].
///
/// ```
/// use windlass_core::shard::{Item, Rule, plan_shards};
/// let items = [2, 30, 2].map(|size| Item { size, storage: None });
/// let hub = plan_shards(&items, 10, Rule::Hub);
/// assert_eq!(hub.shards, [vec![1], vec![0, 2]]);
/// let in_order = plan_shards(&items, 10, Rule::ShardCheckpoint);
/// assert_eq!(in_order.shards, [[0], [1], [2]]);
/// assert_eq!((hub.total, in_order.total), (34, 34));
/// ```
#[must_use]
pub fn plan_shards(items: &[Item], max: u64, rule: Rule) -> ShardPlan {
    match rule {
        Rule::Hub => plan_hub(items, max),
        Rule::ShardCheckpoint => plan_shard_checkpoint(items, max),
    }
}

fn plan_hub(items: &[Item], max: u64) -> ShardPlan {
    let (mut plan, mut open) = (ShardPlan::default(), Open::default());
    let mut firsts = Storages::default();
    let mut aliases = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if let Some(first) = firsts.known_or(item.storage, i) {
            aliases.push((first, i));
            continue;
        }
        plan.total += u128::from(item.size);
        if item.size > max {
            plan.shards.push(vec![i]);
            continue;
        }
        if !open.has_room(item.size, max) {
            plan.shards.push(open.close());
        }
        open.add(i, item.size);
    }
    if !open.members.is_empty() {
        plan.shards.push(open.members);
    }
    add_aliases(&mut plan.shards, aliases, items.len());
    plan
}

/// Puts each `(first, alias)` at the end of the shard of its first name, in the order of the first
/// names.
fn add_aliases(shards: &mut [Vec<usize>], mut aliases: Vec<(usize, usize)>, items: usize) {
    if aliases.is_empty() {
        return;
    }
    let mut shard_of = vec![0; items];
    for (shard, members) in shards.iter().enumerate() {
        for &member in members {
            shard_of[member] = shard;
        }
    }
    aliases.sort_unstable();
    for (first, alias) in aliases {
        shards[shard_of[first]].push(alias);
    }
}

fn plan_shard_checkpoint(items: &[Item], max: u64) -> ShardPlan {
    let (mut plan, mut open) = (ShardPlan::default(), Open::default());
    let mut shard_of = Storages::default();
    for (i, item) in items.iter().enumerate() {
        let closed = plan.shards.len();
        let next = if open.fits(item.size, max) { closed } else { closed + 1 };
        if let Some(shard) = shard_of.known_or(item.storage, next) {
            plan.shards.get_mut(shard).unwrap_or(&mut open.members).push(i);
            continue;
        }
        if next > closed {
            plan.shards.push(open.close());
        }
        plan.total += u128::from(item.size);
        open.add(i, item.size);
    }
    if !open.members.is_empty() {
        plan.shards.push(open.members);
    }
    plan
}

/// The shard that is being filled.
#[derive(Default)]
struct Open {
    members: Vec<usize>,
    size: u128,
}

impl Open {
    fn has_room(&self, size: u64, max: u64) -> bool {
        self.size + u128::from(size) <= u128::from(max)
    }

    /// An empty shard takes anything.
    fn fits(&self, size: u64, max: u64) -> bool {
        self.members.is_empty() || self.has_room(size, max)
    }

    fn add(&mut self, item: usize, size: u64) {
        self.members.push(item);
        self.size += u128::from(size);
    }

    /// Returns the members and starts anew.
    fn close(&mut self) -> Vec<usize> {
        self.size = 0;
        std::mem::take(&mut self.members)
    }
}

/// What was noted down when a storage was first seen.
#[derive(Default)]
struct Storages(HashMap<u64, usize, RandomState>);

impl Storages {
    /// Returns what is noted for a storage; notes `value` for one that is new.
    fn known_or(&mut self, storage: Option<u64>, value: usize) -> Option<usize> {
        let storage = storage?;
        match self.0.entry(storage) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(value);
                None
            }
        }
    }
}

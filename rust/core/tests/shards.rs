//! `shard::plan_shards` against the rules written down as plainly as they can be said.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use windlass_core::shard::{Item, Rule, ShardPlan, plan_shards};

const RULES: [Rule; 2] = [Rule::Hub, Rule::ShardCheckpoint];

/// The hub's rule: place the first name of each storage, then bring the others to it.
fn naive_hub(items: &[Item], max: u64) -> ShardPlan {
    let firsts: Vec<usize> = (0..items.len()).filter(|&i| first_of(items, i) == i).collect();
    let (mut whole, mut open) = (Vec::new(), Vec::new());
    for &i in &firsts {
        if items[i].size > max {
            whole.push(vec![i]);
        } else if size(items, &open) + u128::from(items[i].size) > u128::from(max) {
            whole.push(std::mem::replace(&mut open, vec![i]));
        } else {
            open.push(i);
        }
    }
    whole.extend((!open.is_empty()).then_some(open));
    for &first in &firsts {
        let shard = whole.iter().position(|shard| shard.contains(&first)).unwrap();
        let others = (first + 1..items.len()).filter(|&i| first_of(items, i) == first);
        whole[shard].extend(others);
    }
    ShardPlan { shards: whole, total: size(items, &firsts) }
}

/// 4.46's rule: one walk, in which a later name of a storage joins the shard of the first.
fn naive_shard_checkpoint(items: &[Item], max: u64) -> ShardPlan {
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let mut firsts = Vec::new();
    for i in 0..items.len() {
        let first = first_of(items, i);
        if first != i {
            let shard = shards.iter_mut().find(|shard| shard.contains(&first)).unwrap();
            shard.push(i);
            continue;
        }
        let open = shards.last().unwrap();
        let counted: Vec<usize> = open.iter().copied().filter(|i| firsts.contains(i)).collect();
        let grown = size(items, &counted) + u128::from(items[i].size);
        if grown > u128::from(max) && !open.is_empty() {
            shards.push(Vec::new());
        }
        shards.last_mut().unwrap().push(i);
        firsts.push(i);
    }
    shards.retain(|shard| !shard.is_empty());
    ShardPlan { shards, total: size(items, &firsts) }
}

fn naive(items: &[Item], max: u64, rule: Rule) -> ShardPlan {
    match rule {
        Rule::Hub => naive_hub(items, max),
        Rule::ShardCheckpoint => naive_shard_checkpoint(items, max),
    }
}

/// Position of the first item of the same storage.
fn first_of(items: &[Item], i: usize) -> usize {
    let same = |item: &Item| item.storage.is_some() && item.storage == items[i].storage;
    items.iter().position(same).unwrap_or(i)
}

fn size(items: &[Item], members: &[usize]) -> u128 {
    members.iter().map(|&i| u128::from(items[i].size)).sum()
}

fn any_item() -> impl Strategy<Value = Item> {
    let size = prop_oneof![8 => 0..14_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let storage = proptest::option::of(prop_oneof![0..6_u64, any::<u64>()]);
    (size, storage).prop_map(|(size, storage)| Item { size, storage })
}

fn any_limit() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..30_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn items(sizes: &[u64]) -> Vec<Item> {
    sizes.iter().map(|&size| Item { size, storage: None }).collect()
}

fn shared(sizes: &[(u64, u64)]) -> Vec<Item> {
    sizes.iter().map(|&(size, storage)| Item { size, storage: Some(storage) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn plans_equal_the_naive_planner(items in vec(any_item(), 0..24), max in any_limit()) {
        for rule in RULES {
            prop_assert_eq!(plan_shards(&items, max, rule), naive(&items, max, rule), "{:?}", rule);
        }
    }

    #[test]
    fn every_item_is_in_exactly_one_shard(items in vec(any_item(), 0..24), max in any_limit()) {
        for rule in RULES {
            let mut members = plan_shards(&items, max, rule).shards.concat();
            members.sort_unstable();
            prop_assert_eq!(members, (0..items.len()).collect::<Vec<_>>(), "{:?}", rule);
        }
    }

    #[test]
    fn a_shard_over_the_limit_holds_one_storage(
        items in vec(any_item(), 0..24), max in any_limit(),
    ) {
        for rule in RULES {
            for shard in plan_shards(&items, max, rule).shards {
                let mut firsts: Vec<usize> = shard.iter().map(|&i| first_of(&items, i)).collect();
                firsts.sort_unstable();
                firsts.dedup();
                prop_assert!(size(&items, &firsts) <= u128::from(max) || firsts.len() == 1);
            }
        }
    }

    #[test]
    fn names_of_a_storage_are_together(items in vec(any_item(), 0..24), max in any_limit()) {
        for rule in RULES {
            let mut shard_of = BTreeMap::new();
            for (number, shard) in plan_shards(&items, max, rule).shards.iter().enumerate() {
                for storage in shard.iter().filter_map(|&i| items[i].storage) {
                    prop_assert_eq!(*shard_of.entry(storage).or_insert(number), number);
                }
            }
        }
    }
}

#[test]
fn shards_are_cut_as_by_the_references() {
    type Row = (&'static [u64], u64, &'static [&'static [usize]], &'static [&'static [usize]]);
    let rows: [Row; 8] = [
        (&[], 10, &[], &[]),
        (&[2, 30, 2], 10, &[&[1], &[0, 2]], &[&[0], &[1], &[2]]),
        (&[6, 10, 30, 2, 2], 10, &[&[0], &[2], &[1], &[3, 4]], &[&[0], &[1], &[2], &[3, 4]]),
        (&[6, 6, 2, 6, 2, 2], 10, &[&[0], &[1, 2], &[3, 4, 5]], &[&[0], &[1, 2], &[3, 4, 5]]),
        (&[10, 0, 10], 10, &[&[0, 1], &[2]], &[&[0, 1], &[2]]),
        (&[30, 0], 10, &[&[0], &[1]], &[&[0], &[1]]),
        (&[0, 3, 0], 0, &[&[1], &[0, 2]], &[&[0], &[1], &[2]]),
        (&[u64::MAX, u64::MAX], u64::MAX, &[&[0], &[1]], &[&[0], &[1]]),
    ];
    for (sizes, max, hub, shard_checkpoint) in rows {
        let items = items(sizes);
        assert_eq!(plan_shards(&items, max, Rule::Hub).shards, hub, "{sizes:?}");
        let plan = plan_shards(&items, max, Rule::ShardCheckpoint);
        assert_eq!(plan.shards, shard_checkpoint, "{sizes:?}");
    }
}

#[test]
fn later_names_stand_where_each_rule_puts_them() {
    let items = shared(&[(4, 7), (4, 8), (4, 8), (4, 7), (2, 9)]);
    assert_eq!(plan_shards(&items, 10, Rule::Hub).shards, [[0, 1, 4, 3, 2]]);
    assert_eq!(plan_shards(&items, 10, Rule::ShardCheckpoint).shards, [[0, 1, 2, 3, 4]]);
}

#[test]
fn a_storage_counts_once_with_its_first_size() {
    let items = shared(&[(4, 0), (9, 0), (5, 1)]);
    for rule in RULES {
        assert_eq!(plan_shards(&items, 9, rule).total, 9);
        assert_eq!(plan_shards(&items, 9, rule).shards.len(), 1);
    }
}

#[test]
fn sizes_beyond_64_bits_add_up() {
    let total = plan_shards(&items(&[u64::MAX; 3]), 1, Rule::Hub).total;
    assert_eq!(total, 3 * u128::from(u64::MAX));
}

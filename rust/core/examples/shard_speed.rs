//! How long the plan of a million tensors takes:
//! `cargo run --release --package windlass-core --example shard_speed`
//!
//! 40 ms by the rule of the hub and 14 ms by that of `shard_checkpoint`, on 2 cores; asked is 0.2 s.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};
use windlass_core::shard::{Item, Rule, plan_shards};

const ROUNDS: usize = 9;

/// Tensors of 1 KiB to 16 MiB in shards of 5 GB; of one in ten, the storage has another name.
fn items(count: u64) -> Vec<Item> {
    let size = |number: u64| 1024 << (number % 15);
    let storage = |number: u64| (number % 10 < 2).then_some(number / 10);
    (0..count).map(|number| Item { size: size(number), storage: storage(number) }).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let items = items(count);
    for rule in [Rule::Hub, Rule::ShardCheckpoint] {
        let plan = || {
            let start = Instant::now();
            let shards = plan_shards(&items, 5_000_000_000, rule).shards.len();
            (start.elapsed(), shards)
        };
        let (times, shards): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| plan()).unzip();
        println!("{rule:?}: {count} tensors to {} shards in {:?}", shards[0], median(times));
    }
}

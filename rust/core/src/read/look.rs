//! Looks at shards before they are read, and has the way of each chosen: four system calls per
//! shard, and none where little is wanted.

use super::choose::{Facts, Reason, choose};
use super::route::Portion;
use super::{Cache, Io, ReadOptions};
use crate::checkpoint::{Checkpoint, Shard};
use crate::sys::file::reopen;
use crate::sys::file_system::FileSystem;
use crate::sys::memory::available_memory;
use crate::sys::residency::resident_bytes;

/// Less than this is read without a look: it is there before a choice would pay.
const LITTLE_BYTES: u64 = 16 << 20;

/// The way of each portion, and why.
pub(super) fn choose_ways(
    checkpoint: &Checkpoint,
    portions: &[Portion],
    options: &ReadOptions,
) -> Vec<(Io, Reason)> {
    let wanted: u64 = portions.iter().map(|portion| portion.wanted).sum();
    match options.io {
        Io::Auto if wanted < LITTLE_BYTES => vec![(Io::Buffered, Reason::Little); portions.len()],
        Io::Auto => {
            let look = |portion: &Portion| Sight::of(&checkpoint.shards()[portion.shard], portion);
            let sights: Vec<_> = portions.iter().map(look).collect();
            choose_by_sights(portions, &sights, available_memory(), options.cache)
        }
        io => vec![(io, Reason::Asked); portions.len()],
    }
}

fn choose_by_sights(
    portions: &[Portion],
    sights: &[Option<Sight>],
    available: Option<u64>,
    cache: Cache,
) -> Vec<(Io, Reason)> {
    let seen = || portions.iter().zip(sights);
    let resident = |sight: &Option<Sight>| sight.as_ref().map_or(0, |sight| sight.resident);
    let missing_of_all = seen().map(|(portion, sight)| portion.wanted - resident(sight)).sum();
    let choose_one = |(portion, sight): (&Portion, &Option<Sight>)| {
        let Some(Sight { file_system, resident }) = *sight else {
            return (Io::Buffered, Reason::Unknown);
        };
        let (wanted, reads) = (portion.wanted, portion.reads);
        choose(&Facts { wanted, resident, reads, missing_of_all, available, file_system, cache })
    };
    seen().map(choose_one).collect()
}

/// What can be seen of a shard from outside.
struct Sight {
    file_system: FileSystem,
    resident: u64,
}

impl Sight {
    /// `None` where there is nothing to be seen; whoever reads the shard will say why.
    fn of(shard: &Shard, portion: &Portion) -> Option<Self> {
        let file = reopen(&shard.path, &shard.identity).ok()?;
        let resident = portion.part_of(resident_bytes(&file, &portion.range)?);
        Some(Self { file_system: FileSystem::of(&file), resident })
    }
}

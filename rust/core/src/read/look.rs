//! Looks at shards before they are read, and has the way of each chosen: a dozen system calls per
//! shard, and none where little is wanted.

use super::choose::{Facts, Reason, choose};
use super::route::Portion;
use super::{Cache, Io, ReadOptions};
use crate::checkpoint::{Checkpoint, Shard};
use crate::sys::file::reopen;
use crate::sys::file_system::FileSystem;
use crate::sys::memory::available_memory;
use crate::sys::residency::resident_bytes;
use std::iter;
use std::ops::Range;

/// Less than this is read without a look: it is there before a choice would pay.
const LITTLE_BYTES: u64 = 16 << 20;

/// Samples of a shard that are looked up in the page cache.
///
/// The kernel counts cached pages one by one: all of a cached shard of 460 MB took 3 to 8 ms, a
/// tenth of the time in which it is copied.
const SAMPLES: u64 = 8;

/// Length of a sample.
const SAMPLE_BYTES: u64 = 256 << 10;

/// The way of each portion, and why: where `io_uring` is asked for, [`Io::Buffered`] or [`Io::Direct`]
/// by it.
pub(super) fn choose_ways(
    checkpoint: &Checkpoint,
    portions: &[Portion],
    options: &ReadOptions,
) -> Vec<(Io, Reason)> {
    let wanted: u64 = portions.iter().map(|portion| portion.wanted).sum();
    match options.io {
        Io::Auto | Io::Uring if wanted < LITTLE_BYTES && options.cache == Cache::Keep => {
            vec![(Io::Buffered, Reason::Little); portions.len()]
        }
        Io::Auto | Io::Uring => {
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
            let io = if cache == Cache::Drop { Io::Direct } else { Io::Buffered };
            return (io, Reason::Unknown);
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
        let (mut asked, mut found) = (0_u64, 0_u128);
        for sample in samples(&portion.range) {
            asked += sample.end - sample.start;
            found += u128::from(resident_bytes(&file, &sample)?);
        }
        let resident = u128::from(portion.wanted) * found / u128::from(asked.max(1));
        let resident = u64::try_from(resident).ok()?.min(portion.wanted);
        Some(Self { file_system: FileSystem::of(&file), resident })
    }
}

/// Parts of a range, evenly spread over it; all of it if it is no longer than they are.
fn samples(range: &Range<u64>) -> Vec<Range<u64>> {
    let len = range.end - range.start;
    if len <= SAMPLES * SAMPLE_BYTES {
        return iter::once(range.clone()).collect();
    }
    let start = |i| range.start + (len - SAMPLE_BYTES) / (SAMPLES - 1) * i;
    (0..SAMPLES).map(|i| start(i)..start(i) + SAMPLE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_from_end_to_end() {
        let range = 1000..1000 + (1 << 30);
        let samples = samples(&range);
        assert_eq!(samples.len() as u64, SAMPLES);
        assert_eq!(samples[0].start, range.start);
        let last = samples.last().map_or(0, |last| last.end);
        assert!(range.end - last < SAMPLES, "{last}");
        assert!(samples.is_sorted_by(|a, b| a.end < b.start));
    }

    #[test]
    fn a_short_range_is_its_own_sample() {
        let range = 5..5 + SAMPLES * SAMPLE_BYTES;
        assert_eq!(samples(&range), [range]);
    }
}

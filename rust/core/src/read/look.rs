//! Looks at shards before they are read, and has the way of each chosen: a dozen system calls per
//! shard, and none where little is wanted.

use super::choose::{Facts, Reason, choose};
use super::means::Means;
use super::route::{Portion, Route};
use super::{Cache, Io, ReadOptions, whole};
use crate::checkpoint::{Checkpoint, Shard};
use crate::plan::{PlanOptions, Read, plan_reads};
use crate::sys::file::{disable_read_ahead, reopen};
use crate::sys::file_system::FileSystem;
use crate::sys::memory::available_memory;
use crate::sys::residency::{is_at_hand, resident_bytes};
use std::fs::File;
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

/// How each shard is to be read, and why: chosen once for all that belongs together.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Of each shard that was looked at; by `io_uring`, [`Io::Buffered`] or [`Io::Direct`] by it.
    chosen: Vec<(Portion, (Io, Reason))>,
    means: Means,
}

impl Ways {
    /// What they are ways with.
    pub(super) fn means(&self) -> &Means {
        &self.means
    }

    /// Bytes that are read of all that was looked at.
    pub(super) fn read_bytes(&self) -> u64 {
        self.chosen.iter().map(|(portion, _)| portion.read_bytes).sum()
    }

    /// Routes for all that was looked at.
    pub(super) fn routes(&self, options: &ReadOptions) -> Vec<Route<'static>> {
        let portions = self.chosen.iter().map(|(portion, _)| portion.clone());
        portions.map(|portion| self.route(portion, options)).collect()
    }

    /// The route of a shard; through the page cache, if nobody looked at it.
    pub(super) fn route(&self, portion: Portion, options: &ReadOptions) -> Route<'static> {
        let found = self.chosen.binary_search_by_key(&portion.shard, |(portion, _)| portion.shard);
        let unknown = (Io::Buffered, Reason::Unknown);
        let (io, reason) = found.map_or(unknown, |position| self.chosen[position].1);
        let backend = self.means.backend(io, options);
        Route::new(portion, backend, self.means.reason(reason), options.cache)
    }
}

impl Checkpoint {
    /// Chooses the ways for tensors that are read by several calls, so that they are judged
    /// together: by [`Checkpoint::read_by`].
    #[must_use]
    pub fn look(&self, tensors: &[usize], options: &ReadOptions) -> Ways {
        let wants = tensors.iter().map(|&tensor| whole(self.tensor(tensor).1));
        let wants: Vec<_> = wants.collect();
        let whole_parts =
            PlanOptions { chunk_bytes: u64::MAX, max_pieces: usize::MAX, ..options.plan };
        let plan = plan_reads(&wants, &whole_parts);
        let of_shard = |reads: &[Read]| Portion::of_reads(reads, whole_parts.max_gap);
        let portions = plan.reads.chunk_by(|a, b| a.shard == b.shard).map(of_shard);
        self.choose_ways(portions.collect(), Means::of(options), options)
    }

    /// The ways of portions, by shard.
    pub(super) fn choose_ways(
        &self,
        portions: Vec<Portion>,
        means: Means,
        options: &ReadOptions,
    ) -> Ways {
        let read_bytes: u64 = portions.iter().map(|portion| portion.read_bytes).sum();
        let chosen = match means.io {
            Io::Auto | Io::Uring if read_bytes < LITTLE_BYTES && options.cache == Cache::Keep => {
                vec![(Io::Buffered, Reason::Little); portions.len()]
            }
            Io::Auto | Io::Uring => {
                let look = |portion: &Portion| Sight::of(&self.shards()[portion.shard], portion);
                let sights: Vec<_> = portions.iter().map(look).collect();
                choose_by_sights(&portions, &sights, available_memory(), options.cache)
            }
            io => vec![(io, Reason::Asked); portions.len()],
        };
        Ways { chosen: portions.into_iter().zip(chosen).collect(), means }
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
    let missing_of_all = seen().map(|(portion, sight)| portion.read_bytes - resident(sight)).sum();
    let choose_one = |(portion, sight): (&Portion, &Option<Sight>)| {
        let Some(Sight { file_system, resident }) = *sight else {
            let io = if cache == Cache::Drop { Io::Direct } else { Io::Buffered };
            return (io, Reason::Unknown);
        };
        let Portion { read_bytes, parts, .. } = *portion;
        choose(&Facts {
            read_bytes,
            resident,
            parts,
            missing_of_all,
            available,
            file_system,
            cache,
        })
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
        let resident = resident_of(&file, portion).or_else(|| probe(&file, portion)).unwrap_or(0);
        Some(Self { file_system: FileSystem::of(&file), resident })
    }
}

/// About how many of the bytes that are read are in the page cache; `None` where nobody says.
fn resident_of(file: &File, portion: &Portion) -> Option<u64> {
    let (mut asked, mut found) = (0_u64, 0_u128);
    for sample in samples(&portion.range) {
        asked += sample.end - sample.start;
        found += u128::from(resident_bytes(file, &sample)?);
    }
    let resident = u128::from(portion.read_bytes) * found / u128::from(asked.max(1));
    u64::try_from(resident).ok().map(|resident| resident.min(portion.read_bytes))
}

/// The same by bytes that are read if they are at hand: of files that are neither the user's own nor
/// writable the system says nothing else. `None` where it does not say that either.
fn probe(file: &File, portion: &Portion) -> Option<u64> {
    disable_read_ahead(file); // What is not there may then be read, and nothing around it.
    let places = samples(&portion.range).into_iter().map(|sample| sample.start);
    let at_hand: Vec<bool> = places.map(|place| is_at_hand(file, place)).collect::<Option<_>>()?;
    let found = at_hand.iter().filter(|&&at_hand| at_hand).count() as u64;
    Some(portion.read_bytes / at_hand.len().max(1) as u64 * found)
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
#[allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_cached_file_is_found_out_by_reading_of_it_what_is_at_hand() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![1; 8 << 20]).unwrap();
        let range = 100..8 << 20;
        let portion = Portion { shard: 0, read_bytes: 7 << 20, parts: 1, range };
        // A file system may know no reads that do not wait.
        assert!(probe(&file, &portion).is_none_or(|resident| resident == 7 << 20));
    }

    #[test]
    fn a_short_range_is_its_own_sample() {
        let range = 5..5 + SAMPLES * SAMPLE_BYTES;
        assert_eq!(samples(&range), [range]);
    }
}

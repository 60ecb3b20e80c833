//! [`Spare`]: memory of blocks that nobody looks into any more, for those that come next.

use crate::sys::mmap::Mapping;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that is had again, within a budget: making it takes longer than filling it.
#[derive(Debug)]
pub struct Spare {
    most_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those given back first stand first.
    idle: Vec<Arc<Mapping>>,
    /// Bytes of those that were taken and not given back.
    taken: u64,
}

impl State {
    fn bytes(&self) -> u64 {
        self.taken + self.idle.iter().map(|memory| memory.len() as u64).sum::<u64>()
    }
}

impl Spare {
    /// No memory yet; what is taken and what is idle is never more than `most_bytes`, as long as
    /// nobody takes more than that.
    pub(super) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, state: Mutex::default() }
    }

    /// Memory of this length, whatever is in it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn take(&self, len: usize) -> io::Result<Mapping> {
        let len = len.max(1);
        let mut state = self.lock();
        let found = state.idle.iter().position(|memory| memory.len() == len);
        // Whoever gives it back may hold it a moment longer.
        let found = found.and_then(|position| Arc::into_inner(state.idle.swap_remove(position)));
        let memory = if let Some(memory) = found {
            memory
        } else {
            while state.bytes() + len as u64 > self.most_bytes && !state.idle.is_empty() {
                state.idle.remove(0);
            }
            Mapping::anonymous(len)?
        };
        state.taken += len as u64;
        Ok(memory)
    }

    /// Gives back what nobody looks into any more.
    pub fn give_back(&self, memory: &Arc<Mapping>) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(memory.len() as u64);
        state.idle.push(Arc::clone(memory));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
mod tests {
    use super::*;

    fn address(memory: &Mapping) -> usize {
        memory.as_mut_ptr() as usize
    }

    #[test]
    fn memory_of_the_same_length_is_had_again() {
        let spare = Spare::new(100_000);
        let (first, second) = (spare.take(9000).unwrap(), spare.take(9000).unwrap());
        let (at, other) = (address(&first), address(&second));
        spare.give_back(&Arc::new(first));
        assert!(![at, other].contains(&address(&spare.take(9001).unwrap())));
        assert_eq!(address(&spare.take(9000).unwrap()), at);
        drop(second);
    }

    #[test]
    fn idle_memory_goes_where_it_would_exceed_the_budget() {
        let spare = Spare::new(20_000);
        let memory = [5000, 6000, 7000].map(|len| Arc::new(spare.take(len).unwrap()));
        for memory in &memory {
            spare.give_back(memory);
        }
        drop(memory);
        let taken = spare.take(10_000).unwrap();
        let idle: Vec<_> = spare.lock().idle.iter().map(|memory| memory.len()).collect();
        assert_eq!((taken.len(), idle), (10_000, vec![7000]));
        assert_eq!(spare.lock().bytes(), 17_000);
    }
}

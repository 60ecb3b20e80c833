//! [`ByName`]: the table that everything named is kept in, in order.

use indexmap::IndexMap;

/// A hash map that keeps the order in which names were put in.
pub type ByName<V> = IndexMap<String, V, foldhash::fast::RandomState>;

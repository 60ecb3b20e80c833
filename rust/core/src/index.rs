//! `model.safetensors.index.json` ↔ [`Index`]: which shard holds which tensor.

use crate::error::{Error, IndexError};
use crate::header::{START_LEN, check_start};
use crate::names::ByName;
use crate::sys::file::{FileIdentity, open_regular};
use crate::sys::memory::check_room;
use foldhash::fast::RandomState;
use indexmap::IndexSet;
use indexmap::map::Entry;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Memory that an index and its table take, in lengths of its text, at most about.
const TABLE_SHARE: usize = 5;

/// A parsed index, in file order.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// File names of the shards, in the order of their first mention.
    pub shards: IndexSet<String, RandomState>,
    /// Position in `shards` for each tensor.
    pub weight_map: ByName<usize>,
    /// The JSON text of `metadata`, untouched.
    pub metadata: Option<String>,
}

impl Index {
    /// Parses an index and refuses shard names that leave its folder.
    ///
    /// # Errors
    /// [`IndexError`] when the text is no index or a shard name is unsafe.
    ///
    /// ```
    /// use windlass_core::Index;
    /// let index = Index::parse(br#"{"weight_map": {"w": "a.safetensors"}}"#)?;
    /// assert_eq!(index.weight_map["w"], 0);
    /// # Ok::<(), windlass_core::IndexError>(())
    /// ```
    pub fn parse(text: &[u8]) -> Result<Self, IndexError> {
        let json = |message| IndexError::Json { message };
        if text.trim_ascii_start().starts_with(b"[") {
            // serde would take the items of a list for the fields.
            return Err(json("a list, expected a map with `weight_map`".to_owned()));
        }
        let raw: RawIndex =
            serde_json::from_slice(text).map_err(|error| json(error.to_string()))?;
        let mut index =
            Self { metadata: raw.metadata.map(|text| text.get().to_owned()), ..Self::default() };
        index.weight_map.reserve(raw.weight_map.0.len());
        for (tensor, ShardName(shard)) in raw.weight_map.0 {
            index.insert(tensor, shard)?;
        }
        Ok(index)
    }

    /// Reads and parses an index file, of any size.
    ///
    /// # Errors
    /// Whatever opening meets, and [`Error::Index`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_open(path).map(|(index, ..)| index)
    }

    /// Reads and parses an index file, and leaves it open, so that its inode is not given to
    /// another file; and says what it was before it was read.
    pub(crate) fn read_open(path: &Path) -> Result<(Self, File, FileIdentity), Error> {
        let (mut file, identity) = open_regular(path)?;
        let read = |error| Error::io(path, "reading", error);
        let mut text = Vec::new();
        file.by_ref().take(START_LEN as u64).read_to_end(&mut text).map_err(read)?;
        check_start(&text, identity.len)
            .map_err(|source| Error::Format { path: path.to_owned(), source })?;
        // What does not even begin like JSON is not read to its end, whatever its size.
        if matches!(text.trim_ascii_start().first(), None | Some(b'{')) {
            let rest = usize::try_from(identity.len).unwrap_or(usize::MAX);
            check_room(rest.saturating_mul(TABLE_SHARE)).map_err(read)?;
            file.read_to_end(&mut text).map_err(read)?;
        }
        let index =
            Self::parse(&text).map_err(|source| Error::Index { path: path.to_owned(), source })?;
        Ok((index, file, identity))
    }

    fn insert(&mut self, tensor: String, shard: Cow<'_, str>) -> Result<(), IndexError> {
        let position = self.shard_position(&tensor, shard)?;
        match self.weight_map.entry(tensor) {
            Entry::Vacant(entry) => {
                entry.insert(position);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == position => Ok(()),
            Entry::Occupied(entry) => Err(IndexError::ListedTwice {
                tensor: entry.key().clone(),
                first: self.shards[*entry.get()].clone(),
                second: self.shards[position].clone(),
            }),
        }
    }

    fn shard_position(&mut self, tensor: &str, shard: Cow<'_, str>) -> Result<usize, IndexError> {
        if let Some(position) = self.shards.get_index_of(shard.as_ref()) {
            return Ok(position);
        }
        let shard = shard.into_owned();
        if let Err(reason) = check_shard_name(&shard) {
            return Err(IndexError::UnsafeShardName { tensor: tensor.to_owned(), shard, reason });
        }
        Ok(self.shards.insert_full(shard).0)
    }
}

/// Accepts a relative path of plain parts; the same rule on every platform, so that a checkpoint
/// is not safe on one and unsafe on another.
fn check_shard_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.contains('\0') {
        return Err("contains a NUL byte");
    }
    if name.contains('\\') {
        return Err("contains a backslash");
    }
    if name.starts_with('/') {
        return Err("is absolute");
    }
    if name.as_bytes().get(1) == Some(&b':') {
        return Err("begins with a drive letter");
    }
    if name.split('/').any(|part| part == "..") {
        return Err("leaves the folder by `..`");
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(expecting = "a map with `weight_map`")]
struct RawIndex<'a> {
    #[serde(borrow)]
    weight_map: WeightMap<'a>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// Entries in file order, duplicates kept.
struct WeightMap<'a>(Vec<(String, ShardName<'a>)>);

/// Borrowed where the JSON has no escapes: a million entries name a few hundred shards.
#[derive(Deserialize)]
#[serde(transparent)]
struct ShardName<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for WeightMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`weight_map` to be a map of tensor names to shard file names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(WeightMap(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_shard(name: &str) -> Result<Index, IndexError> {
        Index::parse(serde_json::json!({"weight_map": {"w": name}}).to_string().as_bytes())
    }

    #[test]
    fn plain_names_and_subfolders_are_accepted() {
        for name in ["a.safetensors", "sub/a.safetensors", "..a", "a..b", "é.safetensors", "a b"] {
            assert_eq!(parse_shard(name).unwrap().shards[0], name);
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", "/a", "../a", "a/../../b", "C:a", "c:/a", "a\\b", "..", "a\0b"] {
            let error = parse_shard(name).unwrap_err();
            assert!(matches!(error, IndexError::UnsafeShardName { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn order_is_that_of_the_file() {
        let text = br#"{"metadata":{"total_size":3},"weight_map":{"z":"2","a":"1","m":"2"}}"#;
        let index = Index::parse(text).unwrap();
        assert_eq!(index.weight_map.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
        assert_eq!(index.shards.iter().collect::<Vec<_>>(), ["2", "1"]);
        assert_eq!(index.metadata.as_deref(), Some(r#"{"total_size":3}"#));
    }

    #[test]
    fn a_name_listed_in_two_shards_is_refused() {
        let text = br#"{"weight_map":{"a":"1","a":"2"}}"#;
        let expected = IndexError::ListedTwice {
            tensor: "a".to_owned(),
            first: "1".to_owned(),
            second: "2".to_owned(),
        };
        assert_eq!(Index::parse(text).unwrap_err(), expected);
        assert!(Index::parse(br#"{"weight_map":{"a":"1","a":"1"}}"#).is_ok());
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let no_map = ["", "{]", "{}", "7", "[]", "[{}]", " [{}, null]"];
        let wrong_map =
            [r#"{"weight_map":null}"#, r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#];
        for text in no_map.into_iter().chain(wrong_map) {
            let error = Index::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, IndexError::Json { .. }), "{text}: {error}");
        }
    }
}

//! The JSON of a header as written, before any of it is checked against the rest of the file.
//!
//! Duplicate tensor names: the last entry wins, as in the reference parser. What a strict reader
//! would refuse is noted in [`Oddities`] on the way.

use super::{METADATA_KEY, Metadata};
use crate::error::FormatError;
use crate::names::ByName;
use crate::tensor::TensorInfo;
use serde::Serialize;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Things the format forbids and the reference parser accepts; the first of each kind.
#[derive(Default)]
pub(super) struct Oddities {
    pub(super) duplicate_key: Option<String>,
    pub(super) unknown_field: Option<(String, String)>,
}

/// One tensor's entry as it is written.
#[derive(Serialize)]
pub(super) struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [u64],
    data_offsets: (u64, u64),
}

impl<'a> Entry<'a> {
    pub(super) fn of(info: &'a TensorInfo) -> Self {
        let data_offsets = (info.range.start, info.range.end);
        Self { dtype: info.dtype.name(), shape: &info.shape, data_offsets }
    }
}

/// The whole header text.
#[derive(Default)]
pub(super) struct RawHeader {
    /// In file order, offsets as written: they may run backwards or overlap.
    pub(super) tensors: ByName<TensorInfo>,
    pub(super) metadata: Option<Metadata>,
    pub(super) oddities: Oddities,
}

impl RawHeader {
    pub(super) fn parse(text: &str) -> Result<Self, FormatError> {
        serde_json::from_str(text).map_err(|error| FormatError::Json { message: error.to_string() })
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensor names to entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut seen_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA_KEY {
                if std::mem::replace(&mut seen_metadata, true) {
                    return Err(de::Error::duplicate_field(METADATA_KEY));
                }
                header.metadata = map.next_value_seed(MetadataSeed(&mut header.oddities))?;
            } else {
                let seed = TensorSeed { tensor: &name, oddities: &mut header.oddities };
                let entry = map.next_value_seed(seed).map_err(|error| in_tensor(&name, &error))?;
                let (position, previous) = header.tensors.insert_full(name, entry);
                if previous.is_some() {
                    let key = header.tensors.get_index(position).map(|(name, _)| name.clone());
                    header.oddities.duplicate_key = header.oddities.duplicate_key.or(key);
                }
            }
        }
        Ok(header)
    }
}

/// Says which tensor's entry is wrong; the parser says what, and where in the text.
fn in_tensor<E: de::Error>(name: &str, error: &E) -> E {
    E::custom(format!("tensor `{name}`: {error}"))
}

/// `null`, or a map of text to text.
struct MetadataSeed<'a>(&'a mut Oddities);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = Option<Metadata>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = Option<Metadata>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`__metadata__` to be a map of text to text")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut metadata = Metadata::default();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if metadata.contains_key(&key) {
                self.0.duplicate_key.get_or_insert_with(|| key.clone());
            }
            metadata.insert(key, value);
        }
        Ok(Some(metadata))
    }
}

/// A tensor's entry: a map of three fields or, as the reference parser takes too, a list of three.
struct TensorSeed<'a> {
    tensor: &'a str,
    oddities: &'a mut Oddities,
}

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = TensorInfo;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = TensorInfo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of dtype, shape and data_offsets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let missing = |fields| de::Error::invalid_length(fields, &"dtype, shape, data_offsets");
        let dtype = seq.next_element()?.ok_or_else(|| missing(0))?;
        let shape = seq.next_element()?.ok_or_else(|| missing(1))?;
        let (start, end) = seq.next_element()?.ok_or_else(|| missing(2))?;
        Ok(TensorInfo { dtype, shape, range: start..end })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Dtype => set_once(&mut dtype, "dtype", map.next_value()?)?,
                Field::Shape => set_once(&mut shape, "shape", map.next_value()?)?,
                Field::Offsets => set_once(&mut data_offsets, "data_offsets", map.next_value()?)?,
                Field::Unknown(field) => {
                    let _: Ignored = map.next_value()?;
                    let found = || (self.tensor.to_owned(), field);
                    self.oddities.unknown_field.get_or_insert_with(found);
                }
            }
        }
        let missing = de::Error::missing_field;
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let (start, end) = data_offsets.ok_or_else(|| missing("data_offsets"))?;
        Ok(TensorInfo { dtype, shape, range: start..end })
    }
}

fn set_once<T, E: de::Error>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(field)),
    }
}

enum Field {
    Dtype,
    Shape,
    Offsets,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(FieldVisitor)
    }
}

struct FieldVisitor;

impl Visitor<'_> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        Ok(match name {
            "dtype" => Field::Dtype,
            "shape" => Field::Shape,
            "data_offsets" => Field::Offsets,
            other => Field::Unknown(other.to_owned()),
        })
    }
}

/// Any well-formed value. `serde::de::IgnoredAny` is laxer than the reference parser: it neither
/// limits depth nor checks escapes.
struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Ignored)
    }
}

impl<'de> Visitor<'de> for Ignored {
    type Value = Ignored;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_str<E>(self, _: &str) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_unit<E>(self) -> Result<Ignored, E> {
        Ok(Ignored)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ignored, A::Error> {
        while let Some(Ignored) = seq.next_element()? {}
        Ok(Ignored)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ignored, A::Error> {
        while let Some((Ignored, Ignored)) = map.next_entry()? {}
        Ok(Ignored)
    }
}

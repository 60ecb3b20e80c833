//! The dtype table: every element type of the safetensors format, once.
//!
//! Everything else that needs a dtype (sizes, names, Python's `DTYPES`) is derived from the
//! rows below. Rows stand in the format's own order, which is also the order in which writers
//! lay tensors out (by descending row).

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

macro_rules! dtypes {
    ($($variant:ident $name:literal $bits:literal $doc:literal;)+) => {
        /// Element type of a tensor, as named in a safetensors header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Dtype { $(#[doc = $doc] $variant,)+ }

        impl Dtype {
            /// All dtypes in the order of the format's own list.
            pub const ALL: &[Dtype] = &[$(Dtype::$variant,)+];

            /// The name used in headers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Dtype::$variant => $name,)+ }
            }

            /// Size of one element in bits (4 and 6 for the packed types).
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Dtype::$variant => $bits,)+ }
            }
        }
    };
}

dtypes! {
    Bool       "BOOL"         8 "One byte, 0 or 1.";
    F4         "F4"           4 "4-bit float E2M1, two per byte.";
    F6E2M3     "F6_E2M3"      6 "6-bit float, 2 exponent and 3 mantissa bits.";
    F6E3M2     "F6_E3M2"      6 "6-bit float, 3 exponent and 2 mantissa bits.";
    U8         "U8"           8 "Unsigned byte.";
    I8         "I8"           8 "Signed byte.";
    F8E5M2     "F8_E5M2"      8 "8-bit float E5M2 (OCP).";
    F8E4M3     "F8_E4M3"      8 "8-bit float E4M3 (OCP, no infinities).";
    F8E8M0     "F8_E8M0"      8 "8-bit power of two, the scale type of MX formats.";
    F8E4M3Fnuz "F8_E4M3FNUZ"  8 "8-bit float E4M3 without negative zero.";
    F8E5M2Fnuz "F8_E5M2FNUZ"  8 "8-bit float E5M2 without negative zero.";
    I16        "I16"         16 "Signed 16-bit integer.";
    U16        "U16"         16 "Unsigned 16-bit integer.";
    F16        "F16"         16 "IEEE half.";
    Bf16       "BF16"        16 "bfloat16.";
    I32        "I32"         32 "Signed 32-bit integer.";
    U32        "U32"         32 "Unsigned 32-bit integer.";
    F32        "F32"         32 "IEEE single.";
    C64        "C64"         64 "Complex number of two F32.";
    F64        "F64"         64 "IEEE double.";
    I64        "I64"         64 "Signed 64-bit integer.";
    U64        "U64"         64 "Unsigned 64-bit integer.";
}

impl Dtype {
    /// The dtype of that header name, if there is one.
    ///
    /// ```
    /// use windlass_core::Dtype;
    /// assert_eq!(Dtype::from_name("BF16"), Some(Dtype::Bf16));
    /// assert_eq!(Dtype::from_name("bf16"), None);
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DtypeVisitor)
    }
}

/// Reads `"F32"` and, as the reference parser does, `{"F32": null}`.
struct DtypeVisitor;

impl<'de> Visitor<'de> for DtypeVisitor {
    type Value = Dtype;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dtype name such as \"F32\"")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Dtype, E> {
        Dtype::from_name(name).ok_or_else(|| E::custom(format!("unknown dtype `{name}`")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dtype, A::Error> {
        let Some((dtype, ())) = map.next_entry()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        match map.next_key::<Dtype>()? {
            None => Ok(dtype),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

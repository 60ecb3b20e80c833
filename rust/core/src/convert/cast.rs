//! Which passes lead from one dtype to another.
//!
//! There are three wide dtypes, `F32`, `F64` and `I64`. Every dtype has a pass to those that hold
//! all its values and a pass from those that it is rounded from; a cast is one of the first, one of
//! the second, or one of each with a block of wide elements between them that stays in the cache.

#![expect(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::inline_always,
    reason = "a cast is what is asked for; only what is inlined is compiled for wide registers"
)]

use super::small_floats::{self as small, Widened};
use crate::dtype::Dtype;
use crate::sys::dest::Dest;
use crate::sys::elements::{map, narrow_to_halves, widen_halves};
use crate::sys::source::Source;

/// Converts contiguous elements.
type Pass = fn(Source<'_>, Dest<'_>);

/// Wide elements between two passes.
const BLOCK: usize = 512;

/// A conversion between two dtypes.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    from_bytes: usize,
    to_bytes: usize,
    steps: Steps,
}

#[derive(Clone, Copy, Debug)]
enum Steps {
    Copy,
    One(Pass),
    Two { widen: Pass, wide_bytes: usize, narrow: Pass },
}

impl Cast {
    /// Whether elements stay as they are.
    pub(super) fn is_copy(&self) -> bool {
        matches!(self.steps, Steps::Copy)
    }

    /// Size of an element that is read.
    #[must_use]
    pub fn from_bytes(&self) -> usize {
        self.from_bytes
    }

    /// Size of an element that is written.
    #[must_use]
    pub fn to_bytes(&self) -> usize {
        self.to_bytes
    }

    /// Converts contiguous elements; addresses need no alignment.
    ///
    /// # Panics
    /// When the two differ in their number of elements, or one ends within an element.
    pub fn run(&self, source: Source<'_>, dest: Dest<'_>) {
        match self.steps {
            Steps::Copy => self.copy(source, dest),
            Steps::One(pass) => pass(source, dest),
            Steps::Two { widen, wide_bytes, narrow } => {
                self.run_two(widen, wide_bytes, narrow, source, dest);
            }
        }
    }

    fn copy(&self, source: Source<'_>, mut dest: Dest<'_>) {
        assert!(dest.len().is_multiple_of(self.to_bytes), "whole elements are written");
        assert_eq!(source.len(), dest.len(), "as many elements are read as written");
        dest.copy_from(source);
    }

    fn run_two(
        &self,
        widen: Pass,
        wide_bytes: usize,
        narrow: Pass,
        mut source: Source<'_>,
        mut dest: Dest<'_>,
    ) {
        let mut scratch = [0_u8; BLOCK * size_of::<u64>()];
        while !dest.is_empty() {
            let count = BLOCK.min(dest.len().div_ceil(self.to_bytes));
            let wide = &mut scratch[..count * wide_bytes];
            let from = source.split_off_front(count * self.from_bytes);
            let to = dest.split_off_front(count * self.to_bytes);
            widen(from, Dest::from_slice(wide));
            narrow(Source::from_slice(wide), to);
        }
        assert!(source.is_empty(), "as many elements are read as written");
    }
}

/// The conversion from one dtype to another; `None` for packed and complex dtypes.
///
/// ```
/// use windlass_core::{Dest, Dtype, Source, convert::cast};
/// let cast = cast(Dtype::Bf16, Dtype::F32).unwrap();
/// let mut single = [0; 4];
/// cast.run(Source::from_slice(&[0xC0, 0x3F]), Dest::from_slice(&mut single));
/// assert_eq!(f32::from_le_bytes(single), 1.5);
/// ```
#[must_use]
pub fn cast(from: Dtype, to: Dtype) -> Option<Cast> {
    let steps = steps(from, to)?;
    Some(Cast { from_bytes: byte_size(from), to_bytes: byte_size(to), steps })
}

fn steps(from: Dtype, to: Dtype) -> Option<Steps> {
    let (source, target) = (Kind::of(from)?, Kind::of(to)?);
    if from == to || is_same_integer(from, to) {
        return Some(Steps::Copy);
    }
    let wide = wide(source, target);
    let wide_bytes = byte_size(wide);
    Some(match (is_same(from, wide), is_same(to, wide)) {
        (true, _) => Steps::One(narrow(wide, to)?),
        (_, true) => Steps::One(widen(from, wide)?),
        _ => {
            let narrow = if is_other_nan(from, to) { narrow_to_bf16 } else { narrow(wide, to)? };
            Steps::Two { widen: widen(from, wide)?, wide_bytes, narrow }
        }
    })
}

/// Whether torch's NaN is not the one that it makes of an `F32`.
fn is_other_nan(from: Dtype, to: Dtype) -> bool {
    to == Dtype::Bf16 && !matches!(from, Dtype::F32 | Dtype::F64)
}

fn narrow_to_bf16(source: Source<'_>, dest: Dest<'_>) {
    map(source, dest, small::f32_to_bf16::<0x7FC0>);
}

fn byte_size(dtype: Dtype) -> usize {
    usize::try_from(dtype.bits() / 8).expect("an element has few bits")
}

/// What decides the way of a cast.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Integers and booleans.
    Whole,
    /// Floats that `F32` holds.
    Float,
    Double,
}

impl Kind {
    /// `None` for dtypes that are not cast.
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F4 | Dtype::F6E2M3 | Dtype::F6E3M2 | Dtype::C64 => None,
            Dtype::F64 => Some(Self::Double),
            dtype if is_integer(dtype) || dtype == Dtype::Bool => Some(Self::Whole),
            _ => Some(Self::Float),
        }
    }
}

fn is_integer(dtype: Dtype) -> bool {
    use Dtype::{I8, I16, I32, I64, U8, U16, U32, U64};
    matches!(dtype, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
}

/// Whether two dtypes are integers that differ in their sign alone: converting one wraps.
fn is_same_integer(from: Dtype, to: Dtype) -> bool {
    is_integer(from) && is_integer(to) && from.bits() == to.bits()
}

/// Whether the elements of a wide dtype are what `dtype` has already.
fn is_same(dtype: Dtype, wide: Dtype) -> bool {
    dtype == wide || is_same_integer(dtype, wide)
}

/// The dtype between two: torch, too, rounds by way of `F32` to every smaller float.
fn wide(from: Kind, to: Kind) -> Dtype {
    match (from, to) {
        (Kind::Whole, Kind::Whole) => Dtype::I64,
        (Kind::Whole | Kind::Double, Kind::Double) | (Kind::Double, Kind::Whole) => Dtype::F64,
        (Kind::Float, _) | (_, Kind::Float) => Dtype::F32,
    }
}

fn widen(from: Dtype, wide: Dtype) -> Option<Pass> {
    match wide {
        Dtype::F32 => widen_to_f32(from),
        Dtype::F64 => widen_to_f64(from),
        _ => widen_to_i64(from),
    }
}

fn narrow(wide: Dtype, to: Dtype) -> Option<Pass> {
    match wide {
        Dtype::F32 => narrow_f32(to),
        Dtype::F64 => narrow_f64(to),
        _ => narrow_i64(to),
    }
}

fn widen_to_f32(from: Dtype) -> Option<Pass> {
    Some(match from {
        Dtype::Bool => |s, d| map(s, d, |x: u8| ((x != 0) as u8 as f32).to_bits()),
        Dtype::U8 => |s, d| map(s, d, |x: u8| (x as f32).to_bits()),
        Dtype::I8 => |s, d| map(s, d, |x: u8| (x as i8 as f32).to_bits()),
        Dtype::U16 => |s, d| map(s, d, |x: u16| (x as f32).to_bits()),
        Dtype::I16 => |s, d| map(s, d, |x: u16| (x as i16 as f32).to_bits()),
        Dtype::U32 => |s, d| map(s, d, |x: u32| (x as f32).to_bits()),
        Dtype::I32 => |s, d| map(s, d, |x: u32| (x as i32 as f32).to_bits()),
        Dtype::U64 => |s, d| map(s, d, |x: u64| (x as f32).to_bits()),
        Dtype::I64 => |s, d| map(s, d, |x: u64| (x as i64 as f32).to_bits()),
        Dtype::F64 => |s, d| map(s, d, |x: u64| (f64::from_bits(x) as f32).to_bits()),
        Dtype::Bf16 => |s, d| map(s, d, small::bf16_to_f32),
        Dtype::F16 => |s, d| widen_halves(s, d, small::f16_to_f32),
        Dtype::F8E5M2 => |s, d| look_up(s, d, &small::E5M2),
        Dtype::F8E4M3 => |s, d| look_up(s, d, &small::E4M3),
        Dtype::F8E5M2Fnuz => |s, d| look_up(s, d, &small::E5M2_FNUZ),
        Dtype::F8E4M3Fnuz => |s, d| look_up(s, d, &small::E4M3_FNUZ),
        Dtype::F8E8M0 => |s, d| look_up(s, d, &small::E8M0),
        _ => return None,
    })
}

fn look_up(source: Source<'_>, dest: Dest<'_>, table: &Widened) {
    map(source, dest, |x: u8| table[x as usize]);
}

fn widen_to_f64(from: Dtype) -> Option<Pass> {
    Some(match from {
        Dtype::Bool => |s, d| map(s, d, |x: u8| ((x != 0) as u8 as f64).to_bits()),
        Dtype::U8 => |s, d| map(s, d, |x: u8| (x as f64).to_bits()),
        Dtype::I8 => |s, d| map(s, d, |x: u8| (x as i8 as f64).to_bits()),
        Dtype::U16 => |s, d| map(s, d, |x: u16| (x as f64).to_bits()),
        Dtype::I16 => |s, d| map(s, d, |x: u16| (x as i16 as f64).to_bits()),
        Dtype::U32 => |s, d| map(s, d, |x: u32| (x as f64).to_bits()),
        Dtype::I32 => |s, d| map(s, d, |x: u32| (x as i32 as f64).to_bits()),
        Dtype::U64 => |s, d| map(s, d, |x: u64| (x as f64).to_bits()),
        Dtype::I64 => |s, d| map(s, d, |x: u64| (x as i64 as f64).to_bits()),
        _ => return None,
    })
}

fn widen_to_i64(from: Dtype) -> Option<Pass> {
    Some(match from {
        Dtype::Bool => |s, d| map(s, d, |x: u8| (x != 0) as u64),
        Dtype::U8 => |s, d| map(s, d, |x: u8| x as u64),
        Dtype::I8 => |s, d| map(s, d, |x: u8| x as i8 as u64),
        Dtype::U16 => |s, d| map(s, d, |x: u16| x as u64),
        Dtype::I16 => |s, d| map(s, d, |x: u16| x as i16 as u64),
        Dtype::U32 => |s, d| map(s, d, |x: u32| x as u64),
        Dtype::I32 => |s, d| map(s, d, |x: u32| x as i32 as u64),
        _ => return None,
    })
}

fn narrow_f32(to: Dtype) -> Option<Pass> {
    Some(match to {
        Dtype::Bool => |s, d| map(s, d, |x: u32| (f32::from_bits(x) != 0.0) as u8),
        Dtype::U8 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i64 as u8),
        Dtype::I8 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i32 as u8),
        Dtype::U16 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i64 as u16),
        Dtype::I16 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i32 as u16),
        Dtype::U32 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i64 as u32),
        Dtype::I32 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i32 as u32),
        Dtype::U64 => |s, d| map(s, d, |x: u32| to_u64(f32::from_bits(x) as f64)),
        Dtype::I64 => |s, d| map(s, d, |x: u32| f32::from_bits(x) as i64 as u64),
        Dtype::F64 => |s, d| map(s, d, |x: u32| (f32::from_bits(x) as f64).to_bits()),
        Dtype::Bf16 => |s, d| map(s, d, small::f32_to_bf16::<0xFFFF>),
        Dtype::F16 => |s, d| narrow_to_halves(s, d, small::f32_to_f16),
        Dtype::F8E5M2 => |s, d| map(s, d, small::f32_to_e5m2),
        Dtype::F8E4M3 => |s, d| map(s, d, small::f32_to_e4m3),
        Dtype::F8E5M2Fnuz => |s, d| map(s, d, small::f32_to_e5m2fnuz),
        Dtype::F8E4M3Fnuz => |s, d| map(s, d, small::f32_to_e4m3fnuz),
        Dtype::F8E8M0 => |s, d| map(s, d, small::f32_to_e8m0),
        _ => return None,
    })
}

fn narrow_f64(to: Dtype) -> Option<Pass> {
    Some(match to {
        Dtype::Bool => |s, d| map(s, d, |x: u64| (f64::from_bits(x) != 0.0) as u8),
        Dtype::U8 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i64 as u8),
        Dtype::I8 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i32 as u8),
        Dtype::U16 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i64 as u16),
        Dtype::I16 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i32 as u16),
        Dtype::U32 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i64 as u32),
        Dtype::I32 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i32 as u32),
        Dtype::U64 => |s, d| map(s, d, |x: u64| to_u64(f64::from_bits(x))),
        Dtype::I64 => |s, d| map(s, d, |x: u64| f64::from_bits(x) as i64 as u64),
        _ => return None,
    })
}

/// A negative number wraps, as in the smaller dtypes.
#[inline(always)]
fn to_u64(x: f64) -> u64 {
    if x < 0.0 { x as i64 as u64 } else { x as u64 }
}

fn narrow_i64(to: Dtype) -> Option<Pass> {
    Some(match to {
        Dtype::Bool => |s, d| map(s, d, |x: u64| (x != 0) as u8),
        Dtype::U8 | Dtype::I8 => |s, d| map(s, d, |x: u64| x as u8),
        Dtype::U16 | Dtype::I16 => |s, d| map(s, d, |x: u64| x as u16),
        Dtype::U32 | Dtype::I32 => |s, d| map(s, d, |x: u64| x as u32),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every front half of an `F32` with back halves at and beside the ties of `F16`.
    fn singles() -> Vec<u8> {
        const BACKS: [u32; 6] = [0, 0x0FFF, 0x1000, 0x1001, 0x3000, 0xFFFF];
        let fronts = (0..=u16::MAX).map(|front| u32::from(front) << 16);
        let all = fronts.flat_map(|front| BACKS.map(|back| front | back));
        all.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn half_floats_are_the_same_without_the_processors_conversion() {
        let singles = singles();
        let (mut fast, mut plain) = (vec![0; singles.len() / 2], vec![1; singles.len() / 2]);
        let source = Source::from_slice(&singles);
        narrow_to_halves(source, Dest::from_slice(&mut fast), small::f32_to_f16);
        map(source, Dest::from_slice(&mut plain), small::f32_to_f16);
        assert_eq!(fast, plain);
    }

    #[test]
    fn widened_half_floats_are_the_same_without_the_processors_conversion() {
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let (mut fast, mut plain) = (vec![0; 2 * halves.len()], vec![1; 2 * halves.len()]);
        let source = Source::from_slice(&halves);
        widen_halves(source, Dest::from_slice(&mut fast), small::f16_to_f32);
        map(source, Dest::from_slice(&mut plain), small::f16_to_f32);
        assert_eq!(fast, plain);
    }

    #[test]
    fn integers_that_differ_in_sign_are_copied() {
        assert!(matches!(steps(Dtype::I32, Dtype::U32), Some(Steps::Copy)));
        assert!(matches!(steps(Dtype::Bool, Dtype::U8), Some(Steps::Two { .. })));
    }
}

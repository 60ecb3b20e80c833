//! Floats of 16 and 8 bits, to and from the bits of an `f32`. Pure.
//!
//! Widening is exact; narrowing rounds to nearest, ties to even. What becomes of NaN and of values
//! that are too large is what torch makes of them on x86, where the F16C instructions convert half
//! floats (here [`f16_to_f32`] and [`f32_to_f16`] stand for them where there are none).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::inline_always,
    reason = "patterns of bits fit; only what is inlined is compiled for the caller's registers"
)]

/// The sign of an `f32`.
const SIGN: u32 = 1 << 31;
/// The magnitude of infinity; NaN is all above.
const INFINITY: u32 = 0x7F80_0000;

/// Bits of the `f32` that a finite magnitude stands for.
const fn widen<const MANTISSA: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    if magnitude < 1 << MANTISSA {
        let unit = f32::from_bits((128 - BIAS - MANTISSA) << 23);
        return (magnitude as f32 * unit).to_bits();
    }
    (magnitude << (23 - MANTISSA)) + ((127 - BIAS) << 23)
}

/// Rounds the magnitude of an `f32`; what exceeds the largest exponent carries into the bits above.
#[inline(always)]
fn round<const MANTISSA: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    let dropped = 23 - MANTISSA;
    let odd = (magnitude >> dropped) & 1;
    let up = magnitude.wrapping_add((1 << (dropped - 1)) - 1).wrapping_add(odd);
    let normal = (up >> dropped).wrapping_sub((127 - BIAS) << MANTISSA);
    // Added to this, a subnormal's last bit is the last bit of the sum, which the addition rounds.
    let magic = (151 - BIAS - MANTISSA) << 23;
    let sum = f32::from_bits(magnitude) + f32::from_bits(magic);
    let subnormal = sum.to_bits().wrapping_sub(magic);
    if magnitude < (128 - BIAS) << 23 { subnormal } else { normal }
}

/// `BF16` to `F32`.
#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> u32 {
    u32::from(bits) << 16
}

/// `F32` to `BF16`, in which every NaN becomes the same.
#[inline(always)]
pub(super) fn f32_to_bf16<const NAN: u32>(bits: u32) -> u16 {
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7FFF).wrapping_add(odd) >> 16;
    let is_nan = bits & !SIGN > INFINITY;
    (if is_nan { NAN } else { rounded }) as u16
}

/// `F16` to `F32`, as F16C does it: NaN keeps its payload and becomes quiet.
#[inline(always)]
pub(super) const fn f16_to_f32(bits: u16) -> u32 {
    let magnitude = bits as u32 & 0x7FFF;
    let sign = (bits as u32 & 0x8000) << 16;
    let value = if magnitude > 0x7C00 {
        INFINITY | 0x0040_0000 | magnitude << 13
    } else if magnitude == 0x7C00 {
        INFINITY
    } else {
        widen::<10, 15>(magnitude)
    };
    sign | value
}

/// `F32` to `F16`, as F16C does it: NaN keeps the front of its payload and becomes quiet.
#[inline(always)]
pub(super) fn f32_to_f16(bits: u32) -> u16 {
    let magnitude = bits & !SIGN;
    let finite = if magnitude >= 143 << 23 { 0x7C00 } else { round::<10, 15>(magnitude) };
    let nan = 0x7E00 | (magnitude >> 13 & 0x3FF);
    let value = if magnitude > INFINITY { nan } else { finite };
    (bits >> 16 & 0x8000 | value) as u16
}

/// `F32` to `F8_E5M2`: too large becomes infinity.
#[inline(always)]
pub(super) fn f32_to_e5m2(bits: u32) -> u8 {
    let magnitude = bits & !SIGN;
    let finite = if magnitude >= 143 << 23 { 0x7C } else { round::<2, 15>(magnitude) };
    let value = if magnitude > INFINITY { 0x7F } else { finite };
    (bits >> 24 & 0x80 | value) as u8
}

/// `F32` to `F8_E4M3`: too large, infinity included, becomes the largest finite number.
#[inline(always)]
pub(super) fn f32_to_e4m3(bits: u32) -> u8 {
    let magnitude = bits & !SIGN;
    let rounded = round::<3, 7>(magnitude);
    let too_large = magnitude >= 480_f32.to_bits() || rounded > 0x7E;
    let finite = if too_large { 0x7E } else { rounded };
    let value = if magnitude > INFINITY { 0x7F } else { finite };
    (bits >> 24 & 0x80 | value) as u8
}

/// `F32` to `F8_E4M3FNUZ`: too large becomes NaN.
#[inline(always)]
pub(super) fn f32_to_e4m3fnuz(bits: u32) -> u8 {
    with_one_zero(bits, round::<3, 8>(bits & !SIGN), 256.0)
}

/// `F32` to `F8_E5M2FNUZ`: too large becomes NaN.
#[inline(always)]
pub(super) fn f32_to_e5m2fnuz(bits: u32) -> u8 {
    with_one_zero(bits, round::<2, 16>(bits & !SIGN), 65536.0)
}

/// Gives a rounded magnitude its sign in a format whose only zero is positive, and whose only NaN
/// is what would be the negative one.
#[inline(always)]
fn with_one_zero(bits: u32, rounded: u32, limit: f32) -> u8 {
    let signed = if rounded == 0 { 0 } else { bits >> 24 & 0x80 | rounded };
    (if bits & !SIGN >= limit.to_bits() { 0x80 } else { signed }) as u8
}

/// `F32` to `F8_E8M0`: the exponent, rounded; there is no sign.
#[inline(always)]
pub(super) fn f32_to_e8m0(bits: u32) -> u8 {
    let exponent = bits >> 23 & 0xFF;
    // Half of a normal number rounds up, half of the smallest one (a subnormal) to even, down.
    let half = if exponent == 0 { 0x0040_0001 } else { 0x0040_0000 };
    let up = bits & 0x007F_FFFF >= half && exponent != 0xFF;
    (exponent + u32::from(up)) as u8
}

const fn e5m2_to_f32(bits: u8) -> u32 {
    f16_to_f32((bits as u16) << 8)
}

const fn e4m3_to_f32(bits: u8) -> u32 {
    let magnitude = bits as u32 & 0x7F;
    let value = if magnitude == 0x7F { 0x7FF0_0000 } else { widen::<3, 7>(magnitude) };
    (bits as u32 & 0x80) << 24 | value
}

const fn fnuz_to_f32<const MANTISSA: u32, const BIAS: u32>(bits: u8) -> u32 {
    if bits == 0x80 {
        return 0x7F80_0001;
    }
    (bits as u32 & 0x80) << 24 | widen::<MANTISSA, BIAS>(bits as u32 & 0x7F)
}

const fn e8m0_to_f32(bits: u8) -> u32 {
    match bits {
        0 => 0x0040_0000,
        0xFF => 0x7F80_0001,
        exponent => (exponent as u32) << 23,
    }
}

/// What each byte of an 8-bit format is as `F32`.
pub(super) type Widened = [u32; 256];

macro_rules! widened {
    ($widen:expr) => {{
        let mut table = [0; 256];
        let mut bits = 0;
        while bits < 256 {
            table[bits] = $widen(bits as u8);
            bits += 1;
        }
        table
    }};
}

pub(super) static E5M2: Widened = widened!(e5m2_to_f32);
pub(super) static E4M3: Widened = widened!(e4m3_to_f32);
pub(super) static E5M2_FNUZ: Widened = widened!(fnuz_to_f32::<2, 16>);
pub(super) static E4M3_FNUZ: Widened = widened!(fnuz_to_f32::<3, 8>);
pub(super) static E8M0: Widened = widened!(e8m0_to_f32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_survives_the_way_through_f32() {
        for bits in 0..=u16::MAX {
            let is_signalling = bits & 0x7FFF > 0x7C00 && bits & 0x200 == 0;
            let expected = if is_signalling { bits | 0x200 } else { bits };
            assert_eq!(f32_to_f16(f16_to_f32(bits)), expected, "{bits:#06x}");
        }
    }

    #[test]
    fn floats_with_one_nan_survive_the_way_through_f32() {
        for bits in 0..=u8::MAX {
            let widened = |format: &Widened| format[usize::from(bits)];
            assert_eq!(f32_to_e4m3(widened(&E4M3)), bits, "{bits:#04x}");
            assert_eq!(f32_to_e4m3fnuz(widened(&E4M3_FNUZ)), bits, "{bits:#04x}");
            assert_eq!(f32_to_e5m2fnuz(widened(&E5M2_FNUZ)), bits, "{bits:#04x}");
            assert_eq!(f32_to_e8m0(widened(&E8M0)), bits, "{bits:#04x}");
        }
    }
}

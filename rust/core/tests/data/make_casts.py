"""Write `casts.txt`: digests of what torch's `copy_` makes of every dtype in every other.

    python rust/core/tests/data/make_casts.py

`rust/core/tests/convert.rs` makes the same inputs, casts them and compares digests, so it needs no
torch. Inputs are, by dtype of the source:

- 8 bits: all 256 (for BOOL as well: torch takes every byte but 0 for true), but BOOL to BOOL,
  which moves bytes here and makes them 0 or 1 in torch, only 0 and 1.
- 16 bits: all 65,536.
- I32, U32, I64, U64: 65,536 of either sign and every magnitude.
- F32: for every front half, eight back halves at and beside the ties of all smaller floats; 65,536
  patterns of random bits; 65,536 within the range of F16 at and beside its ties.
- F64: every fifth of F32, widened and moved a little, so that rounding twice differs from rounding
  once, some of them NaN; 65,536 patterns of random bits.

Left out, as C++ leaves it undefined: floats that an integer dtype does not hold. They are 0. (For
U8, torch defines all that I64 holds.)

torch works on blocks of up to 64 elements, and for F32 and F64 to BF16 gives another NaN for what
is left over; the numbers of inputs are multiples of 64.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
HALF = 65536
#: Back halves of an F32.
BACKS = np.array([0, 1, 0x1000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint64)
#: What is added to an F64 that an F32 was widened to.
MOVES = np.array([0, 1, 0x10000001], dtype=np.uint64)


def random_bits(seed: int, count: int) -> np.ndarray:
    """Return the first numbers of SplitMix64."""
    state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def integers(bits: int) -> np.ndarray:
    """Return integers of every magnitude, every other one negative, as their bits."""
    numbers = random_bits(bits, HALF) >> np.uint64(64 - bits)
    position = np.arange(HALF, dtype=np.uint64)
    numbers = numbers >> (position % np.uint64(bits))
    negative = (~numbers + np.uint64(1)) & np.uint64(2**bits - 1)
    return np.where(position // np.uint64(bits) % np.uint64(2) == 0, numbers, negative)


def singles() -> np.ndarray:
    """Return the bits of F32 inputs."""
    position = np.arange(8 * HALF, dtype=np.uint64)
    fronts = (position % np.uint64(HALF)) << np.uint64(16) | BACKS[position // np.uint64(HALF)]
    random = random_bits(32, 2 * HALF)
    any_bits = random[:HALF] & np.uint64(0xFFFFFFFF)
    halves = random[HALF:]
    exponent = np.uint64(100) + (halves >> np.uint64(40)) % np.uint64(48)
    ties = halves & np.uint64(0x807FF000) | exponent << np.uint64(23)
    return np.concatenate([fronts, any_bits, ties])


def doubles() -> np.ndarray:
    """Return the bits of F64 inputs."""
    single = singles()[::5]
    sign = (single >> np.uint64(31)) << np.uint64(63)
    exponent = (single >> np.uint64(23) & np.uint64(0xFF)) + np.uint64(896)
    mantissa = (single & np.uint64(0x7FFFFF)) << np.uint64(29)
    position = np.arange(len(single), dtype=np.uint64)
    exponent = np.where(position % np.uint64(1024) == 0, np.uint64(2047), exponent)
    widened = sign | exponent << np.uint64(52) | mantissa
    return np.concatenate([widened + MOVES[position % np.uint64(3)], random_bits(64, HALF)])


def inputs(name: str) -> torch.Tensor:
    """Return the inputs of a dtype."""
    dtype = DTYPES[name]
    if name == "F32":
        bits = singles()
    elif name == "F64":
        bits = doubles()
    elif dtype.itemsize < torch.float32.itemsize:
        bits = np.arange(1 << 8 * dtype.itemsize, dtype=np.uint64)
    else:
        bits = integers(8 * dtype.itemsize)
    return torch.from_numpy(bits.astype(BITS[dtype.itemsize])).view(dtype)


def defined(source: torch.Tensor, target: torch.dtype) -> torch.Tensor:
    """Replace what an integer dtype does not hold by 0."""
    is_integer = not (target.is_floating_point or target == torch.bool)
    if not (source.dtype.is_floating_point and is_integer):
        return source
    limits = torch.iinfo(torch.int64 if target == torch.uint8 else target)
    values = source.to(torch.float64)
    fits = (values >= float(limits.min)) & (values < float(limits.max + 1))
    bits = source.view(torch.uint8).view(len(source), -1)
    return torch.where(fits[:, None], bits, 0).view(source.dtype).view(-1)


def digest(result: torch.Tensor) -> int:
    """Return a sum of the results' bits, each with a factor of its own."""
    itemsize = result.dtype.itemsize
    bits = result.view(torch.uint8).numpy().view(BITS[itemsize]).astype(np.uint64)
    factors = random_bits(0, len(bits)) | np.uint64(1)
    return int(np.sum((bits + np.uint64(1)) * factors, dtype=np.uint64))


def lines() -> list[str]:
    """Return a line for each pair of dtypes."""
    found = []
    for source_name in DTYPES:
        source = inputs(source_name)
        for target_name, target in DTYPES.items():
            usable = defined(source, target)
            if source_name == target_name == "BOOL":
                usable = usable[:2]
            result = torch.empty(len(usable), dtype=target).copy_(usable)
            found.append(f"{source_name} {target_name} {len(usable)} {digest(result):016x}")
    return found


def main() -> None:
    """Write the file."""
    torch.set_num_threads(1)
    if sys.byteorder != "little":
        raise SystemExit("expected a little-endian machine")
    head = [
        f"# What torch {torch.__version__} on {torch.backends.cpu.get_cpu_capability()} casts:",
        "# from, to, number of elements, digest (see make_casts.py)",
    ]
    path = Path(__file__).with_name("casts.txt")
    path.write_text("\n".join(head + lines()) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()

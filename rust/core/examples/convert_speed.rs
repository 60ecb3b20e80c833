//! How fast elements are cast and gathered by one thread, beside a plain copy:
//! `cargo run --release --package windlass-core --example convert_speed`

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Instant;
use windlass_core::convert::{Layout, StridedDest, StridedSource, cast, gather, scatter};
use windlass_core::{Dest, Dtype, Source};

const SIDE: usize = 4096;
const ROUNDS: usize = 9;

/// Prints the median of several rounds: bytes read and written per second.
fn measure(name: &str, bytes: usize, mut work: impl FnMut()) {
    work();
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let (best, median) = (seconds[0], seconds[ROUNDS / 2]);
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let rate = bytes as f64 / median / 1e9;
    println!("{name:<44} {rate:6.1} GB/s  {:7.2} ms  best {:7.2} ms", median * 1e3, best * 1e3);
}

fn byte_size(dtype: Dtype) -> usize {
    usize::try_from(dtype.bits() / 8).expect("few bits")
}

fn contiguous(from: Dtype, to: Dtype) {
    let count = SIDE * SIDE;
    let source = vec![0x3E_u8; count * byte_size(from)];
    let mut dest = vec![0_u8; count * byte_size(to)];
    let cast = cast(from, to).expect("a dtype that is cast");
    measure(&format!("{from} to {to}"), source.len() + dest.len(), || {
        cast.run(Source::from_slice(&source), Dest::from_slice(&mut dest));
    });
}

fn strided(name: &str, from: Dtype, to: Dtype, shape: &[usize], strides: &[isize]) {
    let count: usize = shape.iter().product();
    let layout = |dtype| Layout::new(byte_size(dtype), shape, strides).expect("a layout");
    let cast = cast(from, to).expect("a dtype that is cast");
    let source = vec![0x3E_u8; count * byte_size(from)];
    let mut dest = vec![0_u8; count * byte_size(to)];
    let bytes = source.len() + dest.len();
    measure(&format!("gather {name}, {from} to {to}"), bytes, || {
        let source = StridedSource::from_slice(&source, 0, layout(from)).expect("within");
        gather(&source, &cast, Dest::from_slice(&mut dest));
    });
    measure(&format!("scatter {name}, {from} to {to}"), bytes, || {
        let dest = StridedDest::from_slice(&mut dest, 0, layout(to)).expect("within");
        scatter(Source::from_slice(&source), &cast, dest);
    });
}

fn main() {
    if std::env::args().len() > 1 {
        return walks();
    }
    casts();
    walks();
}

fn casts() {
    use Dtype::{Bf16, F8E4M3, F16, F32, F64, I64, U8};
    for (from, to) in [(Bf16, Bf16), (F32, F32)] {
        contiguous(from, to);
    }
    for (from, to) in [
        (Bf16, F32),
        (F32, Bf16),
        (F16, F32),
        (F32, F16),
        (F16, Bf16),
        (Bf16, F16),
        (F32, F64),
        (F64, F32),
        (F64, Bf16),
        (F8E4M3, F32),
        (F8E4M3, Bf16),
        (F32, F8E4M3),
        (I64, F32),
        (F32, I64),
        (U8, I64),
    ] {
        contiguous(from, to);
    }
}

fn walks() {
    use Dtype::{Bf16, F32, F64, U8};
    contiguous(Bf16, Bf16);
    let side = SIDE.cast_signed();
    for (from, to) in [(Bf16, Bf16), (F32, F32), (F64, F64), (U8, U8), (Bf16, F32), (F32, Bf16)] {
        strided("transposed", from, to, &[SIDE, SIDE], &[1, side]);
    }
    strided("channels last", F32, F32, &[64, 64, 64, 64], &[262_144, 1, 4096, 64]);
    strided("heads", Bf16, Bf16, &[32, 32, 256, 64], &[524_288, 64, 2048, 1]);
    strided("pairs", Bf16, Bf16, &[2048, 2, 4096], &[2, 1, 4096]);
    strided("short runs", Bf16, Bf16, &[4096, 1024, 4], &[4, 16384, 1]);
}

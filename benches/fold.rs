//! What is left to do with the checksums of parts when the last one has arrived.
//!
//!     cargo bench --bench fold
//!
//! 100 GB in parts of 16 MiB, folded into one: the median of 20 runs, in milliseconds.

#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Instant;

use cvm_export::crc64::Crc64;

const PART_BYTES: u64 = 16 << 20;
const PARTS: u64 = 100_000_000_000_u64.div_ceil(PART_BYTES);

fn main() {
    let parts: Vec<Crc64> = (0..PARTS)
        .map(|number| Crc64::of(&number.to_le_bytes()))
        .collect();
    let fold = || {
        parts.iter().fold(Crc64::default(), |whole, part| {
            whole.followed_by(*part, PART_BYTES)
        })
    };
    let mut milliseconds: Vec<f64> = (0..20)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(fold());
            begin.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    milliseconds.sort_by(f64::total_cmp);
    println!(
        "{PARTS} parts folded in {:.1} ms ({:.1}–{:.1})",
        milliseconds[10], milliseconds[0], milliseconds[19]
    );
}

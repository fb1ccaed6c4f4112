//! CRC-64/XZ, the checksum that COS calls `x-cos-hash-crc64ecma` (product page 436/34078), in a form
//! that can be taken apart: computed piece by piece, stepped over zeros, and put together.
//!
//! The polynomial is 0x42F0E1EBA9EA3693, reflected, with all ones before and after; nothing at all
//! has the checksum 0.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

/// The checksum of some bytes. It prints as COS writes it: decimal, unsigned.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().extend(bytes)
    }

    /// The checksum of what this one covers followed by `bytes`.
    #[must_use]
    pub fn extend(self, bytes: &[u8]) -> Self {
        // The register starts as all ones and is inverted at the end, so a finished value inverted is
        // the register to go on with.
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc64Xz, !self.0);
        digest.update(bytes);
        Self(digest.finalize())
    }

    /// The checksum of what this one covers followed by `count` zero bytes.
    ///
    /// A zero byte multiplies the register by x⁸ modulo the polynomial, so any number of them is one
    /// multiplication by a power that squaring finds in a step per bit of `count`.
    #[must_use]
    pub fn extend_by_zeros(self, count: u64) -> Self {
        Self(!multiply(!self.0, power(count)))
    }

    /// The checksum of what this one covers followed by the `length` bytes that `next` covers.
    ///
    /// This takes a microsecond whatever the length is, which lets parts be folded as they arrive.
    #[must_use]
    pub fn followed_by(self, next: Self, length: u64) -> Self {
        Self(multiply(self.0, power(length)) ^ next.0)
    }
}

impl fmt::Display for Crc64 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// x to the power of 8 × `count`, modulo the polynomial.
fn power(count: u64) -> u64 {
    /// The highest bit is the coefficient of x⁰, as the register is reflected.
    const ONE: u64 = 1 << 63;
    let mut square = ONE >> 8;
    let mut product = ONE;
    let mut rest = count;
    while rest > 0 {
        if rest & 1 == 1 {
            product = multiply(product, square);
        }
        square = multiply(square, square);
        rest >>= 1;
    }
    product
}

/// The product of two reflected polynomials over GF(2), modulo that of CRC-64/XZ.
fn multiply(left: u64, right: u64) -> u64 {
    /// 0x42F0E1EBA9EA3693 reflected.
    const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;
    let mut shifted = right;
    let mut product = 0;
    for bit in (0..64).rev() {
        if left >> bit & 1 == 1 {
            product ^= shifted;
        }
        let carry = shifted & 1;
        shifted = (shifted >> 1) ^ (carry * POLYNOMIAL);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_agree_with_the_published_ones() {
        let crc = |text: &str| Crc64::of(text.as_bytes()).0;
        assert_eq!(crc("123456789"), 0x995D_C9BB_DF19_39FA);
        assert_eq!(crc("[Object Content]"), 16_749_565_679_157_681_890);
        assert_eq!(
            crc("[Object Content Version 2]"),
            11_596_229_263_574_363_878
        );
        assert_eq!(crc("hello"), 11_177_612_005_948_864_433);
        assert_eq!(crc(" world"), 189_104_202_581_697_307);
        assert_eq!(crc("hello world"), 5_981_764_153_023_615_706);
        assert_eq!(crc(""), 0);
    }

    #[test]
    fn parts_fold_into_the_checksum_of_the_whole() {
        let hello = Crc64(11_177_612_005_948_864_433);
        let world = Crc64(189_104_202_581_697_307);
        assert_eq!(hello.followed_by(world, 6).0, 5_981_764_153_023_615_706);
        let bytes: Vec<u8> = (0..5000_u32).map(|n| (n * 7 % 251) as u8).collect();
        for cut in [0, 1, 511, 4096, 4999, 5000] {
            let (left, right) = bytes.split_at(cut);
            let folded = Crc64::of(left).followed_by(Crc64::of(right), right.len() as u64);
            assert_eq!(folded, Crc64::of(&bytes), "cut at {cut}");
        }
    }

    #[test]
    fn checksums_step_over_zeros_as_if_they_had_been_read() {
        let start = Crc64::of(b"some bytes");
        for count in [0, 1, 2, 7, 8, 511, 512, 4095, 4096, 4097, 65_537] {
            let read = start.extend(&vec![0; count]);
            assert_eq!(
                start.extend_by_zeros(count as u64),
                read,
                "after {count} zeros"
            );
        }
    }
}

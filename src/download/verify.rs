//! Whether a file of this machine is what a record or the bucket says it is; reads it once.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::error::DownloadError;
use super::reading::{Digests, Wanted};
use super::target;
use crate::crc64::Crc64;

/// What a file should be. What is not known is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its size.
    pub size_bytes: Option<u64>,
    /// Its CRC-64/XZ.
    pub crc64: Option<Crc64>,
    /// Its SHA-256, in hexadecimal.
    pub sha256: Option<String>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its size.
    pub size_bytes: u64,
    /// Its CRC-64/XZ.
    pub crc64: Crc64,
    /// Its SHA-256 in hexadecimal, where that was compared.
    pub sha256: Option<String>,
    /// What is not as expected, as a lower-case fragment.
    pub difference: Option<String>,
    /// Whether a checksum was compared; a size alone proves little.
    pub is_proven: bool,
}

/// Reads the file at `path` and compares it with what it should be.
///
/// # Errors
/// [`DownloadError::Disk`] when it cannot be read, [`DownloadError::Interrupted`] when `cancel` says so
/// before its end.
pub fn verify_file(
    path: &Path,
    expected: &Expected,
    cancel: &CancellationToken,
) -> Result<Seen, DownloadError> {
    let wanted = Wanted::sha256_if(expected.sha256.is_some());
    let Digests {
        size_bytes,
        crc64,
        sha256,
    } = target::digest_of(path, wanted, cancel)?;
    let differs = |what: &str, seen: &dyn std::fmt::Display, wanted: &dyn std::fmt::Display| {
        Some(format!("its {what} is {seen}, not {wanted}"))
    };
    let difference = match expected {
        Expected {
            size_bytes: Some(wanted),
            ..
        } if *wanted != size_bytes => differs("size", &size_bytes, wanted),
        Expected {
            crc64: Some(wanted),
            ..
        } if *wanted != crc64 => differs("CRC-64", &crc64, wanted),
        Expected {
            sha256: Some(wanted),
            ..
        } if !sha256
            .as_deref()
            .is_some_and(|seen| seen.eq_ignore_ascii_case(wanted)) =>
        {
            differs("SHA-256", &sha256.as_deref().unwrap_or_default(), wanted)
        }
        _ => None,
    };
    Ok(Seen {
        size_bytes,
        crc64,
        sha256,
        difference,
        is_proven: expected.crc64.is_some() || expected.sha256.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_size_and_checksums_is_compared() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("disk.raw");
        std::fs::write(&path, "123456789").expect("a file");
        let right = Expected {
            size_bytes: Some(9),
            crc64: Some(Crc64(0x995D_C9BB_DF19_39FA)),
            sha256: Some(
                "15E2B0D3C33891EBB0F1EF609EC419420C20E320CE94C65FBC8C3312448EB225".to_owned(),
            ),
        };
        let cancel = CancellationToken::new();
        let seen = verify_file(&path, &right, &cancel).expect("readable");
        assert_eq!((seen.difference, seen.is_proven), (None, true));
        for (wrong, word) in [
            (
                Expected {
                    size_bytes: Some(8),
                    ..right.clone()
                },
                "size",
            ),
            (
                Expected {
                    crc64: Some(Crc64(1)),
                    ..right.clone()
                },
                "CRC-64",
            ),
            (
                Expected {
                    sha256: Some("00".to_owned()),
                    ..right.clone()
                },
                "SHA-256",
            ),
        ] {
            let difference = verify_file(&path, &wrong, &cancel)
                .expect("readable")
                .difference;
            assert!(difference.is_some_and(|text| text.contains(word)), "{word}");
        }
        let size_alone = Expected {
            size_bytes: Some(9),
            ..Expected::default()
        };
        assert!(
            !verify_file(&path, &size_alone, &cancel)
                .expect("readable")
                .is_proven
        );
        assert!(verify_file(&folder.path().join("none"), &right, &cancel).is_err());
        cancel.cancel();
        let ended = verify_file(&path, &right, &cancel);
        assert!(matches!(ended, Err(DownloadError::Interrupted)));
    }
}

//! MD5, which COS still speaks: ETags of simple uploads and `Content-MD5`. It identifies content
//! against accidents and protects nothing.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};

/// The digest as ETags show it: lower-case hexadecimal.
pub(super) fn md5_hex(data: &[u8]) -> String {
    hex::encode(Md5::digest(data))
}

/// The digest as `Content-MD5` shows it: Base64.
pub(super) fn md5_base64(data: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_object_of_the_documentation_has_the_documented_digest() {
        // Product page 436/7749, "PUT Object".
        assert_eq!(
            md5_hex(b"[Object Content]"),
            "ee8de918d05640145b18f70f4c3aa602"
        );
        assert_eq!(md5_base64(b"[Object Content]"), "7o3pGNBWQBRbGPcPTDqmAg==");
    }
}

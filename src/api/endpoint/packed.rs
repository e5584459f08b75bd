//! Texts that are the same for every client, packed by `build.rs` (RFC 1951). Unpacked they would
//! add 100 KB to the program. Each answer unpacks its text, which takes some 0.3 ms.

/// The description of the API.
pub(super) const OPENAPI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.deflate"));

/// The status page, with style and script.
pub(super) const STATUS_PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.deflate"));

/// More than any of them has, unpacked.
const UNPACKED_MAX_BYTES: usize = 256 * 1024;

/// The text.
pub(super) fn unpack(packed: &[u8]) -> String {
    let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, UNPACKED_MAX_BYTES);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.expect("the build script packed a text")
}

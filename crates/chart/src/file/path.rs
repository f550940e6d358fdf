//! Paths as bytes, and as text that tells every byte.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The bytes of a path.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The path of these bytes.
pub(super) fn of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether it says nothing but names, one in the other.
pub(super) fn is_beneath(path: &Path) -> bool {
    let bytes = bytes(path);
    !bytes.contains(&0) && bytes.split(|&b| b == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

/// As text: `%` and what is not UTF-8 as `%` and two hexadecimal digits a byte.
pub(super) fn to_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in bytes(path).utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// From such text.
pub(super) fn from_text(text: &str) -> Result<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let digits = behind.split_at_checked(2);
            let wrong = || Error::corrupt(format!("{text:?}: a % without two hexadecimal digits behind it"));
            let (digits, behind) = digits.ok_or_else(wrong)?;
            bytes.push(hex(digits).ok_or_else(wrong)?);
            rest = behind;
        } else {
            bytes.push(byte);
        }
    }
    Ok(of(bytes))
}

/// A byte of two hexadecimal digits.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

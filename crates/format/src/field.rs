//! Integers out of byte slices, and between widths, without a panic.

use chart::{Error, Result, Source, Wait};

/// A length in memory as a length on disk. Lossless wherever this builds.
#[inline]
pub(crate) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A number as an index. What does not fit indexes nothing.
#[inline]
pub(crate) fn to_index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The big-endian 64-bit numbers a slice is made of; an odd tail is left out.
pub(crate) fn be64s(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b))
}

/// `len` bytes of a source. The caller has bounded `len`; a range past the end is an error before any memory is
/// taken for it.
pub(crate) fn read_vec(source: &dyn Source, offset: u64, len: u64, what: &str) -> Result<Vec<u8>> {
    let end = offset.checked_add(len);
    if end.is_none_or(|end| end > source.len()) {
        let what = format!("the {what} reaches past the end of the file, which has {} bytes", source.len());
        return Err(Error::corrupt(what).at(offset));
    }
    let mut bytes = vec![0; to_index(len)];
    source.read_at(offset, &mut bytes, Wait::Allowed)?;
    Ok(bytes)
}

/// The string in some bytes.
pub(crate) fn text(bytes: &[u8], what: &str, offset: u64) -> Result<String> {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    text.map_err(|e| Error::unsupported(format!("the {what} is not UTF-8")).at(offset).caused_by(e))
}

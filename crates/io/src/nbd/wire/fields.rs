//! Big-endian fields, taken from the front of a slice.

use chart::{Error, Result};

/// What is left of a message that is being parsed.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Begins with all of `bytes`; `what` names the message in errors.
    pub fn of(what: &'static str, bytes: &'a [u8]) -> Self {
        Fields { rest: bytes, what }
    }

    /// An error in this message.
    #[cold]
    pub fn wrong(&self, how: &str) -> Error {
        Error::corrupt(format!("NBD {}: {how}", self.what))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (now, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.wrong("it ends too early"))?;
        self.rest = rest;
        Ok(*now)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: u32) -> Result<&'a [u8]> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (now, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.wrong("it ends too early"))?;
        self.rest = rest;
        Ok(now)
    }

    /// A string of `len` bytes that follows the rules for strings: UTF-8, without NUL, not too long.
    pub fn string(&mut self, len: u32) -> Result<String> {
        let bytes = self.bytes(len)?;
        self.checked_string(bytes)
    }

    /// A string with its length before it, in four bytes.
    pub fn counted_string(&mut self) -> Result<String> {
        let len = self.u32()?;
        self.string(len)
    }

    /// All that is left, as a string.
    pub fn rest_string(&mut self) -> Result<String> {
        let bytes = self.rest();
        self.checked_string(bytes)
    }

    fn checked_string(&self, bytes: &[u8]) -> Result<String> {
        if bytes.len() > super::STRING_MAX {
            return Err(self.wrong("a string is longer than 4096 bytes"));
        }
        if bytes.contains(&0) {
            return Err(self.wrong("a string contains NUL"));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong("a string is not UTF-8"))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong("it is longer than its fields")) }
    }

    /// The next field must be this magic number.
    pub fn magic_u32(&mut self, magic: u32) -> Result<()> {
        let found = self.u32()?;
        if found == magic { Ok(()) } else { Err(self.wrong(&format!("its magic number is {found:#x}"))) }
    }

    /// The next field must be this magic number.
    pub fn magic_u64(&mut self, magic: u64) -> Result<()> {
        let found = self.u64()?;
        if found == magic { Ok(()) } else { Err(self.wrong(&format!("its magic number is {found:#x}"))) }
    }
}

/// Text meant for a person: what is not UTF-8 or not printable is replaced, what is too long is cut.
pub(super) fn text(bytes: &[u8]) -> String {
    let shown = bytes.get(..super::STRING_MAX).unwrap_or(bytes);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(shown).chars().map(plain).collect()
}

/// The length of a string that is about to be sent.
pub(super) fn string_len(s: &str) -> Result<u32> {
    if s.contains('\0') {
        return Err(Error::invalid("an NBD string cannot contain NUL"));
    }
    match u32::try_from(s.len()) {
        Ok(len) if s.len() <= super::STRING_MAX => Ok(len),
        _ => Err(Error::invalid(format!("an NBD string of {} bytes is longer than 4096", s.len()))),
    }
}

/// Appends a string with its length before it.
pub(super) fn put_counted(s: &str, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&string_len(s)?.to_be_bytes());
    out.extend_from_slice(s.as_bytes());
    Ok(())
}

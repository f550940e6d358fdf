//! Memory as the kernel wants it for what goes past the page cache.

/// What offset, length and memory of such a request are aligned to: enough for every device we know of.
pub(crate) const ALIGN: usize = 4096;

/// Memory that begins on an aligned address: a vector, and where in it that is.
pub(crate) struct Aligned(Vec<u8>, usize);

impl Aligned {
    /// This much of it, zeroed.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Aligned(bytes, start)
    }

    /// Its first bytes.
    pub(crate) fn slice(&mut self, len: usize) -> &mut [u8] {
        &mut self.0[self.1..self.1 + len]
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len() - ALIGN
    }
}

//! Bytes that follow from a rule: headers, tables, directories nobody ever wrote.

use chart::{Backing, Error, Identity, Limits, Result, Source, Wait, check_range};

/// What computes the bytes: fills the buffer with those from the offset on.
pub trait Rule: Send + Sync {
    /// Fills `buf` with the bytes from `offset` on. With [`Wait::Never`], without blocking or not at all.
    fn fill(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()>;
}

/// Bytes that are kept, by the simplest of all rules: what was computed once and written down.
pub struct Kept(pub Vec<u8>);

impl Rule for Kept {
    fn fill(&self, offset: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        let kept = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)?.get(..buf.len()));
        buf.copy_from_slice(
            kept.ok_or_else(|| Error::out_of_range("past the bytes that are kept").at(offset))?,
        );
        Ok(())
    }
}

/// A source whose bytes are computed when they are asked for, and stored nowhere.
pub struct Generated<R> {
    name: String,
    len: u64,
    rule: R,
    identity: Identity,
}

impl<R: Rule> Generated<R> {
    /// `len` bytes of this rule.
    pub fn new(name: impl Into<String>, len: u64, rule: R) -> Self {
        Generated { name: name.into(), len, rule, identity: Identity::unique() }
    }
}

impl<R: Rule> Source for Generated<R> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(self.len, offset, buf.len() as u64)?;
        self.rule.fill(offset, buf, wait)
    }

    fn limits(&self) -> Limits {
        Limits { never: true, ..Limits::default() }
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Memory
    }
}

use super::{Stamp, source_law, stamp, stamps};
use crate::source::Memory;
use chart::{Error, Identity, Limits, Result, Source, Wait};

#[test]
fn stamps_tell_who_wrote_what_where() {
    let mut buf = vec![0; 1024];
    stamp(&mut buf, 512, 3, 9);
    let found = stamps(&buf, 512).unwrap();
    assert_eq!(found[1], Some(Stamp { at: 1024, writer: 3, sequence: 9 }));
    assert!(stamps(&buf, 1024).unwrap_err().to_string().contains("foreign"));
    buf[600..].fill(0);
    assert!(stamps(&buf, 512).unwrap_err().to_string().contains("torn"));
    assert_eq!(stamps(&[0; 512], 0).unwrap(), [None]);
    assert!(stamps(&[7; 512], 0).unwrap_err().to_string().contains("nobody"));
}

/// Sources that break their contract, each in one way.
struct Broken(Memory, &'static str);

impl Source for Broken {
    fn name(&self) -> String {
        self.1.into()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        match (self.1, wait) {
            ("short", _) if offset < self.len() => {
                let now = buf.len().min((self.len() - offset) as usize);
                self.0.read_at(offset, &mut buf[..now], wait)
            }
            ("leaks", Wait::Allowed) if buf.len() > 9000 => Err(Error::WOULD_BLOCK),
            ("half", Wait::Never) if buf.len() > 1000 => self.0.read_at(offset, &mut buf[..1000], wait),
            _ => self.0.read_at(offset, buf, wait),
        }
    }
    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if self.1 == "grows" && end > self.len() && end < 1 << 20 {
            self.0.set_len(end)?;
        }
        self.0.write_at(offset, buf, wait)
    }
    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        if self.1 == "rounds" {
            let end = (offset + len).next_multiple_of(512).min(self.len());
            return self.0.zero(offset / 512 * 512, end - offset / 512 * 512, fast_only);
        }
        self.0.zero(offset, len, fast_only)
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.0.punch(offset, len)
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    fn data_at(&self, offset: u64, want: u64) -> Result<chart::Run> {
        let run = self.0.data_at(offset, want)?;
        Ok(if self.1 == "hides" { chart::Run { data: false, ..run } } else { run })
    }
    fn identity(&self) -> Identity {
        if self.1 == "nobody" { Identity::unique() } else { self.0.identity() }
    }
}

#[test]
fn the_source_contract_finds_what_breaks_it() {
    for how in ["short", "leaks", "half", "grows", "rounds", "hides", "nobody"] {
        let source = Broken(Memory::new(50_000), how);
        let verdict = (0..4).try_for_each(|seed| source_law(&source, seed));
        assert!(verdict.is_err(), "a source that {how} was not found");
    }
}

//! Sectors that say of themselves where they belong and who wrote them.

use super::{Verdict, ensure};

/// The unit that is written and read as one.
pub(super) const SECTOR: u64 = 512;

/// One sector is this often the same record, so that a torn one is seen.
const RECORD: usize = 32;

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Where it belongs.
    pub at: u64,
    /// Who wrote it.
    pub writer: u32,
    /// As its writer's how-manieth.
    pub sequence: u64,
}

impl Stamp {
    fn record(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(b"SECT");
        record[4..8].copy_from_slice(&self.writer.to_le_bytes());
        record[8..16].copy_from_slice(&self.at.to_le_bytes());
        record[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        let sum = crc32c::crc32c(&record[..24]);
        record[24..28].copy_from_slice(&sum.to_le_bytes());
        record[28..].copy_from_slice(b"TOR.");
        record
    }

    fn parse(record: &[u8]) -> Option<Stamp> {
        let stamp = Stamp {
            writer: u32::from_le_bytes(record[4..8].try_into().ok()?),
            at: u64::from_le_bytes(record[8..16].try_into().ok()?),
            sequence: u64::from_le_bytes(record[16..24].try_into().ok()?),
        };
        (stamp.record() == record).then_some(stamp)
    }
}

/// Sectors of `writer` for the whole of `buf`, which belongs at `at`. Both on sector boundaries.
pub fn stamp(buf: &mut [u8], at: u64, writer: u32, sequence: u64) {
    for (i, sector) in buf.chunks_exact_mut(SECTOR as usize).enumerate() {
        let record = Stamp { at: at + i as u64 * SECTOR, writer, sequence }.record();
        sector.chunks_exact_mut(RECORD).for_each(|r| r.copy_from_slice(&record));
    }
}

/// What the sectors of `buf`, read at `at`, say of themselves; `None` for zeros. Torn, foreign and meaningless
/// sectors are findings.
pub fn stamps(buf: &[u8], at: u64) -> Verdict<Vec<Option<Stamp>>> {
    let one = |(i, sector): (usize, &[u8])| {
        let at = at + i as u64 * SECTOR;
        if super::is_zero(sector) {
            return Ok(None);
        }
        let torn = sector.chunks_exact(RECORD).any(|r| r != &sector[..RECORD]);
        if torn {
            let all: Vec<_> = sector.chunks_exact(RECORD).map(Stamp::parse).collect();
            let other = all.iter().find(|s| **s != all[0]);
            ensure!(false, "the sector at {at} is torn: it begins with {:?}, and holds {other:?}", all[0]);
        }
        let Some(stamp) = Stamp::parse(&sector[..RECORD]) else {
            ensure!(false, "the sector at {at} holds what nobody wrote: {:02x?}", &sector[..RECORD]);
            return Ok(None);
        };
        ensure!(stamp.at == at, "the sector at {at} holds foreign bytes: {stamp:?}");
        Ok(Some(stamp))
    };
    buf.chunks_exact(SECTOR as usize).enumerate().map(one).collect()
}

//! A qcow2 whose clusters are in no order: made of one whose clusters are, by rewriting its tables.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Where a table or a cluster is, in an entry that points to it.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Exchanges neighbours in all L2 tables of an image. Each cluster still belongs to one place, but no two that follow
/// each other on the disk do so in the file.
pub(super) fn scatter(image: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let mut header = [0; 48];
    file.read_exact_at(&mut header, 0)?;
    let field = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (cluster_bits, l1_entries, l1_offset) = (field(16) & 0xffff_ffff, field(32) & 0xffff_ffff, field(40));
    let mut l1 = vec![0; usize::try_from(l1_entries * 8)?];
    file.read_exact_at(&mut l1, l1_offset)?;
    let mut table = vec![0; 1 << cluster_bits];
    for entry in l1.as_chunks::<8>().0 {
        let offset = u64::from_be_bytes(*entry) & OFFSET;
        if offset != 0 {
            file.read_exact_at(&mut table, offset).context("an L2 table")?;
            for pair in table.as_chunks_mut::<16>().0 {
                pair.rotate_left(8);
            }
            file.write_all_at(&table, offset)?;
        }
    }
    Ok(())
}

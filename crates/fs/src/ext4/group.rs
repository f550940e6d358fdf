//! Group descriptors: where the inode tables are. Read when they are asked for, through the cache.

use super::checksum::{Crc32c, crc16};
use super::feature::{Compat, Incompat, RoCompat};
use super::layout::{GROUP_CHECKSUM_AT, GROUP_INODE_TABLE_HI_AT, RawGroup, SUPERBLOCK_AT};
use super::superblock::Superblock;
use super::volume::Volume;
use chart::{Error, Result, Wait};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

impl Volume {
    /// The block at which a group's inode table begins.
    pub(super) fn inode_table(&self, group: u64) -> Result<u64> {
        let sb = &self.superblock;
        let at = place(sb, group).ok_or_else(|| Error::corrupt(format!("group {group} does not exist")))?;
        let bytes = self.tables.read(at, sb.desc_size, Wait::Allowed)?;
        let corrupt = |what: &str| Error::corrupt(format!("descriptor of group {group} {what}")).at(at);
        let (raw, _) = RawGroup::read_from_prefix(&bytes).map_err(|_| corrupt("is cut short"))?;
        if !matches(sb, group, &bytes, raw.checksum.get()) {
            return Err(corrupt("does not match its checksum"));
        }
        let high = match sb.incompat.has(Incompat::BIT64) {
            true => bytes.get(GROUP_INODE_TABLE_HI_AT..).and_then(|b| U32::read_from_prefix(b).ok()),
            false => None,
        };
        let table =
            high.map_or(0, |(high, _)| u64::from(high.get())) << 32 | u64::from(raw.inode_table_lo.get());
        if !sb.holds(table, 1) {
            return Err(corrupt("names an inode table that cannot be"));
        }
        Ok(table)
    }
}

/// Whether a descriptor matches its checksum, where it has one.
fn matches(sb: &Superblock, group: u64, bytes: &[u8], stored: u16) -> bool {
    let number = u32::try_from(group).unwrap_or(u32::MAX);
    if sb.has_metadata_csum() {
        return sb.seed.with_u32(number).with_but(bytes, GROUP_CHECKSUM_AT, 2).low() == stored;
    }
    if sb.ro_compat.has(RoCompat::GDT_CSUM) {
        let (before, rest) = bytes.split_at_checked(GROUP_CHECKSUM_AT).unwrap_or((bytes, &[]));
        let crc = crc16(crc16(Crc32c::START.low(), &sb.uuid), &number.to_le_bytes());
        return crc16(crc16(crc, before), rest.get(2..).unwrap_or_default()) == stored;
    }
    true
}

/// Where a group's descriptor is.
fn place(sb: &Superblock, group: u64) -> Option<u64> {
    if group >= sb.groups() {
        return None;
    }
    let a_block = sb.block_size.checked_div(sb.desc_size)?;
    let (number, within) = (group.checked_div(a_block)?, group.checked_rem(a_block)?);
    let spread = sb.incompat.has(Incompat::META_BG) && number >= sb.first_meta_bg;
    let block = if spread {
        // The first group that a block of descriptors speaks of has it, behind its copy of the superblock.
        let home = number.checked_mul(a_block)?;
        let first = home.checked_mul(sb.blocks_per_group)?.checked_add(sb.first_data_block)?;
        let boot_block = home == 0 && sb.block_size == SUPERBLOCK_AT && sb.first_data_block == 0;
        first.checked_add(u64::from(has_superblock(sb, home)))?.checked_add(u64::from(boot_block))?
    } else {
        SUPERBLOCK_AT.checked_div(sb.block_size)?.checked_add(1)?.checked_add(number)?
    };
    block.checked_mul(sb.block_size)?.checked_add(within.checked_mul(sb.desc_size)?)
}

/// Whether a group begins with a copy of the superblock.
fn has_superblock(sb: &Superblock, group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    match group {
        0 => true,
        _ if sb.compat.has(Compat::SPARSE_SUPER2) => sb.backup_bgs.contains(&group),
        1 => true,
        _ if !sb.ro_compat.has(RoCompat::SPARSE_SUPER) => true,
        _ => [3, 5, 7].into_iter().any(power_of),
    }
}

//! What tells a file that is still the one that was found from any other, and from itself once it was changed.

use super::Time;
use chart::Identity;
use rustix::fs::{Statx, StatxFlags, StatxTimestamp, makedev};
use std::time::Duration;

/// A moment in eight bytes: 34 bits of seconds from the end of 1901 on, and 30 bits of nanoseconds. Every moment
/// that ext4 can note has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

const NANOS_BITS: u32 = 30;
const SECONDS_MAX: i64 = (1 << 34) - 1;
const FIRST_SECOND: i64 = -(1 << 31);
/// No moment has so many nanoseconds.
const UNKNOWN: Stamp = Stamp((1 << NANOS_BITS) - 1);

const A_SECOND: u64 = 1_000_000_000;

impl Stamp {
    pub(super) fn new(seconds: i64, nanos: u32) -> Stamp {
        let from_first = seconds.saturating_sub(FIRST_SECOND);
        let nanos = u64::from(nanos).min(A_SECOND - 1);
        match from_first {
            ..0 => Stamp(0),
            SECONDS_MAX.. => Stamp((SECONDS_MAX as u64) << NANOS_BITS | nanos),
            _ => Stamp((from_first as u64) << NANOS_BITS | nanos),
        }
    }

    pub(super) fn of(time: StatxTimestamp) -> Stamp {
        Stamp::new(time.tv_sec, time.tv_nsec)
    }

    /// When a file was made, where its file system notes that.
    pub(super) fn birth(stat: &Statx) -> Stamp {
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        if known { Stamp::of(stat.stx_btime) } else { UNKNOWN }
    }

    /// So much later, which is less than a second.
    pub(super) fn later(self, by: Duration) -> Stamp {
        let Time { seconds, nanos } = self.time();
        let nanos = nanos + by.subsec_nanos();
        Stamp::new(seconds + i64::from(nanos / A_SECOND as u32), nanos % A_SECOND as u32)
    }

    pub(super) fn known(self) -> Option<Stamp> {
        (self != UNKNOWN).then_some(self)
    }

    pub(super) fn time(self) -> Time {
        let seconds = (self.0 >> NANOS_BITS) as i64 + FIRST_SECOND;
        Time { seconds, nanos: (self.0 & ((1 << NANOS_BITS) - 1)) as u32 }
    }

    /// Nanoseconds since 1970; before, they are counted down from the greatest number.
    pub(super) fn nanos(self) -> u64 {
        let Time { seconds, nanos } = self.time();
        (seconds as u64).wrapping_mul(A_SECOND).wrapping_add(nanos.into())
    }
}

/// What a file was when it was found. Whatever is done to it changes this, by the rules of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Its birth: 0 where that is not known.
    pub(super) generation: u64,
    pub(super) len: u64,
    pub(super) modified: u64,
    pub(super) changed: u64,
}

/// What has to be asked for a seal.
pub(super) const SEALED: StatxFlags =
    StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME.union(StatxFlags::BLOCKS)).union(StatxFlags::BTIME);

impl Seal {
    pub(super) fn of(stat: &Statx) -> Seal {
        Seal {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            generation: Stamp::birth(stat).known().map_or(0, Stamp::nanos),
            len: stat.stx_size,
            modified: Stamp::of(stat.stx_mtime).nanos(),
            changed: Stamp::of(stat.stx_ctime).nanos(),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::File { device: self.device, inode: self.inode, generation: self.generation }
    }

    /// How a file that has the seal `now` differs, as a person would say it; nothing if it does not.
    pub(super) fn difference(&self, now: &Seal) -> Option<String> {
        let same_file = (self.device, self.inode, self.generation) == (now.device, now.inode, now.generation);
        Some(if !same_file {
            "is another file than the one that was found there".to_owned()
        } else if self.len != now.len {
            format!("had {} bytes when it was found, and has {} now", self.len, now.len)
        } else if self.modified != now.modified {
            "has been written to since it was found".to_owned()
        } else if self.changed != now.changed {
            "has been changed since it was found: written to, or its mode, owner, name or number of links"
                .to_owned()
        } else {
            return None;
        })
    }
}

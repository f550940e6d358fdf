//! What is on disk.

use super::GRAIN;
use chart::{Error, Result, Source, Wait};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a grain of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Not in this image.
    Below,
    /// Stored as zeros.
    Zero,
    /// In this grain of the source.
    At(u64),
}

/// A state of the disk.
#[derive(Clone, Debug)]
pub(super) struct Map {
    pub(super) len: u64,
    pub(super) entries: Vec<Entry>,
}

impl Map {
    pub(super) fn new(len: u64) -> Self {
        Map { len, entries: vec![Entry::Below; len.div_ceil(GRAIN) as usize] }
    }

    /// The grains of the source it names.
    pub(super) fn places(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().filter_map(|e| if let Entry::At(grain) = e { Some(*grain) } else { None })
    }
}

/// Everything a root leads to.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    pub(super) current: Map,
    pub(super) snapshots: BTreeMap<u64, Arc<Map>>,
    pub(super) next_id: u64,
}

/// Where the maps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) sequence: u64,
    /// The first grain of the maps.
    pub(super) grain: u64,
    /// How many bytes they are.
    pub(super) len: u64,
    sum: u32,
}

const MAGIC: u64 = u64::from_le_bytes(*b"TOYROOT1");

/// No toy is larger: what opening one may make us allocate.
const MAPS_MAX: u64 = 16 << 20;

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|c| c.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))).collect()
}

impl Root {
    pub(super) fn of(maps: &[u8], sequence: u64, grain: u64) -> Self {
        Root { sequence, grain, len: maps.len() as u64, sum: crc32c::crc32c(maps) }
    }

    /// How many grains the maps take.
    pub(super) fn grains(&self) -> u64 {
        self.len.div_ceil(GRAIN)
    }

    /// Its place: of two, in turns.
    pub(super) fn offset(&self) -> u64 {
        self.sequence % 2 * GRAIN
    }

    /// One sector, so that it is written as one.
    pub(super) fn to_sector(self) -> Vec<u8> {
        let words = [MAGIC, self.sequence, self.grain, self.len, u64::from(self.sum)];
        let mut sector: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let sum = crc32c::crc32c(&sector);
        sector.extend(sum.to_le_bytes());
        sector.resize(512, 0);
        sector
    }

    fn parse(sector: &[u8]) -> Option<Self> {
        let w = words(&sector[..40]);
        let sum = u32::from_le_bytes(sector[40..44].try_into().ok()?);
        let fits = w[0] == MAGIC && crc32c::crc32c(&sector[..40]) == sum && w[3] <= MAPS_MAX;
        fits.then(|| Root { sequence: w[1], grain: w[2], len: w[3], sum: w[4] as u32 })
    }

    /// The newest root that leads to whole maps.
    pub(super) fn find(source: &dyn Source) -> Result<(Self, Maps)> {
        let mut found = Vec::new();
        for slot in 0..2 {
            let mut sector = [0; 512];
            source.read_at(slot * GRAIN, &mut sector, Wait::Allowed)?;
            found.extend(Self::parse(&sector));
        }
        found.sort_by_key(|root| std::cmp::Reverse(root.sequence));
        for root in found {
            let mut maps = vec![0; root.len as usize];
            if source.read_at(root.grain * GRAIN, &mut maps, Wait::Allowed).is_ok()
                && crc32c::crc32c(&maps) == root.sum
            {
                return Maps::parse(&maps).map(|maps| (root, maps));
            }
        }
        Err(Error::corrupt("no root leads to whole maps").in_path(source.name()))
    }
}

impl Maps {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.next_id, self.snapshots.len() as u64];
        let mut put = |id: u64, map: &Map| {
            out.extend([id, map.len]);
            out.extend(map.entries.iter().map(|e| match e {
                Entry::Below => 0,
                Entry::Zero => 1,
                Entry::At(grain) => *grain,
            }));
        };
        put(0, &self.current);
        self.snapshots.iter().for_each(|(id, map)| put(*id, map));
        out.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let words = words(bytes);
        let mut next = words.into_iter();
        let mut word = || next.next().ok_or_else(|| Error::corrupt("the maps end early"));
        let (next_id, count) = (word()?, word()?);
        let mut map = || -> Result<(u64, Map)> {
            let (id, len) = (word()?, word()?);
            let mut entries = Vec::new();
            for _ in 0..len.div_ceil(GRAIN) {
                entries.push(match word()? {
                    0 => Entry::Below,
                    1 => Entry::Zero,
                    grain => Entry::At(grain),
                });
            }
            Ok((id, Map { len, entries }))
        };
        let (_, current) = map()?;
        let mut snapshots = BTreeMap::new();
        for _ in 0..count {
            let (id, map) = map()?;
            snapshots.insert(id, Arc::new(map));
        }
        Ok(Maps { current, snapshots, next_id })
    }
}

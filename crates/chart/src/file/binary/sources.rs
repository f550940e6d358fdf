//! Sources in the binary form. See the [table](super) above for what is written.

use super::{In, MAX_SOURCES, Out, count};
use crate::file::sources::{FamilyRecord, Outside, SourceRecord, Sum, sound_member};
use crate::file::{MAX_INLINE, MAX_MEMBERS, MAX_PATH, path};
use crate::{Identity, Member, Result};

const OUTSIDE: u8 = 0;
const INLINE: u8 = 1;
const FAMILY: u8 = 2;

/// What is the same as of the member before, or follows from the rest, and is left out.
const SAME_DEVICE: u8 = 1;
const MODIFIED_WHEN_CHANGED: u8 = 2;
const MODIFIED_IN_SECONDS: u8 = 4;
const UNBORN: u8 = 8;
const FLAGS: u8 = 15;

const A_SECOND: u64 = 1_000_000_000;

/// What a member is told relative to: the one before it.
#[derive(Default)]
struct Before {
    name: Vec<u8>,
    end: u64,
    device: u64,
    inode: u64,
    changed: u64,
    /// In seconds.
    modified: u64,
}

impl Before {
    fn follow(&mut self, member: &Member, (device, inode): (u64, u64)) {
        self.name.clear();
        self.name.extend_from_slice(path::bytes(&member.name));
        self.end = member.start.saturating_add(member.len);
        self.changed = member.changed;
        self.modified = seconds(member.modified);
        (self.device, self.inode) = (device, inode);
    }
}

fn seconds(nanos: u64) -> u64 {
    nanos.checked_div(A_SECOND).unwrap_or(0)
}

impl Out {
    pub(super) fn sources(&mut self, sources: &[SourceRecord]) -> Result<()> {
        let mut sum = Sum::default();
        self.varint(count(sources.len()));
        for source in sources {
            match source {
                SourceRecord::Outside(outside) => {
                    self.0.push(OUTSIDE);
                    self.text(&outside.name)?;
                    self.varint(outside.len);
                    self.identity(outside.identity.as_ref())?;
                    self.maybe(outside.modified);
                }
                SourceRecord::Inline(bytes) => {
                    sum.inline(count(bytes.len()))?;
                    self.0.push(INLINE);
                    self.bytes(bytes);
                }
                SourceRecord::Family(family) => {
                    self.0.push(FAMILY);
                    self.family(family, &mut sum)?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(count(bytes.len()));
        self.0.extend_from_slice(bytes);
    }

    fn delta(&mut self, now: u64, before: u64) {
        self.zigzag(now.wrapping_sub(before).cast_signed());
    }

    fn family(&mut self, family: &FamilyRecord, sum: &mut Sum) -> Result<()> {
        sum.path(count(path::bytes(&family.root).len()))?;
        sum.members(count(family.members.len()))?;
        self.bytes(path::bytes(&family.root));
        self.varint(family.len);
        self.varint(count(family.members.len()));
        let mut before = Before::default();
        for member in &family.members {
            sound_member(member, before.end, family.len)?;
            sum.path(count(path::bytes(&member.name).len()))?;
            self.member(member, &mut before);
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, before: &mut Before) {
        let Identity::File { device, inode, generation } = member.identity else { return };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let when_changed = member.modified == member.changed;
        let in_seconds = !when_changed && member.modified.is_multiple_of(A_SECOND);
        let same = device == before.device;
        self.0.push(
            flag(same, SAME_DEVICE)
                | flag(when_changed, MODIFIED_WHEN_CHANGED)
                | flag(in_seconds, MODIFIED_IN_SECONDS)
                | flag(generation == 0, UNBORN),
        );
        let name = path::bytes(&member.name);
        let shared = name.iter().zip(&before.name).take_while(|(a, b)| a == b).count();
        self.varint(count(shared));
        self.bytes(name.get(shared..).unwrap_or_default());
        self.varint(member.start.saturating_sub(before.end));
        self.varint(member.len);
        if !same {
            self.varint(device);
        }
        self.delta(inode, before.inode);
        self.delta(member.changed, before.changed);
        if generation != 0 {
            self.delta(generation, member.changed);
        }
        if in_seconds {
            self.delta(seconds(member.modified), before.modified);
        } else if !when_changed {
            self.delta(member.modified, member.changed);
        }
        before.follow(member, (device, inode));
    }
}

impl<'a> In<'a> {
    /// The sources. In version 1 all of them are outside, and have no tag.
    pub(super) fn sources(&mut self, tagged: bool) -> Result<Vec<SourceRecord>> {
        let mut sum = Sum::default();
        let mut sources = Vec::new();
        for _ in 0..self.limited(MAX_SOURCES, "sources")? {
            let tag = if tagged { self.byte()? } else { OUTSIDE };
            sources.push(match tag {
                OUTSIDE => {
                    let (name, len, identity) = (self.text()?, self.varint()?, self.identity()?);
                    SourceRecord::Outside(Outside { name, len, identity, modified: self.maybe()? })
                }
                INLINE => {
                    let bytes = self.bytes(MAX_INLINE, "bytes in the chart itself")?;
                    sum.inline(count(bytes.len())).map_err(|e| e.at(self.position()))?;
                    SourceRecord::Inline(bytes.to_vec())
                }
                FAMILY => SourceRecord::Family(self.family(&mut sum)?),
                _ => return Err(self.corrupt("an unknown kind of source")),
            });
        }
        Ok(sources)
    }

    pub(super) fn bytes(&mut self, most: u64, what: &str) -> Result<&'a [u8]> {
        let len = usize::try_from(self.limited(most, what)?).unwrap_or(usize::MAX);
        let cut: Option<(&'a [u8], &'a [u8])> = self.rest.split_at_checked(len);
        let (bytes, rest) = cut.ok_or_else(|| self.corrupt("a run of bytes ends too soon"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn delta(&mut self, before: u64) -> Result<u64> {
        Ok(before.wrapping_add(self.zigzag()?.cast_unsigned()))
    }

    fn family(&mut self, sum: &mut Sum) -> Result<FamilyRecord> {
        let root = path::of(self.bytes(MAX_PATH, "bytes in a path")?.to_vec());
        let len = self.varint()?;
        let how_many = self.limited(MAX_MEMBERS, "files in directories")?;
        sum.members(how_many).map_err(|e| e.at(self.position()))?;
        let (mut members, mut before) = (Vec::new(), Before::default());
        for _ in 0..how_many {
            let end = before.end;
            let member = self.member(&mut before)?;
            let sound = sound_member(&member, end, len);
            let fits = sound.and_then(|()| sum.path(count(path::bytes(&member.name).len())));
            fits.map_err(|e| e.at(self.position()))?;
            members.push(member);
        }
        Ok(FamilyRecord { root, len, members })
    }

    fn member(&mut self, before: &mut Before) -> Result<Member> {
        let flags = self.byte()?;
        let both = MODIFIED_WHEN_CHANGED | MODIFIED_IN_SECONDS;
        if flags & !FLAGS != 0 || flags & both == both {
            return Err(self.corrupt("an unknown kind of file in a directory"));
        }
        let shared = usize::try_from(self.limited(MAX_PATH, "bytes in a path")?).unwrap_or(usize::MAX);
        let known = before.name.get(..shared).ok_or_else(|| self.corrupt("a path goes on from none"))?;
        let mut name = known.to_vec();
        name.extend_from_slice(self.bytes(MAX_PATH, "bytes in a path")?);
        let gap = self.varint()?;
        let start = before.end.checked_add(gap).ok_or_else(|| self.corrupt("a file past all ends"))?;
        let len = self.varint()?;
        let device = if flags & SAME_DEVICE != 0 { before.device } else { self.varint()? };
        let inode = self.delta(before.inode)?;
        let changed = self.delta(before.changed)?;
        let generation = if flags & UNBORN != 0 { 0 } else { self.delta(changed)? };
        let modified = match flags & both {
            MODIFIED_WHEN_CHANGED => changed,
            MODIFIED_IN_SECONDS => {
                let whole = self.delta(before.modified)?.checked_mul(A_SECOND);
                whole.ok_or_else(|| self.corrupt("a time past all ends"))?
            }
            _ => self.delta(changed)?,
        };
        let identity = Identity::File { device, inode, generation };
        let member = Member { name: path::of(name), start, len, identity, modified, changed };
        before.follow(&member, (device, inode));
        Ok(member)
    }
}

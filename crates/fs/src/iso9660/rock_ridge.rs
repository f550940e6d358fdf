//! Rock Ridge: what a POSIX system knows of a file, as system use fields (RRIP 1.12).

use super::date;
use super::layout::{
    Both32, COMPONENT_CONTINUE, COMPONENT_CURRENT, COMPONENT_HEAD, COMPONENT_PARENT, COMPONENT_ROOT,
    CONTINUE, NM_LINUX, NM_MOST, SL_MOST, TF_ACCESS, TF_ATTRIBUTES, TF_CREATION, TF_LONG_FORM, TF_MODIFY,
};
use super::number::{to_u8, to_u32};
use super::susp::Fields;
use io::tree::{Kind, Node};
use zerocopy::IntoBytes;

/// What is said of a node beyond what it says itself.
pub(super) struct Said<'a> {
    pub(super) node: &'a Node,
    /// Its number: names with the same number are names of one file.
    pub(super) serial: u32,
    /// How many names it has in this tree.
    pub(super) links: u32,
    /// Whether the time of its last access is told.
    pub(super) accessed: bool,
}

impl Said<'_> {
    /// Adds the attributes: PX, TF, and PN of a device.
    pub(super) fn push_attributes(&self, fields: &mut Fields) {
        let node = self.node;
        let numbers =
            [kind_bits(node.kind) | node.mode & 0o7777, self.links, node.uid, node.gid, self.serial];
        fields.push(*b"PX", &[numbers.map(Both32::from).as_bytes()]);
        self.push_times(fields);
        if matches!(node.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            let (high, low) = device_number(node.special);
            fields.push(*b"PN", &[[high, low].map(Both32::from).as_bytes()]);
        }
    }

    fn push_times(&self, fields: &mut Fields) {
        let Node { modified, changed, accessed, born, .. } = *self.node;
        let times = [
            (TF_CREATION, born),
            (TF_MODIFY, Some(modified)),
            (TF_ACCESS, accessed.filter(|_| self.accessed)),
            (TF_ATTRIBUTES, Some(changed)),
        ];
        let told = || times.iter().filter_map(|&(flag, time)| Some((flag, time?)));
        let flags = told().fold(0, |flags, (flag, _)| flags | flag);
        let (bytes, mut len) = (&mut [0; 4 * 17], 0_usize);
        let is_short = told().all(|(_, time)| date::is_short(time));
        let mut add = |date: &[u8]| {
            let end = len.saturating_add(date.len());
            if let Some(to) = bytes.get_mut(len..end) {
                to.copy_from_slice(date);
            }
            len = end;
        };
        for (_, time) in told() {
            if is_short { add(&date::short(time)) } else { add(&date::long(time)) }
        }
        let flags = if is_short { flags } else { flags | TF_LONG_FORM };
        fields.push(*b"TF", &[&[flags], bytes.get(..len).unwrap_or_default()]);
    }
}

/// Adds a name: any bytes (NM).
///
/// Linux takes no more than 253, and of a field with which there would be more, nothing: a field ends there.
pub(super) fn push_name(name: &[u8], fields: &mut Fields) {
    let (most, behind) = name.split_at_checked(NM_LINUX).unwrap_or((name, &[]));
    let mut parts = most.chunks(NM_MOST).chain(behind.chunks(NM_MOST)).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() { CONTINUE } else { 0 };
        fields.push(*b"NM", &[&[flags], part]);
    }
}

/// Adds where a symbolic link leads, name by name (SL).
///
/// What has no room in one field goes on in another, and always within a name: libarchive forgets the slash
/// between two names that are in two fields.
pub(super) fn push_target(target: &[u8], fields: &mut Fields) {
    let mut body = Vec::with_capacity(SL_MOST);
    let mut rest = target;
    if let Some(relative) = target.strip_prefix(b"/") {
        body.extend_from_slice(&[COMPONENT_ROOT, 0]);
        rest = relative;
    }
    // Of the root alone nothing is left to say.
    let mut names = rest.split(|&byte| byte == b'/').filter(|_| !rest.is_empty()).peekable();
    while let Some(name) = names.next() {
        push_component(name, names.peek().is_none(), &mut body, fields);
    }
    fields.push(*b"SL", &[&[0], &body]);
}

/// Adds one name of a target to the body of an SL field, in which there is room for the head of a component and a
/// byte; and sees to it that there is again, unless it was the last.
fn push_component(name: &[u8], is_last: bool, body: &mut Vec<u8>, fields: &mut Fields) {
    let fits = |len: usize, body: &[u8]| {
        let more = if is_last { 0 } else { COMPONENT_HEAD.saturating_add(1) };
        body.len().saturating_add(COMPONENT_HEAD).saturating_add(len).saturating_add(more) <= SL_MOST
    };
    let special = match name {
        b"." => COMPONENT_CURRENT,
        b".." => COMPONENT_PARENT,
        _ => 0,
    };
    if special != 0 && fits(0, body) {
        body.extend_from_slice(&[special, 0]);
        return;
    }
    let mut rest = name;
    while !fits(rest.len(), body) {
        let room = SL_MOST.saturating_sub(body.len()).saturating_sub(COMPONENT_HEAD);
        // Something is left for the next field, unless that is all the name has.
        let most = room.min(rest.len().saturating_sub(1).max(1));
        let (part, behind) = rest.split_at_checked(most).unwrap_or((rest, &[]));
        body.extend_from_slice(&[COMPONENT_CONTINUE, to_u8(part.len())]);
        body.extend_from_slice(part);
        fields.push(*b"SL", &[&[CONTINUE], body]);
        body.clear();
        rest = behind;
    }
    body.extend_from_slice(&[0, to_u8(rest.len())]);
    body.extend_from_slice(rest);
}

/// The high bits of `st_mode` (RRIP 4.1.1).
fn kind_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::CharacterDevice => 0o020_000,
        Kind::BlockDevice => 0o060_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
    }
}

/// The number of a device in two halves, as Linux's C libraries join its major and minor numbers.
fn device_number((major, minor): (u32, u32)) -> (u32, u32) {
    let [major, minor] = [major, minor].map(u64::from);
    let joined = (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32;
    (to_u32(joined >> 32), to_u32(joined & 0xffff_ffff))
}

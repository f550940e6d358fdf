//! The directories of one way of naming, sector by sector. Kept is where each sector begins; its bytes are made
//! when they are asked for, out of the entries that are in it.
//!
//! What is said of a directory's entries and has no room there is continued in the sectors right behind it: who
//! reads a disk from its beginning to its end, as libarchive does, comes by it before the directory is done with.

use super::arrange::{Arrangement, Directory};
use super::date;
use super::layout::{
    DIRECTORY, MAX_DIRECTORY_SECTORS, MAX_SECTORS, MULTI_EXTENT, PARENT, SECTION, SECTOR, SELF,
};
use super::links::{Links, serial};
use super::names::Naming;
use super::number::{to_index, to_u32, to_u64};
use super::placement::Placement;
use super::record::{self, Described};
use super::rock_ridge::{self, Said};
use super::susp::{Continuation, Fields};
use chart::{Error, Result};
use io::tree::{Kind, Node, NodeId, Tree};

/// What the records are made of.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) tree: &'a Tree,
    pub(super) links: &'a Links,
    /// Whether times of last access are told.
    pub(super) accessed: bool,
}

/// Where things are, once that is known.
pub(super) struct Sectors<'a> {
    pub(super) files: &'a Placement,
    /// Where what has no bytes is said to be.
    pub(super) empty: u32,
    /// The first of the directories.
    pub(super) directories: u64,
}

/// A place in a list of records: an entry, and which of the records that describe it.
#[derive(Clone, Copy)]
struct Start {
    entry: u32,
    section: u32,
}

/// All directories of one way of naming.
pub(super) struct Directories {
    pub(super) arrangement: Arrangement,
    /// The first entry of every sector of directory records.
    starts: Vec<Start>,
    /// The entries whose system use is continued, and from where on in the continuation of their directory.
    continued: Vec<(u32, u64)>,
    /// How many sectors there are, with what is continued.
    pub(super) sectors: u64,
}

/// What the records of one entry say.
#[derive(Default)]
struct Line {
    fields: Fields,
    identifier: Vec<u8>,
    system_use: Vec<u8>,
}

impl Directories {
    /// Arranges a tree, and finds what is in which sector.
    pub(super) fn of(subject: Subject<'_>, naming: Naming) -> Result<Directories> {
        let arrangement = Arrangement::of(subject.tree, naming)?;
        let mut all = Directories { arrangement, starts: Vec::new(), continued: Vec::new(), sectors: 0 };
        let mut line = Line::default();
        for number in 0..to_u32(all.arrangement.directories.len()) {
            let Some(directory) = all.directory(number) else { break };
            let placed =
                Directory { sector: to_u32(all.sectors), start: to_u32(all.starts.len()), ..directory };
            let continued = all.measure(subject, number, &mut line);
            let records = to_u64(all.starts.len()).saturating_sub(placed.start.into());
            all.sectors = all.sectors.saturating_add(records).saturating_add(continued.div_ceil(SECTOR));
            if records > MAX_DIRECTORY_SECTORS || all.sectors >= MAX_SECTORS {
                let what = "has more entries than ISO 9660 can describe: a directory is shorter than 4 GiB";
                return Err(Error::unsupported(what).in_path(subject.tree.path(directory.node)));
            }
            if let Some(directory) = all.arrangement.directories.get_mut(to_index(number)) {
                *directory = placed;
            }
        }
        all.starts.shrink_to_fit();
        all.continued.shrink_to_fit();
        Ok(all)
    }

    /// Finds what is in which sector of one directory, and tells how many bytes are continued behind it.
    fn measure(&mut self, subject: Subject<'_>, number: u32, line: &mut Line) -> u64 {
        let (Some(directory), end) = (self.directory(number), self.arrangement.end(number)) else { return 0 };
        let mut continuation = Continuation::default();
        self.starts.push(Start { entry: directory.first, section: 0 });
        let mut at = 0_usize;
        for (of, identifier) in [(number, SELF), (directory.parent, PARENT)] {
            line.begin(identifier);
            self.describe_directory(subject, of, line, identifier == SELF);
            line.pack(&mut continuation, |_, _| ());
            at = at.saturating_add(line.len());
        }
        for entry in directory.first..end {
            let Some(node) = self.begin(subject, entry, line) else { continue };
            let continued = continuation.at;
            line.pack(&mut continuation, |_, _| ());
            if continuation.at > continued {
                self.continued.push((entry, continued));
            }
            for section in 0..sections(&node) {
                if to_u64(at.saturating_add(line.len())) > SECTOR {
                    self.starts.push(Start { entry, section });
                    at = 0;
                }
                at = at.saturating_add(line.len());
            }
        }
        continuation.at
    }

    fn directory(&self, number: u32) -> Option<Directory> {
        self.arrangement.directories.get(to_index(number)).copied()
    }

    /// How many sectors of records a directory has.
    fn len(&self, directory: Directory, number: u32) -> u32 {
        let next = number.checked_add(1).and_then(|next| self.directory(next));
        next.map_or_else(|| to_u32(self.starts.len()), |next| next.start).saturating_sub(directory.start)
    }

    /// What a record says of a directory.
    pub(super) fn described(&self, tree: &Tree, number: u32, sectors: &Sectors<'_>) -> Described {
        let (sector, len, node) = match self.directory(number) {
            Some(directory) => (directory.sector, self.len(directory, number), directory.node),
            None => (0, 0, tree.root()),
        };
        Described {
            sector: to_u32(sectors.directories.saturating_add(sector.into())),
            len: to_u32(u64::from(len).saturating_mul(SECTOR)),
            date: date::short(tree.node(node).modified),
            flags: DIRECTORY,
        }
    }

    /// Adds what is said of a directory in its own record, or in that of one in it.
    fn describe_directory(&self, subject: Subject<'_>, number: u32, line: &mut Line, own: bool) {
        let Some(directory) = self.directory(number) else { return };
        if self.arrangement.naming != Naming::Plain {
            return;
        }
        let root = number == 0 && own;
        if root {
            line.fields.push_sp();
        }
        let node = subject.tree.node(directory.node);
        self.said(subject, directory.node, &node, Some(number)).push_attributes(&mut line.fields);
        if root {
            line.fields.push_er();
        }
    }

    fn said<'n>(&self, subject: Subject<'_>, id: NodeId, node: &'n Node, number: Option<u32>) -> Said<'n> {
        let inside = number.and_then(|number| self.directory(number)).map(|directory| directory.directories);
        // A directory has a name, one in itself, and one in each that is in it.
        let links = inside.map_or_else(|| subject.links.names(id), |inside| inside.saturating_add(2));
        Said { node, serial: serial(subject.links.first(id)), links, accessed: subject.accessed }
    }

    /// Begins the line of an entry: its identifier and its fields.
    fn begin(&self, subject: Subject<'_>, entry: u32, line: &mut Line) -> Option<Node> {
        let id = self.arrangement.entries.get(to_index(entry)).copied()?;
        let node = subject.tree.node(id);
        line.begin(&[]);
        self.arrangement.identify(subject.tree, id, node.kind == Kind::Directory, &mut line.identifier);
        if self.arrangement.naming == Naming::Plain {
            let number = if node.kind == Kind::Directory { self.arrangement.number_of(id) } else { None };
            self.said(subject, id, &node, number).push_attributes(&mut line.fields);
            // The name first: some readers, 7-Zip among them, do not look at what is continued elsewhere.
            rock_ridge::push_name(subject.tree.name(id), &mut line.fields);
            if node.kind == Kind::Symlink {
                rock_ridge::push_target(subject.tree.target(id), &mut line.fields);
            }
        }
        Some(node)
    }

    /// Where the continuation of an entry begins, if it has one.
    fn continued_at(&self, entry: u32) -> u64 {
        let found = self.continued.binary_search_by_key(&entry, |&(entry, _)| entry).ok();
        found.and_then(|i| self.continued.get(i)).map_or(0, |&(_, at)| at)
    }

    /// Fills a sector of the directories.
    pub(super) fn fill(&self, subject: Subject<'_>, sectors: &Sectors<'_>, sector: u64, out: &mut [u8]) {
        let behind = self.arrangement.directories.partition_point(|d| u64::from(d.sector) <= sector);
        let number = to_u32(behind.saturating_sub(1));
        let Some(directory) = self.directory(number) else { return };
        let (within, len) = (sector.saturating_sub(directory.sector.into()), self.len(directory, number));
        let page = Page { all: self, subject, sectors, number, directory };
        match within.checked_sub(len.into()) {
            None => page.fill_records(within, out),
            Some(within) => page.fill_continuation(within, out),
        }
    }

    fn describe_entry(
        &self,
        subject: Subject<'_>,
        sectors: &Sectors<'_>,
        entry: u32,
        node: &Node,
        section: u32,
    ) -> Described {
        let id = self.arrangement.entries.get(to_index(entry)).copied().unwrap_or(subject.tree.root());
        if let Some(number) = self.arrangement.number_of(id).filter(|_| node.kind == Kind::Directory) {
            return self.described(subject.tree, number, sectors);
        }
        let (date, flags) = (date::short(node.modified), 0);
        if node.kind != Kind::File || node.len == 0 {
            return Described { sector: sectors.empty, len: 0, date, flags };
        }
        let from = SECTION.saturating_mul(section.into());
        let first = u64::from(sectors.files.sector(subject.links.first(id))).saturating_add(from / SECTOR);
        let rest = node.len.saturating_sub(from);
        let flags = if rest > SECTION { MULTI_EXTENT } else { flags };
        Described { sector: to_u32(first), len: to_u32(rest.min(SECTION)), date, flags }
    }
}

/// A directory of which a sector is filled.
struct Page<'a> {
    all: &'a Directories,
    subject: Subject<'a>,
    sectors: &'a Sectors<'a>,
    number: u32,
    directory: Directory,
}

impl Page<'_> {
    /// The continuation of the directory, from a place on.
    fn continuation(&self, at: u64) -> Continuation {
        let records = self.all.len(self.directory, self.number);
        let behind = u64::from(self.directory.sector).saturating_add(records.into());
        Continuation { sector: self.sectors.directories.saturating_add(behind), at }
    }

    /// Fills a sector of records.
    fn fill_records(&self, within: u64, out: &mut [u8]) {
        let Page { all, subject, sectors, number, directory } = *self;
        let Some(&start) = all.starts.get(to_index(within.saturating_add(directory.start.into()))) else {
            return;
        };
        let (mut line, mut records) = (Line::default(), Vec::with_capacity(out.len()));
        if within == 0 {
            for (of, identifier) in [(number, SELF), (directory.parent, PARENT)] {
                line.begin(identifier);
                all.describe_directory(subject, of, &mut line, identifier == SELF);
                // Only the root's own record is continued: at the very beginning.
                line.pack(&mut self.continuation(0), |_, _| ());
                let described = all.described(subject.tree, of, sectors);
                record::push(&mut records, &described, &line.identifier, &line.system_use);
            }
        }
        let mut first_section = start.section;
        'full: for entry in start.entry..all.arrangement.end(number) {
            let Some(node) = all.begin(subject, entry, &mut line) else { break };
            line.pack(&mut self.continuation(all.continued_at(entry)), |_, _| ());
            for section in first_section..sections(&node) {
                if records.len().saturating_add(line.len()) > out.len() {
                    break 'full;
                }
                let described = all.describe_entry(subject, sectors, entry, &node, section);
                record::push(&mut records, &described, &line.identifier, &line.system_use);
            }
            first_section = 0;
        }
        out.iter_mut().zip(records).for_each(|(to, from)| *to = from);
    }

    /// Fills a sector of what is continued.
    fn fill_continuation(&self, within: u64, out: &mut [u8]) {
        let (all, mut line, start) = (self.all, Line::default(), within.saturating_mul(SECTOR));
        let end = start.saturating_add(SECTOR);
        let mut put = |at: u64, bytes: &[u8]| {
            // No area crosses the end of a sector.
            if let Some(to) = at.checked_sub(start).and_then(|at| out.get_mut(to_index(at)..)) {
                to.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
            }
        };
        if self.number == 0 && start == 0 {
            line.begin(SELF);
            all.describe_directory(self.subject, 0, &mut line, true);
            line.pack(&mut self.continuation(0), &mut put);
        }
        let entries = [self.directory.first, all.arrangement.end(self.number)];
        let [first, last] = entries.map(|end| all.continued.partition_point(|&(entry, _)| entry < end));
        let continued = all.continued.get(first..last).unwrap_or_default();
        // The last that begins before this sector may reach into it.
        let from = continued.partition_point(|&(_, at)| at <= start).saturating_sub(1);
        let rest = continued.get(from..).unwrap_or_default();
        for &(entry, at) in rest.iter().take_while(|&&(_, at)| at < end) {
            if all.begin(self.subject, entry, &mut line).is_some() {
                line.pack(&mut self.continuation(at), &mut put);
            }
        }
    }
}

impl Line {
    fn begin(&mut self, identifier: &[u8]) {
        self.fields.clear();
        self.identifier.clear();
        self.identifier.extend_from_slice(identifier);
    }

    /// Puts its fields behind the record as far as there is room, and the others elsewhere.
    fn pack(&mut self, continuation: &mut Continuation, elsewhere: impl FnMut(u64, &[u8])) {
        self.system_use.clear();
        let room = record::room(self.identifier.len());
        continuation.pack(&self.fields, room, &mut self.system_use, elsewhere);
    }

    /// How long its records are.
    fn len(&self) -> usize {
        record::len(self.identifier.len(), self.system_use.len())
    }
}

/// How many records describe a node.
fn sections(node: &Node) -> u32 {
    if node.kind == Kind::File { to_u32(node.len.div_ceil(SECTION)).max(1) } else { 1 }
}

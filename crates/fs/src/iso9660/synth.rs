//! The disk put together: what is in which sector, and the bytes of those that are computed.

use super::Options;
use super::directories::{Directories, Sectors, Subject};
use super::layout::{MAX_SECTORS, SECTOR, SYSTEM_AREA_SECTORS};
use super::links::Links;
use super::names::Naming;
use super::number::{to_index, to_u64};
use super::path_table::{Order, PathTable};
use super::placement::Placement;
use super::volume::{self, Volume};
use chart::{Disk, Error, Geometry, Result, Source, Wait};
use io::generated::{Generated, Rule};
use io::tree::{Time, Tree};
use std::ops::Range;
use std::sync::Arc;

/// From so many nodes on, both ways of naming are arranged at the same time.
const WORTH_A_THREAD: usize = 2000;

/// What of the disk is computed, in the order of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Descriptor(Naming),
    Terminator,
    PathTable(Naming, Order),
    Directories(Naming),
    Empty,
}

/// One way of naming, as a whole.
struct Hierarchy {
    directories: Directories,
    path_table: PathTable,
}

impl Hierarchy {
    fn of(subject: Subject<'_>, naming: Naming) -> Result<Hierarchy> {
        let directories = Directories::of(subject, naming)?;
        let path_table = PathTable::of(subject.tree, &directories.arrangement);
        Ok(Hierarchy { directories, path_table })
    }
}

/// Everything that is computed, as a rule.
struct Metadata {
    tree: Arc<Tree>,
    links: Links,
    plain: Hierarchy,
    joliet: Option<Hierarchy>,
    files: Placement,
    /// Each part, and one behind its last sector.
    parts: Vec<(Part, u64)>,
    accessed: bool,
    name: Vec<u8>,
    date: Time,
}

/// The directory as a disk.
pub(super) fn disk(tree: Arc<Tree>, options: &Options) -> Result<Arc<Disk>> {
    let name = volume_name(&tree, options)?;
    let links = Links::of(&tree);
    let subject = Subject { tree: &tree, links: &links, accessed: options.accessed };
    let (plain, joliet) = hierarchies(subject, options.joliet)?;
    let parts = parts(&plain, joliet.as_ref());
    let end = parts.last().map_or(0, |&(_, end)| end);
    if end >= MAX_SECTORS {
        return Err(Error::unsupported("the directories alone are longer than ISO 9660 can count: 8 TiB"));
    }
    let files = Placement::of(&tree, &links, [SYSTEM_AREA_SECTORS, end])?;
    let (chart, contents) = (files.clone(), Arc::clone(&files.files));
    let date = options.date.unwrap_or_else(|| newest(&tree));
    let title = format!("{}: as ISO 9660", tree.root_path().display());
    let metadata =
        Metadata { links, plain, joliet, files, parts, accessed: options.accessed, name, date, tree };
    let source = Generated::new(format!("directories of {title}"), chart.metadata[1], metadata);
    let source: Arc<dyn Source> = Arc::new(source);
    let geometry = Geometry { preferred: contents.limits().preferred, ..Geometry::default() };
    Disk::builder(title, Arc::new(chart)).source(source).source(contents).geometry(geometry).build()
}

fn hierarchies(subject: Subject<'_>, joliet: bool) -> Result<(Hierarchy, Option<Hierarchy>)> {
    let plain = || Hierarchy::of(subject, Naming::Plain);
    let other = || joliet.then(|| Hierarchy::of(subject, Naming::Joliet)).transpose();
    if !joliet || subject.tree.len() < WORTH_A_THREAD {
        return Ok((plain()?, other()?));
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let plain = plain()?;
        let other = other.join().map_err(|_| Error::io("a thread that arranged names has panicked"))?;
        Ok((plain, other?))
    })
}

/// What the volume is to be called, where the user says so or the directory's name does.
fn volume_name(tree: &Tree, options: &Options) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    match &options.volume {
        Some(name) if name.is_empty() || name.len() > 32 => {
            Err(Error::invalid(format!("`{name}` is no name for a volume: that has 1 to 32 bytes")))
        }
        Some(name) => Ok(name.clone().into_bytes()),
        None => {
            Ok(tree.root_path().file_name().map_or(b"PORTOLAN".to_vec(), |name| name.as_bytes().to_vec()))
        }
    }
}

/// When anything in the tree was modified last.
fn newest(tree: &Tree) -> Time {
    tree.nodes().map(|id| tree.node(id).modified).max().unwrap_or_default()
}

/// What is where, from the descriptors to where the files begin.
fn parts(plain: &Hierarchy, joliet: Option<&Hierarchy>) -> Vec<(Part, u64)> {
    let all = [(Naming::Plain, Some(plain)), (Naming::Joliet, joliet)];
    let shown = || all.iter().filter_map(|&(naming, hierarchy)| Some((naming, hierarchy?)));
    let mut lens: Vec<(Part, u64)> = shown().map(|(naming, _)| (Part::Descriptor(naming), 1)).collect();
    lens.push((Part::Terminator, 1));
    for (naming, hierarchy) in shown() {
        for order in [Order::Little, Order::Big] {
            lens.push((Part::PathTable(naming, order), hierarchy.path_table.sectors()));
        }
    }
    lens.push((Part::Directories(Naming::Plain), plain.directories.sectors));
    lens.extend(joliet.map(|joliet| (Part::Directories(Naming::Joliet), joliet.directories.sectors)));
    lens.push((Part::Empty, 1));
    let mut end = SYSTEM_AREA_SECTORS;
    for (_, len) in &mut lens {
        end = end.saturating_add(*len);
        *len = end;
    }
    // Files begin with a whole block.
    if let Some((_, last)) = lens.last_mut() {
        *last = last.next_multiple_of(2);
    }
    lens
}

impl Metadata {
    /// The sectors of a part.
    fn sectors_of(&self, part: Part) -> Range<u64> {
        let i = self.parts.iter().position(|&(known, _)| known == part).unwrap_or(self.parts.len());
        let end = |i: usize| self.parts.get(i).map(|&(_, end)| end);
        let start = i.checked_sub(1).and_then(end).unwrap_or(SYSTEM_AREA_SECTORS);
        start..end(i).unwrap_or(start)
    }

    fn hierarchy(&self, naming: Naming) -> Option<&Hierarchy> {
        match naming {
            Naming::Plain => Some(&self.plain),
            Naming::Joliet => self.joliet.as_ref(),
        }
    }

    fn subject(&self) -> Subject<'_> {
        Subject { tree: &self.tree, links: &self.links, accessed: self.accessed }
    }

    fn sectors(&self, naming: Naming) -> Sectors<'_> {
        Sectors {
            files: &self.files,
            empty: super::number::to_u32(self.sectors_of(Part::Empty).start),
            directories: self.sectors_of(Part::Directories(naming)).start,
        }
    }

    fn volume(&self, naming: Naming, hierarchy: &Hierarchy) -> Volume<'_> {
        let table = |order| self.sectors_of(Part::PathTable(naming, order)).start;
        Volume {
            name: &self.name,
            date: self.date,
            sectors: self.files.sectors(),
            path_table_len: hierarchy.path_table.len,
            path_tables: [table(Order::Little), table(Order::Big)],
            root: hierarchy.directories.described(&self.tree, 0, &self.sectors(naming)),
        }
    }

    /// Fills a sector, which is zeros.
    fn fill_sector(&self, sector: u64, out: &mut [u8]) {
        let i = self.parts.partition_point(|&(_, end)| end <= sector);
        let Some(&(part, _)) = self.parts.get(i).filter(|_| sector >= SYSTEM_AREA_SECTORS) else { return };
        let within = sector.saturating_sub(self.sectors_of(part).start);
        match part {
            Part::Descriptor(naming) => {
                let volume = self.hierarchy(naming).map(|hierarchy| self.volume(naming, hierarchy));
                volume.iter().for_each(|volume| volume::fill(&volume.descriptor(naming), out));
            }
            Part::Terminator => volume::fill(&volume::terminator(), out),
            Part::PathTable(naming, order) => {
                let Some(Hierarchy { directories, path_table }) = self.hierarchy(naming) else { return };
                let first = self.sectors_of(Part::Directories(naming)).start;
                path_table.fill((&self.tree, &directories.arrangement), order, first, within, out);
            }
            Part::Directories(naming) => {
                let Some(Hierarchy { directories, .. }) = self.hierarchy(naming) else { return };
                directories.fill(self.subject(), &self.sectors(naming), within, out);
            }
            Part::Empty => {}
        }
    }
}

impl Rule for Metadata {
    fn fill(&self, offset: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        let (mut sector, mut skip) = (offset / SECTOR, to_index(offset % SECTOR));
        let mut rest = buf;
        while !rest.is_empty() {
            let len = to_index(SECTOR).saturating_sub(skip).min(rest.len());
            let Some((now, behind)) = rest.split_at_mut_checked(len) else { break };
            if to_u64(now.len()) == SECTOR {
                now.fill(0);
                self.fill_sector(sector, now);
            } else {
                let mut whole = [0; 2048];
                self.fill_sector(sector, &mut whole);
                now.copy_from_slice(whole.get(skip..skip.saturating_add(len)).unwrap_or_default());
            }
            (sector, skip, rest) = (sector.saturating_add(1), 0, behind);
        }
        Ok(())
    }
}

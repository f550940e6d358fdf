//! `portolan ls`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, moment, output_error, plain};
use chart::Error;
use portolan::files::listing::{self, Partition, Partitions, Row};
use portolan::files::{Inside, inside};
use portolan::size::show;
use portolan::{Node, Spec, Watch};
use std::io::Write;
use std::path::Path;

/// List what is inside a disk: its partitions, or the files of its file system
///
/// Nothing is mounted, and nothing needs root. A disk with partitions shows them; one with a file system shows the root
/// directory, as does the SPEC of a partition. With a path behind it, that directory or file is listed. Times are of content,
/// in UTC. What is damaged is told, and hides nothing else.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan ls disk.qcow2\n  \
    portolan ls disk.qcow2#1\n  \
    portolan ls -R disk.qcow2#1:/etc\n  \
    portolan ls --json disk.qcow2@before-update#1:/var/log | jq '.[].path'")]
pub(crate) struct Args {
    /// The disk, or a directory or file inside it: disk.img, disk.img#2, disk.img#2:/etc (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Directories below too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

/// So many of those that cannot be looked at are named; of more there is a number.
const NAMED: usize = 20;

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let mut wrong = Wrong::default();
        match inside(&self.input.apply(&self.spec), &self.access.reading())? {
            Inside::Partitions(table) if self.json => out.json(&table)?,
            Inside::Partitions(table) => partitions(out, &table)?,
            Inside::Node(node) if self.json => json(out, &node, self.recursive, &mut wrong)?,
            Inside::Node(node) => files(out, &node, self.recursive, &mut wrong)?,
        }
        out.flush()?;
        wrong.told().map(|()| Exit::DONE)
    }
}

/// What could not be looked at.
#[derive(Default)]
struct Wrong {
    named: Vec<Error>,
    more: u64,
}

impl Wrong {
    fn note(&mut self, node: &Node, path: &Path, e: Error) {
        if self.named.len() >= NAMED {
            self.more += 1;
            return;
        }
        let base = node.spec.to_string();
        let between = if base.ends_with('/') { "" } else { "/" };
        self.named.push(e.in_path(format!("{base}{between}{}", path.display())));
    }

    /// Tells all of it; the last one as the error that the command ends with.
    fn told(mut self) -> anyhow::Result<()> {
        let Some(last) = self.named.pop() else { return Ok(()) };
        for e in &self.named {
            eprintln!("portolan: {}", plain(&e.to_string()));
        }
        if self.more > 0 {
            eprintln!("portolan: and {} more cannot be looked at", self.more);
        }
        Err(last.into())
    }
}

fn partitions(out: &mut Out, table: &Partitions) -> anyhow::Result<()> {
    writeln!(out, "{}, {}, sectors of {} bytes", table.scheme, table.id, table.sector_size)?;
    let kind = |p: &Partition| p.type_name.map_or_else(|| p.type_id.clone(), str::to_owned);
    let held = |p: &Partition| p.file_system.unwrap_or(if p.unreadable.is_some() { "?" } else { "" });
    let widest = |title: &str, of: &dyn Fn(&Partition) -> usize| {
        table.partitions.iter().map(of).max().unwrap_or(0).max(title.len())
    };
    let width = widest("TYPE", &|p| kind(p).chars().count());
    let files = widest("FILES", &|p| held(p).len());
    writeln!(
        out,
        "{:>5}  {:>15}  {:>10}  BOOT  {:<width$}  {:<files$}  LABEL / NAME",
        "#", "START", "SIZE", "TYPE", "FILES"
    )?;
    for p in &table.partitions {
        let names: Vec<_> = [&p.label, &p.name].into_iter().flatten().map(|name| plain(name)).collect();
        let line = format!(
            "{:>5}  {:>15}  {:>10}  {:<4}  {:<width$}  {:<files$}  {}",
            format!("#{}", p.number),
            p.start,
            show(p.size),
            if p.bootable { "*" } else { "" },
            kind(p),
            held(p),
            names.join(" / ")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let unreadable = |p: &Partition| p.unreadable.as_ref().map(|why| format!("#{}: {why}", p.number));
    let notes: Vec<_> =
        table.notes.iter().cloned().chain(table.partitions.iter().filter_map(unreadable)).collect();
    if !notes.is_empty() {
        writeln!(out)?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "{}", plain(note)))?;
    Ok(())
}

/// A list that is written row by row.
fn json(out: &mut Out, node: &Node, recursive: bool, wrong: &mut Wrong) -> anyhow::Result<()> {
    let mut first = true;
    write!(out, "[")?;
    let each = |_: &Path, rows: &[Row]| {
        for row in rows {
            let text =
                serde_json::to_string(row).map_err(|e| chart::Error::invalid("no JSON").caused_by(e))?;
            write!(out, "{}{text}", if first { "\n  " } else { ",\n  " })?;
            first = false;
        }
        Ok(())
    };
    let done = listing::files(node, recursive, Watch::default(), each, |path, e| {
        wrong.note(node, path, e);
        Ok(())
    });
    done.map_err(output_error)?;
    Ok(writeln!(out, "\n]")?)
}

fn files(out: &mut Out, node: &Node, recursive: bool, wrong: &mut Wrong) -> anyhow::Result<()> {
    let mut first = true;
    let each = |folder: &Path, rows: &[Row]| {
        if recursive && folder.as_os_str().is_empty() {
            writeln!(out, ".:")?;
        } else if recursive {
            writeln!(out, "{}./{}:", if first { "" } else { "\n" }, plain(&folder.to_string_lossy()))?;
        }
        first = false;
        Ok(table(out, rows)?)
    };
    let done = listing::files(node, recursive, Watch::default(), each, |path, e| {
        wrong.note(node, path, e);
        Ok(())
    });
    done.map_err(output_error)
}

fn table(out: &mut Out, rows: &[Row]) -> std::io::Result<()> {
    let size = |row: &Row| match row.device {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => row.size.to_string(),
    };
    let width = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let links = width(&|row| row.links.to_string().len());
    let (uid, gid) = (width(&|row| row.uid.to_string().len()), width(&|row| row.gid.to_string().len()));
    let sizes = width(&|row| size(row).len());
    for row in rows {
        let when = moment(row.modified_sec);
        let name = Path::new(&row.path).file_name().unwrap_or_default().to_string_lossy();
        write!(
            out,
            "{}  {:>links$}  {:>uid$} {:>gid$}  {:>sizes$}  {when}  {}",
            letters(row),
            row.links,
            row.uid,
            row.gid,
            size(row),
            plain(&name)
        )?;
        match &row.target {
            Some(target) => writeln!(out, " -> {}", plain(target))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// Kind and mode in ten letters, as `ls -l` writes them.
fn letters(row: &Row) -> String {
    let kind = match row.kind {
        "file" => '-',
        "directory" => 'd',
        "symlink" => 'l',
        "character-device" => 'c',
        "block-device" => 'b',
        "fifo" => 'p',
        _ => 's',
    };
    let mut letters = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = row.mode >> shift;
        letters.push(if bits & 4 == 0 { '-' } else { 'r' });
        letters.push(if bits & 2 == 0 { '-' } else { 'w' });
        letters.push(match (row.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    letters
}

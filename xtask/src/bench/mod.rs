//! `cargo xtask bench`: Portolan beside the tools it replaces, on the same data, in one run.
//!
//! A [`Case`](case::Case) is one row of docs/benchmarks.md. [`cases`] lists them; [`cli`] and [`qemu`] spell the
//! command lines of the two sides; [`data`] makes what they work on, on a [`scratch`] file system; [`pairs`] runs
//! them alternately, [`measure`] one run of one side; [`report`] tells the result. Where the sides are servers
//! ([`serving`], [`servers`]), the commands are the load on them, and what counts is the [`server`]'s.
//!
//! A machine is never quiet, so nothing here compares two runs of the bench: only the two halves of one pair.

mod case;
mod cases;
mod cli;
mod data;
mod kernel;
mod machine;
mod measure;
mod notes;
mod pairs;
mod qemu;
mod report;
mod scattered;
mod scratch;
mod server;
mod servers;
mod serving;
#[cfg(test)]
mod tests;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::house::{self, Workspace};
use crate::process;
use case::{Cache, Case, Place};
use data::Sizes;
use report::Row;
use scratch::Scratch;

/// What the person asked for.
struct Options {
    filter: String,
    quick: bool,
    pairs: Option<usize>,
    binary: Option<PathBuf>,
    list: bool,
    clean: bool,
}

/// Measures every row that was asked for, and writes the page.
pub(crate) fn task(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let target = Workspace::read(house::root())?.target_dir;
    let home = target.join(if options.quick { "bench-data-quick" } else { "bench-data" });
    if options.clean {
        return scratch::clean(&[target.join("bench-data"), target.join("bench-data-quick")]);
    }
    let sizes = if options.quick { data::QUICK } else { data::FULL };
    let binary = options.binary.clone().unwrap_or_else(|| target.join("dist/portolan"));
    let dirs = scratch::Dirs::below(&home);
    let all = cases::all(&binary, &dirs, &sizes);
    if options.list {
        all.iter().for_each(|case| println!("{:<44} {}", case.name, case.work));
        return Ok(());
    }
    if options.binary.is_none() {
        let words = ["cargo", "build", "--profile", "dist", "-p", "portolan-cli"];
        process::run(&mut process::command(&words)).context("building what is measured")?;
    }
    let chosen: Vec<&Case> = all.iter().filter(|case| case.name.contains(&options.filter)).collect();
    if chosen.is_empty() {
        bail!("no row's name contains `{}`; --list names them", options.filter);
    }
    let effort = pairs::Effort::new(options.quick, options.pairs);
    let rows = measure_all(&chosen, &dirs, &sizes, effort)?;
    publish(&all, &rows, &home, &binary, options.quick)?;
    let held = scratch::held(&home);
    println!("{} is kept for the next run ({held}); `cargo xtask bench --clean` removes it", home.display());
    match rows.iter().filter(|row| row.broken()).count() {
        0 => Ok(()),
        n => bail!("{n} of {} rows could not be measured", rows.len()),
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options =
        Options { filter: String::new(), quick: false, pairs: None, binary: None, list: false, clean: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--clean" => options.clean = true,
            "--pairs" => {
                let pairs: usize = args.next().context("--pairs needs a number")?.parse()?;
                options.pairs = Some(pairs.clamp(1, 1000));
            }
            "--binary" => {
                let path = args.next().context("--binary needs a path")?;
                options.binary = Some(fs::canonicalize(path).with_context(|| path.clone())?);
            }
            other if other.starts_with('-') => bail!("bench takes no `{other}`"),
            filter => options.filter = filter.to_owned(),
        }
    }
    Ok(options)
}

/// Measures the rows, one scratch file system at a time, so that each is mounted no longer than it is needed.
fn measure_all(
    cases: &[&Case],
    dirs: &scratch::Dirs,
    sizes: &Sizes,
    effort: pairs::Effort,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for place in [Place::Plain, Place::Reflink] {
        let here: Vec<&&Case> = cases.iter().filter(|case| case.place == place).collect();
        if here.is_empty() {
            continue;
        }
        let scratch = match Scratch::prepare(place, dirs, sizes) {
            Ok(scratch) => scratch,
            Err(error) => {
                let reason = format!("{error:#}");
                println!("rows on {place} are left out: {reason}");
                rows.extend(here.iter().map(|case| Row::not_run(case, &reason)));
                continue;
            }
        };
        for case in here {
            println!("\n== {}: {}", case.name, case.work);
            let lacks = case.needs.iter().find_map(|need| need.lacks());
            let row = if case.cache == Cache::Cold && !process::is_root() {
                Row::not_run(case, "only root can empty the page cache")
            } else if let Some(reason) = lacks {
                Row::not_run(case, &reason)
            } else {
                pairs::measure(case, &scratch, sizes, effort)
                    .unwrap_or_else(|error| Row::failed(case, &format!("{error:#}")))
            };
            println!("{}", row.spoken());
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Prints the summary and writes the page. A quick run measures nothing, so its page stays under target/.
fn publish(all: &[Case], rows: &[Row], home: &Path, binary: &Path, quick: bool) -> Result<()> {
    let store = home.join("rows");
    fs::create_dir_all(&store)?;
    for row in rows {
        row.store(&store)?;
    }
    let page = report::page(all, &store, &machine::describe(), &machine::versions(binary))?;
    let path = if quick { home.join("benchmarks.md") } else { house::root().join("docs/benchmarks.md") };
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("\n{}", report::summary(rows));
    println!("written: {}", path.display());
    Ok(())
}

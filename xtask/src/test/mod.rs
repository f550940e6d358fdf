//! `cargo xtask test`: everything a change must pass, in order, with a table of what happened.

mod fuzz;
mod report;
mod steps;
#[cfg(test)]
mod tests;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::house;
use report::{Report, Row};

/// What the person asked for.
pub(crate) struct Options {
    quick: bool,
    keep_going: bool,
    install: bool,
    fuzz_seconds: u32,
    soak_seconds: u32,
    ci: bool,
    /// Only these steps; all when empty.
    only: Vec<String>,
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a word on what was done.
    Passed(String),
    /// With the reason. In CI this is a failure, unless the step is optional.
    Skipped {
        reason: String,
        optional: bool,
    },
    Failed(String),
}

impl Outcome {
    fn skipped(reason: impl Into<String>) -> Outcome {
        Outcome::Skipped { reason: reason.into(), optional: false }
    }
}

/// One step: its name, whether `--quick` has it too, and what it does.
struct Step {
    name: &'static str,
    quick: bool,
    run: fn(&Options) -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "peers", quick: false, run: steps::peers },
    Step { name: "fmt", quick: true, run: steps::fmt },
    Step { name: "clippy", quick: true, run: steps::clippy },
    Step { name: "layers", quick: true, run: steps::layers },
    Step { name: "deny", quick: false, run: steps::deny },
    Step { name: "tests", quick: true, run: steps::tests },
    Step { name: "soak", quick: false, run: steps::soak },
    Step { name: "doctests", quick: false, run: steps::doc_tests },
    Step { name: "docs", quick: false, run: steps::docs },
    Step { name: "fuzz", quick: false, run: fuzz::step },
];

/// Runs the steps, stopping at the first that fails unless told otherwise.
pub(crate) fn task(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let report = run(STEPS, &options);
    print!("\n{report}");
    if report.failed() { bail!("not everything passed") } else { Ok(()) }
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        quick: false,
        keep_going: false,
        install: true,
        fuzz_seconds: 60,
        soak_seconds: 120,
        ci: house::ci(),
        only: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--keep-going" => options.keep_going = true,
            "--no-install" => options.install = false,
            "--fuzz-seconds" => options.fuzz_seconds = seconds(arg, args.next())?,
            "--soak-seconds" => options.soak_seconds = seconds(arg, args.next())?,
            step if STEPS.iter().any(|known| known.name == step) => options.only.push(step.to_owned()),
            other => bail!("test takes no `{other}`"),
        }
    }
    Ok(options)
}

/// The number behind an option.
fn seconds(option: &str, number: Option<&String>) -> Result<u32> {
    let needs = || format!("{option} needs a number");
    number.with_context(needs)?.parse().with_context(needs)
}

/// Whether the person asked for this step.
fn asked(step: &Step, options: &Options) -> bool {
    let named = options.only.iter().any(|name| name == step.name);
    if options.only.is_empty() { step.quick || !options.quick } else { named }
}

fn run(steps: &[Step], options: &Options) -> Report {
    let mut report = Report::default();
    for step in steps.iter().filter(|step| asked(step, options)) {
        if report.failed() && !options.keep_going {
            report.not_reached.push(step.name);
            continue;
        }
        println!("\n== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(options).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let outcome = strict(outcome, options.ci);
        match &outcome {
            Outcome::Failed(why) => eprintln!("{} failed: {why}", step.name),
            Outcome::Skipped { reason, .. } => println!("{} skipped: {reason}", step.name),
            Outcome::Passed(_) => {}
        }
        report.rows.push(Row { step: step.name, outcome, time: start.elapsed() });
    }
    report
}

/// In CI nothing is skipped: a skip is a failure with the same reason.
fn strict(outcome: Outcome, ci: bool) -> Outcome {
    match outcome {
        Outcome::Skipped { reason, optional: false } if ci => {
            Outcome::Failed(format!("nothing is skipped in CI: {reason}"))
        }
        other => other,
    }
}

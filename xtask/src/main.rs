//! The tasks of this repository, started as `cargo xtask TASK`.
//!
//! Each task is one module: `check-layers` in [`layers`], `test` in [`test`], `bench` in [`bench`].
//! It compiles in a few seconds because it is the first thing a newcomer runs.

mod bench;
mod first_byte;
mod guest;
mod house;
mod layers;
mod peers;
mod process;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
The tasks of this repository.

  cargo xtask test [STEP...] [--quick] [--keep-going] [--no-install] [--fuzz-seconds N]
      Everything a change must pass: real peers installed, fmt, clippy, layers, cargo-deny,
      tests, doc tests, docs and a smoke of every fuzz target.
      STEP            only these: peers fmt clippy layers deny tests doctests docs fuzz
      --quick         only fmt, clippy, layers and tests
      --keep-going    do not stop at the first step that fails
      --no-install    install nothing; say what is missing
      --fuzz-seconds  how long each fuzz target runs (default 60)
      With CI=true in the environment a skipped step is a failed step.

  cargo xtask check-layers
      Proves that dependencies point down only, and the rules on sources that no lint knows.

  cargo xtask bench [FILTER] [--quick] [--pairs N] [--binary PATH] [--list] [--clean]
      Portolan and its peers, alternately, on the same data; writes docs/benchmarks.md.
      FILTER          only the rows whose name contains it
      --quick         small data and two pairs: tries the harness, measures nothing
      --pairs         how many pairs are measured in each row (default 5)
      --binary        measure this `portolan` instead of building one
      --list          name the rows
      --clean         remove the data the bench keeps between runs

  cargo xtask first-byte AT COMMAND...
      Starts an NBD server that speaks on its standard input and output, and reads 2 KiB at AT of
      what it serves: what the bench times. Prints them as text where they are text.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = args.split_first() else {
        print!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match task.as_str() {
        "test" => test::task(rest),
        "check-layers" => layers::task(rest),
        "bench" => bench::task(rest),
        "first-byte" => first_byte::task(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("there is no task `{other}`; `cargo xtask help` lists them")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

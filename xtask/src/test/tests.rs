use std::time::Duration;

use super::report::{Report, Row};
use super::steps::{Summary, plain};
use super::{Options, Outcome, Step, parse, run, strict};

fn options(args: &[&str]) -> Options {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    Options { ci: false, ..parse(&args).unwrap() }
}

fn passes(_: &Options) -> anyhow::Result<Outcome> {
    Ok(Outcome::Passed("fine".into()))
}

fn fails(_: &Options) -> anyhow::Result<Outcome> {
    anyhow::bail!("planted")
}

fn skips(_: &Options) -> anyhow::Result<Outcome> {
    Ok(Outcome::skipped("no such tool"))
}

fn optional(_: &Options) -> anyhow::Result<Outcome> {
    Ok(Outcome::Skipped { reason: "optional".into(), optional: true })
}

const PLANTED: &[Step] = &[
    Step { name: "first", quick: true, run: passes },
    Step { name: "second", quick: false, run: skips },
    Step { name: "third", quick: false, run: fails },
    Step { name: "last", quick: true, run: passes },
];

#[test]
fn arguments_are_understood() {
    let asked =
        options(&["--quick", "--keep-going", "--no-install", "--fuzz-seconds", "7", "--soak-seconds", "9"]);
    assert!(asked.quick && asked.keep_going && !asked.install);
    assert_eq!((asked.fuzz_seconds, asked.soak_seconds), (7, 9));
    assert_eq!(options(&["fuzz", "docs"]).only, ["fuzz", "docs"]);
    for wrong in [&["--slow"][..], &["--fuzz-seconds"], &["--soak-seconds", "x"]] {
        let args: Vec<String> = wrong.iter().map(|&arg| arg.to_owned()).collect();
        assert!(parse(&args).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_first_failure_stops_unless_told_otherwise() {
    let report = run(PLANTED, &options(&[]));
    assert!(report.failed());
    assert_eq!(report.rows.len(), 3);
    assert_eq!(report.not_reached, ["last"]);

    let report = run(PLANTED, &options(&["--keep-going"]));
    assert!(report.failed());
    assert_eq!(report.rows.len(), 4);
}

#[test]
fn quick_leaves_out_what_is_slow() {
    let report = run(PLANTED, &options(&["--quick"]));
    assert!(!report.failed());
    let names: Vec<_> = report.rows.iter().map(|row| row.step).collect();
    assert_eq!(names, ["first", "last"]);
}

#[test]
fn named_steps_run_alone() {
    let only = Options { only: vec!["second".to_owned()], ..options(&["--quick"]) };
    let report = run(PLANTED, &only);
    assert_eq!(report.rows.len(), 1);
    assert_eq!(report.rows[0].step, "second");
}

#[test]
fn a_skip_is_a_failure_in_ci_unless_it_is_optional() {
    let skip = [Step { name: "skip", quick: true, run: skips }];
    let ci = Options { ci: true, ..options(&[]) };
    assert!(!run(&skip, &options(&[])).failed());
    assert!(run(&skip, &ci).failed());
    let optional = [Step { name: "optional", quick: true, run: optional }];
    assert!(!run(&optional, &ci).failed());
    assert_eq!(strict(Outcome::Passed(String::new()), true), Outcome::Passed(String::new()));
}

#[test]
fn the_table_names_every_step_and_reason() {
    let row = |step, outcome| Row { step, outcome, time: Duration::from_millis(1500) };
    let report = Report {
        rows: vec![
            row("fmt", Outcome::Passed(String::new())),
            row("fuzz", Outcome::skipped("no nightly")),
            row("docs", Outcome::Failed("broken link\nand more".into())),
        ],
        not_reached: vec!["tests"],
    };
    let expected = "\
step       result    seconds
fmt        ok            1.5
fuzz       skipped       1.5  no nightly
docs       FAILED        1.5  broken link
tests      not run \n\
all        FAILED        4.5
";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn both_runners_are_summed_up() {
    let mut cargo = Summary::default();
    cargo.note(
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    );
    cargo.note("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
    assert_eq!(cargo.to_string(), "15 passed, 2 failed, 1 ignored");

    let mut nextest = Summary::default();
    nextest.note(&plain("\u{1b}[32;1m     Summary\u{1b}[0m [   0.123s] 45 tests run: 45 passed, 0 skipped"));
    assert_eq!(nextest.to_string(), "Summary [   0.123s] 45 tests run: 45 passed, 0 skipped");
}

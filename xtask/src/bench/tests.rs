use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::case::{Bar, Cache, Case, Check, Figure, MIB, Need, Place, Score, Server, Side, number, words};
use super::data::{self, Fill, Sizes};
use super::measure::{Sample, median};
use super::pairs::{self, Effort, Pair};
use super::report::{self, Row};
use super::scratch::{Dirs, Scratch};
use super::{cases, kernel, parse};

const SMALL: Sizes =
    Sizes { half: 4 * MIB, full: 4 * MIB, mixed: 4 * MIB, read_seconds: 1, served: 4 * MIB, load_seconds: 1 };

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        // In memory where that is possible: syncing a disk that others write to takes its time.
        let shm = PathBuf::from("/dev/shm");
        let home = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let path = home.join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// cp beside dd: two programs that do the same.
fn copy_case(folder: &Folder) -> Case {
    let file = |name: &str| folder.0.join(name).display().to_string();
    let (source, ours, peer) = (file("source"), file("ours"), file("peer"));
    let dd = |bs: &str| Side {
        label: format!("dd {bs}"),
        commands: vec![words(&["dd", &format!("if={source}"), &format!("of={peer}"), bs])],
        output: Some(folder.0.join("peer")),
        ..Side::default()
    };
    let mut broken = dd("bs=1M");
    broken.commands[0].push("of".to_owned());
    Case {
        name: "cp".to_owned(),
        work: "copy".to_owned(),
        place: Place::Plain,
        cache: Cache::AsIs,
        inputs: Vec::new(),
        needs: Vec::new(),
        ours: Side {
            label: "cp".to_owned(),
            commands: vec![words(&["cp", "--reflink=never", &source, &ours])],
            output: Some(folder.0.join("ours")),
            ..Side::default()
        },
        peers: vec![broken, dd("bs=16"), dd("bs=1M")],
        repeat: 1,
        score: Score::Wall,
        requests: None,
        check: Check::Nothing,
        bars: vec![Bar::Ratio(0.0), Bar::RssMib(64.0), Bar::Size(1.0)],
        payload: 4 * MIB,
    }
}

#[test]
fn a_row_is_measured_from_warm_up_to_verdict() {
    let folder = Folder::new("pairs");
    data::raw(&folder.0.join("source"), 4 * MIB, Fill::Full).unwrap();
    let case = copy_case(&folder);
    let scratch = Scratch::plain(folder.0.clone());
    let effort = Effort::new(false, None);
    assert!(effort.pairs >= 5);
    let row = pairs::measure(&case, &scratch, &SMALL, effort).unwrap();
    assert_eq!(row.cell("verdict"), "PASS");
    assert_eq!(
        row.cell("peer_flags"),
        "dd bs=1M",
        "16 bytes at a time are slower, and one way does not work"
    );
    assert_eq!(row.cell("size"), "4 MiB / 4 MiB");
    assert!(!row.cell("rss").starts_with('0'), "{}", row.cell("rss"));
    assert!(!folder.0.join("ours").exists() && !folder.0.join("peer").exists());
}

#[test]
fn what_goes_wrong_is_told() {
    let folder = Folder::new("wrong");
    let case = copy_case(&folder);
    let scratch = Scratch::plain(folder.0.clone());
    let error = pairs::measure(&case, &scratch, &SMALL, Effort::new(true, None)).err().unwrap();
    let said = format!("{error:#}");
    assert!(said.contains("ours") && said.contains("No such file"), "{said}");
}

fn pair(ours: f64, peer: f64) -> Pair {
    let sample = |score| Sample {
        score,
        max_rss_bytes: 32 * MIB,
        written_bytes: MIB,
        output_bytes: 100,
        cpu: Duration::from_secs_f64(score),
        requests: 1e6,
        ..Sample::default()
    };
    Pair { ours: sample(ours), peer: sample(peer) }
}

#[test]
fn bars_are_held_or_missed_with_what_was_reached() {
    let folder = Folder::new("bars");
    let verdict = |bars: &[Bar], pairs: &[Pair]| {
        let case = Case { bars: bars.to_vec(), payload: 100 * MIB, ..copy_case(&folder) };
        Row::measured(&case, "", pairs).cell("verdict").to_owned()
    };
    let pairs = [pair(1.0, 1.1), pair(1.0, 1.3), pair(1.0, 9.0)];
    assert_eq!(
        verdict(&[Bar::Ratio(1.3), Bar::RssMib(32.0), Bar::WrittenShare(0.01), Bar::Size(1.0)], &pairs),
        "PASS"
    );
    assert_eq!(verdict(&[Bar::Ratio(1.31)], &pairs), "MISS: 1.30×");
    assert_eq!(
        verdict(&[Bar::RssMib(31.0), Bar::WrittenShare(0.009)], &pairs),
        "MISS: RSS 32 MiB, writes 1.0%"
    );
    assert_eq!(verdict(&[Bar::Size(0.9)], &pairs), "MISS: size 1.000×");
    assert_eq!(verdict(&[Bar::CpuEach(0.77), Bar::Share(0.77)], &pairs), "PASS");
    assert_eq!(verdict(&[Bar::CpuEach(0.76)], &pairs), "MISS: CPU a request 0.769×");
    assert_eq!(verdict(&[], &pairs), "no bar");
}

#[test]
fn a_ratio_above_one_is_always_better() {
    assert_eq!(pair(1.0, 2.0).ratio(Score::Wall), 2.0);
    let iops = Figure { at: "/iops", unit: "iops" };
    assert_eq!(pair(200.0, 100.0).ratio(Score::Most(iops)), 2.0);
    assert_eq!(pair(100.0, 200.0).ratio(Score::Least(iops)), 2.0);
    assert!(Score::Most(iops).is_better(2.0, 1.0) && Score::Rss.is_better(1.0, 2.0));
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5, "no favour in an even number");
    assert_eq!(number("{\"iops\": 7}", "/iops").unwrap(), 7.0);
    assert_eq!(number("fio: words\n{\"jobs\": [{\"iops\": 7.5}]}\n", "/jobs/0/iops").unwrap(), 7.5);
    assert!(
        number("{}", "/iops").is_err() && number("nothing", "/iops").is_err() && number("", "/iops").is_err()
    );
}

#[test]
fn data_is_the_same_every_time() {
    let folder = Folder::new("data");
    let made = |name: &str, fill| {
        let path = folder.0.join(name);
        data::raw(&path, 16 * MIB, fill).unwrap();
        fs::read(path).unwrap()
    };
    let share_of_zero_pages = |bytes: &[u8]| {
        let pages: Vec<_> = bytes.chunks(4096).collect();
        let zero = pages.iter().filter(|page| page.iter().all(|&byte| byte == 0)).count();
        zero as f64 / pages.len() as f64
    };
    let half = made("half", Fill::Half);
    assert!(half == made("again", Fill::Half));
    assert!((0.3..0.7).contains(&share_of_zero_pages(&half)), "{}", share_of_zero_pages(&half));
    assert_eq!(share_of_zero_pages(&made("full", Fill::Full)), 0.0);
    let mixed = made("mixed", Fill::Mixed);
    assert!((0.05..0.5).contains(&share_of_zero_pages(&mixed)), "{}", share_of_zero_pages(&mixed));
    assert_eq!(mixed.len(), 16 << 20);
}

#[test]
#[expect(clippy::zombie_processes, reason = "kernel::wait does wait")]
fn a_child_is_accounted_for() {
    let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
    let usage = kernel::wait(&child).unwrap();
    assert_eq!((usage.success, usage.code), (false, 7));

    // 64 MiB in memory, read once: dd keeps its block in memory.
    let mut dd = Command::new("dd");
    let child =
        dd.args(["if=/dev/zero", "of=/dev/null", "bs=64M", "count=4"]).stderr(Stdio::null()).spawn().unwrap();
    let usage = kernel::wait(&child).unwrap();
    assert!(usage.success && usage.cpu > Duration::ZERO);
    assert!(usage.max_rss_bytes > 64 * MIB, "{}", usage.max_rss_bytes);
}

#[test]
fn every_row_has_its_own_name_and_a_peer() {
    let folder = Folder::new("names");
    let dirs = Dirs::below(&folder.0);
    let all = cases::all(&PathBuf::from("portolan"), &dirs, &data::FULL);
    let mut names: Vec<_> = all.iter().map(|case| case.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for case in &all {
        assert!(!case.peers.is_empty() && !case.ours.commands.is_empty(), "{}", case.name);
        assert!(case.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{}", case.name);
        let inputs = case.inputs.iter().all(|data| data.place() == case.place);
        assert!(inputs, "{}: an input on another file system", case.name);
    }
    for (row, _) in super::notes::NOTES {
        assert!(names.iter().any(|name| name == row), "a note on {row}, which is no row");
    }
}

#[test]
fn the_page_keeps_rows_of_earlier_runs() {
    let folder = Folder::new("page");
    let case = copy_case(&folder);
    let page =
        || report::page(std::slice::from_ref(&case), &folder.0, "a machine", &["a tool".to_owned()]).unwrap();
    assert!(page().contains("| cp |  |  |  |  |  | not measured yet |"));
    let row = Row::measured(&case, "dd | tee", &[pair(0.5, 1.5)]);
    row.store(&folder.0).unwrap();
    Row::not_run(&case, "not root").store(&folder.0).unwrap();
    let page = page();
    assert!(page.contains("| cp | 500.0 ms | 1.50 s | 3.00× | 3.00–3.00 |"), "{page}");
    assert!(page.contains("`dd \\| tee`") && page.contains("Machine: a machine."), "{page}");
}

#[test]
fn arguments_are_understood() {
    let parsed = |args: &[&str]| parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
    let options = parsed(&["reflink", "--quick", "--pairs", "9"]).unwrap();
    assert!(options.quick && options.filter == "reflink" && options.pairs == Some(9));
    assert!(parsed(&["--fast"]).is_err() && parsed(&["--pairs"]).is_err());
}

/// nbdkit beside itself, under a load that does nothing but say that it was one.
fn served_case(folder: &Folder, size: &str) -> Case {
    let socket = folder.0.join("s");
    let server = |plugin: &str| {
        let command = words(&["nbdkit", "-f", "-U", &socket.display().to_string(), plugin, size]);
        Some(Server { command, socket: socket.clone() })
    };
    let side = |label: &str, plugin: &str, iops: u32| Side {
        label: label.to_owned(),
        before: vec![words(&["touch", &folder.0.join("made").display().to_string()])],
        server: server(plugin),
        commands: vec![words(&["echo", &format!("said\n{{\"iops\": {iops}, \"operations\": 10}}")])],
        output: Some(folder.0.join("made")),
    };
    Case {
        needs: vec![Need::Program("nbdkit")],
        ours: side("ours", "memory", 300),
        peers: vec![
            side("none", "no-such-plugin", 900),
            side("slow", "memory", 50),
            side("fast", "memory", 100),
        ],
        score: Score::Most(Figure { at: "/iops", unit: "iops" }),
        requests: Some("/operations"),
        bars: vec![Bar::Ratio(3.0), Bar::RestRss(2.0)],
        ..copy_case(folder)
    }
}

#[test]
fn servers_are_measured_under_a_load() {
    let folder = Folder::new("served");
    let case = served_case(&folder, "1M");
    if let Some(reason) = case.needs[0].lacks() {
        eprintln!("SKIPPED: {reason}");
        return;
    }
    let scratch = Scratch::plain(folder.0.clone());
    let row = pairs::measure(&case, &scratch, &SMALL, Effort::new(true, None)).unwrap();
    assert_eq!((row.cell("verdict"), row.cell("peer_flags")), ("PASS", "fast"));
    assert!(row.cell("cpu").ends_with("µs each") && row.cell("rest").contains("iB"), "{}", row.spoken());
    assert!(!folder.0.join("s").exists() && !folder.0.join("made").exists());
    let row = Row::measured(&Case { bars: vec![Bar::Share(0.3)], ..case }, "", &[pair(300.0, 100.0)]);
    assert_eq!(row.cell("verdict"), "MISS: 0.333× the peer's");

    let broken = served_case(&folder, "no-size");
    let error = pairs::measure(&broken, &scratch, &SMALL, Effort::new(true, None)).err().unwrap();
    assert!(format!("{error:#}").contains("no-size"), "{error:#}");
}

#[test]
fn what_a_machine_lacks_is_said() {
    assert!(Need::Program("sh").lacks().is_none());
    assert!(Need::Program("no-such-program").lacks().unwrap().contains("no-such-program"));
    assert!(Need::FioEngine("no-such-engine").lacks().unwrap().contains("no-such-engine"));
}

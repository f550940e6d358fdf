//! What a command prints.

use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Standard output, buffered. A reader that goes away early (`| head`) is no error.
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub(crate) fn new() -> Out {
        Out(BufWriter::new(io::stdout().lock()))
    }

    /// Prints a value as JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let written = serde_json::to_writer_pretty(&mut self.0, value).map_err(io::Error::from);
        written.and_then(|()| writeln!(self.0)).map_err(ours)?;
        Ok(())
    }

    /// Standard output for bytes that are to arrive as they are. To a terminal they do not.
    pub(crate) fn bytes(&mut self) -> &mut dyn Write {
        if io::stdout().is_terminal() { self } else { &mut self.0 }
    }

    /// Writes what is still buffered.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for Out {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Names come from images: whatever else is forgotten, nothing but line ends and tabs gets to a terminal.
        let obeyed = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t');
        let written = match buf.iter().position(obeyed) {
            None => self.0.write(buf),
            Some(0) => {
                let spelled = buf.first().map(|byte| byte.escape_ascii().to_string()).unwrap_or_default();
                self.0.write_all(spelled.as_bytes()).map(|()| 1)
            }
            Some(before) => self.0.write(buf.get(..before).unwrap_or_default()),
        };
        written.map_err(ours)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(ours)
    }
}

/// An error of standard output says that it is one: it is not the file that is made which has no room.
fn ours(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => e,
        kind => io::Error::new(kind, format!("standard output: {e}")),
    }
}

/// A name as it is shown to people: control characters, which a terminal would obey, are spelled out, and so are those
/// that end lines or turn the direction in which they are read.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let spelled = |c: char| if obeyed(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spelled).collect())
}

/// Whether the error only says that nobody reads our output any more.
pub(crate) fn nobody_listens(e: &anyhow::Error) -> bool {
    e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Writing rows goes through the library's error type: an error of the output comes out as itself again.
pub(crate) fn output_error(e: chart::Error) -> anyhow::Error {
    let broken = e.os_code() == Some(libc::EPIPE);
    if broken { std::io::Error::from(std::io::ErrorKind::BrokenPipe).into() } else { e.into() }
}

/// A moment in UTC, from seconds since 1970: `2026-03-01 12:00:00`.
pub(crate) fn moment(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted in years that begin in March, so that the leap day is the last (Howard Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// How long something took, for people.
pub(crate) fn duration(took: std::time::Duration) -> String {
    match took.as_secs_f64() {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.2} s"),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), s % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_speak_to_the_terminal() {
        assert_eq!(plain("über alles/a b.qcow2"), "über alles/a b.qcow2");
        assert_eq!(plain("a\x1b[2J\nok\u{9b}1m"), "a\\u{1b}[2J\\nok\\u{9b}1m");
        assert_eq!(plain("\u{202e}gpj.exe\u{2028}\u{5d0}"), "\\u{202e}gpj.exe\\u{2028}\u{5d0}");
    }

    #[test]
    fn moments() {
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(moment(1_772_366_399), "2026-03-01 11:59:59");
        assert_eq!(moment(4_102_444_800), "2100-01-01 00:00:00");
        assert_eq!(moment(-1), "1969-12-31 23:59:59");
        assert_eq!(moment(-2_147_483_648), "1901-12-13 20:45:52");
    }
}

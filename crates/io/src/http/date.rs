//! Dates as HTTP writes them (RFC 9110, section 5.6.7).

use super::digits;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds from 1970 to a date, in the form that is sent today (`Sun, 06 Nov 1994 08:49:37 GMT`) or in one of the
/// two that came before it (`Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`).
pub(super) fn parse(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).take(7).collect();
    let (day, month, year, time) = match words.as_slice() {
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| name == month)? as u64 + 1;
    let day = number(day, 31)?;
    let year = match (year.len(), number(year, 9999)?) {
        (4, year @ 1970..) => year,
        (2, year @ ..70) => 2000 + year,
        (2, year) => 1900 + year,
        _ => return None,
    };
    let mut clock = time.split(':');
    let (hour, minute, second) =
        (number(clock.next()?, 23)?, number(clock.next()?, 59)?, number(clock.next()?, 60)?);
    if clock.next().is_some() || day == 0 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970 to a day, in years that begin in March, so that the leap day is the last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469
}

fn number(text: &str, most: u64) -> Option<u64> {
    digits::number(text).filter(|&n| n <= most)
}

//! Sizes as people write them.

use chart::{Error, Result};

/// The units, each 1024 times the one before.
const UNITS: &[u8] = b"kMGTPE";

/// Reads a size in bytes: `4096`, `64k`, `10G`, `1.5T`; also with `iB` or `B` behind the unit. Units are powers
/// of 1024, in either case.
pub fn parse(text: &str) -> Result<u64> {
    let wrong = || {
        let what =
            format!("{text:?} is no size: a number of bytes, or one with k, M, G, T, P or E behind it");
        Error::invalid(what)
    };
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
    let shift = match unit.as_bytes() {
        [] => 0,
        [one] => {
            let same = |u: &u8| u.eq_ignore_ascii_case(one);
            10 * (1 + UNITS.iter().position(same).ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || (number.contains('.') && (fraction.is_empty() || shift == 0))
    {
        return Err(wrong());
    }
    // In whole numbers, so that what is written is what is meant.
    let scale = 10u128.pow(fraction.len() as u32);
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let bytes = digits.checked_mul(1u128 << shift).ok_or_else(wrong)? / scale;
    u64::try_from(bytes).map_err(|_| Error::invalid(format!("{text} is more than a disk can have")))
}

/// Writes a size for people: three digits at least, and the unit: `512 B`, `1.50 GiB`.
pub fn show(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    // What would be rounded up to 1024 is one of the next unit.
    let (value, unit) = if value >= 1023.5 && unit < UNITS.len() { (1.0, unit + 1) } else { (value, unit) };
    let name = char::from(UNITS[unit - 1]).to_ascii_uppercase();
    let digits = if value.fract() == 0.0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {name}iB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_meant() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64k", 65536),
            ("64K", 65536),
            ("64KiB", 65536),
            ("1.5G", 3 << 29),
            ("0.1k", 102),
            ("7E", 7 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1.5",
            "1.",
            ".5k",
            "1kk",
            "1 k",
            "1x",
            "16E",
            "18446744073709551616",
            "1.1.1k",
            "iB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.50 KiB"),
            (10 << 30, "10 GiB"),
            ((10 << 30) + (300 << 20), "10.3 GiB"),
            ((1 << 20) - 1, "1 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}

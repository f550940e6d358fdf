//! Moments, as ISO 9660 writes them: in seven bytes and in seventeen. Always in UTC.

use super::number::to_u8;
use io::tree::Time;
use std::io::Write as _;

/// The year that seven bytes count from: one of them has to do for it.
const SHORT_EPOCH: i64 = 1900;
/// The first second of 1900, and of 2156.
const SHORT: (i64, i64) = (-2_208_988_800, 5_869_584_000);

const DAY: i64 = 24 * 60 * 60;
/// From the first of March of the year 0, the day after a leap day may have been, to 1970.
const DAYS_TO_1970: i64 = 719_468;
/// The first second of the year 1, and of the year 10000.
const TELLABLE: (i64, i64) = (-62_135_596_800, 253_402_300_800);

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

/// A moment in the calendar; what four digits of a year cannot tell is taken for the nearest they can.
#[expect(clippy::arithmetic_side_effects, reason = "the years are 1 to 9999: nothing comes near an overflow")]
fn civil(time: Time) -> Civil {
    let seconds = time.seconds.clamp(TELLABLE.0, TELLABLE.1 - 1);
    let (days, rest) = (seconds.div_euclid(DAY) + DAYS_TO_1970, seconds.rem_euclid(DAY));
    // Years begin in March, so that the leap day is the last of its year, century and four centuries.
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    Civil {
        year: era * 400 + year + i64::from(month >= 10),
        month: if month < 10 { month + 3 } else { month - 9 },
        day: day - (153 * month + 2) / 5 + 1,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
    }
}

/// Whether seven bytes can tell it.
pub(super) fn is_short(time: Time) -> bool {
    (SHORT.0..SHORT.1).contains(&time.seconds)
}

/// In seven bytes (ECMA-119 9.1.5), to the second; what they cannot tell is taken for the nearest they can.
pub(super) fn short(time: Time) -> [u8; 7] {
    let seconds = time.seconds.clamp(SHORT.0, SHORT.1.saturating_sub(1));
    let Civil { year, month, day, hour, minute, second } = civil(Time { seconds, ..time });
    let year = year.saturating_sub(SHORT_EPOCH);
    [to_u8(year), to_u8(month), to_u8(day), to_u8(hour), to_u8(minute), to_u8(second), 0]
}

/// In seventeen bytes (ECMA-119 8.4.26.1): digits, to the hundredth of a second.
pub(super) fn long(time: Time) -> [u8; 17] {
    let Civil { year, month, day, hour, minute, second } = civil(time);
    let hundredths = time.nanos.min(999_999_999) / 10_000_000;
    let mut digits = [0; 17];
    // Sixteen digits, and the offset from UTC behind them is 0: they always fit.
    let _ = write!(
        digits.as_mut_slice(),
        "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{hundredths:02}"
    );
    digits
}

/// No moment at all (ECMA-119 8.4.26.1).
pub(super) const NEVER: [u8; 17] = *b"0000000000000000\0";

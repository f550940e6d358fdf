//! What has to be said of a row: why a miss is a miss, and what was tried.

/// A row's name, and what is to be said of it. Rows without a note need none.
pub(super) const NOTES: &[(&str, &str)] = &[];

/// The note on a row.
pub(super) fn on(name: &str) -> Option<&'static str> {
    NOTES.iter().find(|(row, _)| *row == name).map(|(_, note)| *note)
}

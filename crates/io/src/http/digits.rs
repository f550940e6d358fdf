//! Numbers as HTTP writes them.

/// Digits and nothing else: `parse` alone would take a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

//! Checksums as ext4 takes them: crc32c that begins where the caller says and is not inverted, and the crc16 of
//! older group descriptors.

/// A crc32c on its way. A part that must count as zeros is told as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc32c(pub(super) u32);

impl Crc32c {
    /// As nearly all of them begin.
    pub(super) const START: Crc32c = Crc32c(!0);

    /// With these bytes too.
    #[must_use]
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        // The crate inverts before and behind, as everybody but ext4 does.
        Crc32c(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// With this number too.
    #[must_use]
    pub(super) fn with_u32(self, number: u32) -> Self {
        self.with(&number.to_le_bytes())
    }

    /// With these bytes, but zeros in place of the `len` from `at` on.
    #[must_use]
    pub(super) fn with_but(self, bytes: &[u8], at: usize, len: usize) -> Self {
        const ZEROS: [u8; 4] = [0; 4];
        let before = bytes.get(..at).unwrap_or(bytes);
        let behind = bytes.get(at.saturating_add(len)..).unwrap_or_default();
        self.with(before).with(ZEROS.get(..len).unwrap_or(&ZEROS)).with(behind)
    }

    /// Its low half.
    pub(super) fn low(self) -> u16 {
        let [a, b, _, _] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Its high half.
    pub(super) fn high(self) -> u16 {
        let [_, _, c, d] = self.0.to_le_bytes();
        u16::from_le_bytes([c, d])
    }
}

/// The crc16 of the polynomial 0x8005, its bits reflected, going on from `crc`.
pub(super) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 })
    })
}

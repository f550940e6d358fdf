//! The reference engine: reads and writes, one after the other. Parallel because its workers are.

use super::{Moved, Mover, Transfer};
use crate::aligned::Aligned;
use chart::{Backing, Result, Wait};

/// The most that is read of a host file at once: what was read is still in the processor's cache when it is written.
const IN_CACHE: usize = 512 << 10;

pub(super) struct Threads {
    buffer: Aligned,
}

impl Threads {
    pub(super) fn new(buffer: usize) -> Self {
        Threads { buffer: Aligned::new(buffer) }
    }
}

impl Mover for Threads {
    fn transfer(&mut self, t: &Transfer<'_>) -> Result<Moved> {
        let room = self.buffer.len();
        // What is asked of a server had better be asked for at once.
        let most = if matches!(t.from.backing(), Backing::File(_)) { room.min(IN_CACHE) } else { room };
        let mut moved = Moved::default();
        let mut done = 0;
        while done < t.len {
            let now = (t.len - done).min(most as u64) as usize;
            let bytes = self.buffer.slice(now);
            t.from.read_at(t.offset + done, bytes, Wait::Allowed)?;
            t.put(done, bytes, &mut moved)?;
            done += now as u64;
        }
        Ok(moved)
    }
}

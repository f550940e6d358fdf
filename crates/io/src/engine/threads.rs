//! The reference engine: reads and writes, one after the other. Parallel because its workers are.

use super::{Moved, Mover, Transfer, Zeros, clear, zero_runs};
use chart::{Result, Wait};

pub(super) struct Threads {
    buffer: Vec<u8>,
}

impl Threads {
    pub(super) fn new(buffer: usize) -> Self {
        Threads { buffer: vec![0; buffer] }
    }
}

impl Mover for Threads {
    fn transfer(&mut self, t: &Transfer<'_>) -> Result<Moved> {
        let mut moved = Moved::default();
        let mut done = 0;
        while done < t.len {
            let now = (t.len - done).min(self.buffer.len() as u64) as usize;
            let bytes = &mut self.buffer[..now];
            t.from.read_at(t.offset + done, bytes, Wait::Allowed)?;
            if t.zeros == Zeros::Copied {
                t.to.write_at(t.at + done, bytes, Wait::Allowed)?;
                moved.copied += now as u64;
            } else {
                write_without_zeros(t, t.at + done, bytes, &mut moved)?;
            }
            done += now as u64;
        }
        Ok(moved)
    }
}

fn write_without_zeros(t: &Transfer<'_>, at: u64, bytes: &[u8], moved: &mut Moved) -> Result<()> {
    for (start, end, zero) in zero_runs(bytes) {
        let (position, len) = (at + start as u64, (end - start) as u64);
        if !zero {
            t.to.write_at(position, &bytes[start..end], Wait::Allowed)?;
            moved.copied += len;
            continue;
        }
        moved.zeros += len;
        if t.zeros == Zeros::Told {
            clear(t.to, position, len)?;
        }
    }
    Ok(())
}

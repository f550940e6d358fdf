//! When the states of what is served are kept.

use super::live::Voice;
use portolan::serve::{History, Server};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Keeps the histories of what is served, on a thread of its own: to keep a state is to wait for those who are writing.
pub(super) struct Chronicle {
    /// Dropped to end it.
    end: Sender<()>,
    writer: JoinHandle<()>,
}

impl Chronicle {
    /// Keeps what there is at the beginning, and from then on what is written. None where there is no history.
    pub(super) fn begin(
        mut histories: Vec<History>,
        every: Option<Duration>,
        server: &Arc<Server>,
        voice: Voice,
    ) -> chart::Result<Option<Chronicle>> {
        let Some(every) = every else { return Ok(None) };
        histories.iter_mut().try_for_each(|history| history.keep(server).map(drop))?;
        let (end, ended) = channel();
        let server = Arc::clone(server);
        let writer = std::thread::spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                for history in &mut histories {
                    if let Err(e) = history.keep(&server) {
                        // What is served goes on being served.
                        voice.say(&format!("a state of the disk is not kept: {e}"));
                    }
                }
            }
        });
        Ok(Some(Chronicle { end, writer }))
    }

    /// Keeps no more.
    pub(super) fn end(self) {
        drop(self.end);
        // It has told what went wrong.
        let _ = self.writer.join();
    }
}

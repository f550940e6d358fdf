//! The head of a branch: the one version of it that is being written.

use crate::edit::Edit;
use crate::map::{Root, View};
use crate::versions::{History, State};
use crate::word::{FIRST, VALUE_BITS, VALUES, Word};
use chart::{
    Answer, ChartMut, Epochs, Error, Intent, Layer, Reservation, Reserve, Result, SetMode, To, Wait,
};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, MutexGuard};

/// What those who look without a lock must know of a head.
pub(crate) struct Core {
    /// Odd while top, length and floor are all exchanged.
    seq: AtomicU32,
    /// The top's value, and above it the height.
    top: AtomicU64,
    len: AtomicU64,
    floor: AtomicU32,
    gone: AtomicBool,
    epochs: Arc<Epochs>,
}

impl Core {
    pub(crate) fn new(root: Root, len: u64, floor: u32) -> Self {
        Core {
            seq: AtomicU32::new(0),
            top: AtomicU64::new(Self::pack(root)),
            len: AtomicU64::new(len),
            floor: AtomicU32::new(floor),
            gone: AtomicBool::new(false),
            epochs: Arc::default(),
        }
    }

    fn pack(root: Root) -> u64 {
        u64::from(root.height) << VALUE_BITS | root.top.value()
    }

    /// The map of now.
    #[inline]
    pub(crate) fn view(&self) -> View {
        loop {
            let seq = self.seq.load(Ordering::Acquire);
            let top = self.top.load(Ordering::Acquire);
            let (len, floor) = (self.len.load(Ordering::Acquire), self.floor.load(Ordering::Acquire));
            fence(Ordering::Acquire);
            if seq & 1 == 0 && self.seq.load(Ordering::Relaxed) == seq {
                return View { top: top & (VALUES - 1), height: (top >> VALUE_BITS) as u32, len, floor };
            }
            std::hint::spin_loop();
        }
    }

    /// The same map, in another tree.
    pub(crate) fn show(&self, root: Root) {
        self.top.store(Self::pack(root), Ordering::SeqCst);
    }

    pub(crate) fn show_len(&self, len: u64) {
        self.len.store(len, Ordering::SeqCst);
    }

    pub(crate) fn show_floor(&self, floor: u32) {
        self.floor.store(floor, Ordering::SeqCst);
    }

    /// Another map.
    pub(crate) fn switch(&self, root: Root, len: u64, floor: u32) {
        self.seq.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.show(root);
        self.show_len(len);
        self.show_floor(floor);
        self.seq.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The branch is deleted, or not after all.
    pub(crate) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::SeqCst);
    }
}

/// The head of a branch, as a chart and as what changes it.
pub(crate) struct Head {
    history: Arc<History>,
    core: Arc<Core>,
    branch: u32,
}

impl Head {
    pub(crate) fn new(history: Arc<History>, core: Arc<Core>, branch: u32) -> Self {
        Head { history, core, branch }
    }

    fn check(&self) -> Result<()> {
        if self.core.gone.load(Ordering::SeqCst) { Err(branch_deleted()) } else { Ok(()) }
    }

    fn block_of(&self, at: u64) -> u64 {
        at >> self.history.shift()
    }

    /// The bytes of some blocks.
    fn bytes(&self, blocks: u64) -> u64 {
        blocks << self.history.shift()
    }

    /// The blocks that hold so many bytes.
    fn blocks(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.grain())
    }

    /// What a block becomes that is nobody's any more: never what lies below.
    fn empty(&self, birth: u32) -> Word {
        if self.history.base_len() > 0 { Word::zero(birth) } else { Word::BELOW }
    }

    /// Changes the map.
    fn edit<T>(&self, state: &mut State, act: impl FnOnce(&mut Edit<'_>) -> Result<T>) -> Result<T> {
        let show = |root| self.core.show(root);
        let (number, shared) = state.writing(self.branch)?;
        let State { periods, freed, .. } = state;
        let period = periods.get_mut(&number).ok_or_else(branch_deleted)?;
        let (nodes, root) = (self.history.nodes(), &mut period.root);
        act(&mut Edit { nodes, birth: number, shared, root, show: &show, freed })
    }

    /// How many blocks from the first on there is a place to be reserved for.
    fn wanting(&self, words: &[Word], first: u64, view: &View, intent: Intent) -> u64 {
        let below = self.blocks(self.history.base_len());
        let wants = |(word, block): (&Word, u64)| match intent {
            Intent::Write => !view.writable(*word),
            Intent::Fill => word.is_below() && block < below,
        };
        words.iter().zip(first..).take_while(|&pair| wants(pair)).count() as u64
    }

    /// Clears what lies behind the disk's end in its block.
    fn clear_end(&self, view: &View) -> Result<()> {
        let within = view.len & (self.grain() - 1);
        if within == 0 {
            return Ok(());
        }
        let block = self.block_of(view.len);
        let words = view.words(self.history.nodes(), block, 1, Wait::Allowed)?;
        match words.first() {
            Some(word) if view.writable(*word) => {
                let offset = self.bytes(word.value() - FIRST) + within;
                self.history.data().zero(offset, self.grain() - within, false)
            }
            Some(word) if word.refers() || (word.is_below() && self.history.base_len() > view.len) => {
                Err(Error::conflict("the last interval block has become a version's; try again").at(view.len))
            }
            _ => Ok(()),
        }
    }

    /// One reservation less.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        if let Some(desk) = state.desks.get_mut(&self.branch) {
            desk.reserved -= 1;
        }
        self.history.lower(&mut state, self.branch);
        self.history.notify();
    }

    fn place(reservation: &Reservation, shift: u32) -> u64 {
        (reservation.offset >> shift) + FIRST
    }
}

#[cold]
pub(crate) fn branch_deleted() -> Error {
    Error::not_found("this branch of the disk's history was deleted")
}

impl Layer for Head {
    fn len(&self) -> u64 {
        self.core.view().len
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        self.check()?;
        let view = self.core.view();
        if at >= view.len {
            return Err(Error::out_of_range(format!("byte {at} of a disk of {}", view.len)));
        }
        self.history.answer(&view, (at, want.min(view.len - at)), wait)
    }
}

impl ChartMut for Head {
    fn grain(&self) -> u64 {
        1 << self.history.shift()
    }

    fn epochs(&self) -> Option<&Arc<Epochs>> {
        Some(self.core.epochs())
    }

    fn reserve(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        let (first, end) = (self.block_of(at), self.blocks(at.saturating_add(want)));
        // What is not in memory is brought there before anything is locked. No pin is held, so what is found may be
        // wrong by now: it is looked up again.
        let _ = self.core.view().words(self.history.nodes(), first, end - first, Wait::Allowed);
        let mut state = self.history.settled(self.branch)?;
        self.history.lower(&mut state, self.branch);
        let view = self.core.view();
        // It may have been rolled back to a shorter version since that was checked.
        chart::check_range(view.len, at, 1)?;
        let end = end.min(self.blocks(view.len));
        let words = view.words(self.history.nodes(), first, end - first, Wait::Allowed)?;
        let most = self.wanting(&words, first, &view, intent);
        if most == 0 {
            return Ok(Reserve::Already { len: self.bytes(first + 1) - at });
        }
        let (place, many, zeroed) = self.history.take(&mut state, most)?;
        state.desk(self.branch)?.reserved += 1;
        Ok(Reserve::Ready(Reservation {
            at: self.bytes(first),
            len: self.bytes(many),
            source: crate::map::DATA,
            offset: self.bytes(place - FIRST),
            zeroed,
            token: 0,
        }))
    }

    fn commit(&self, reservation: Reservation) -> Result<()> {
        let mut state = self.history.lock();
        let place = Self::place(&reservation, self.history.shift());
        let (first, many) = (self.block_of(reservation.at), self.block_of(reservation.len));
        let mut done = 0;
        let put = self.edit(&mut state, |edit| {
            while done < many {
                done += edit.put(first + done, many - done, place + done)?;
            }
            Ok(())
        });
        if done < many {
            state.space.give(place + done, many - done);
        }
        self.settle(state);
        put
    }

    fn abort(&self, reservation: Reservation) {
        let mut state = self.history.lock();
        let place = Self::place(&reservation, self.history.shift());
        state.space.give(place, self.block_of(reservation.len));
        self.settle(state);
    }

    fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        let mut state = self.history.settled(self.branch)?;
        chart::check_range(self.core.view().len, at, len)?;
        let (from, end) = (self.block_of(at), at.saturating_add(len));
        let whole = end & (self.grain() - 1) == 0 || end >= self.core.view().len;
        if self.bytes(from) != at || !whole {
            return Err(Error::unsupported("only whole interval blocks are set").at(at));
        }
        let (number, _) = state.writing(self.branch)?;
        let hole = to == To::Hole || mode.may_unmap;
        let word = if hole { self.empty(number) } else { Word::zero(number) };
        // Behind the end is nothing to be kept apart.
        let to = if end >= self.core.view().len { u64::MAX } else { self.blocks(end) };
        self.edit(&mut state, |edit| edit.clear(from, to, word))?;
        Ok(len)
    }

    fn resize(&self, len: u64) -> Result<()> {
        let mut state = self.history.settled(self.branch)?;
        let view = self.core.view();
        let (number, _) = state.writing(self.branch)?;
        let (old, new, empty) = (self.blocks(view.len), self.blocks(len), self.empty(number));
        if len > view.len {
            self.clear_end(&view)?;
            self.edit(&mut state, |edit| {
                edit.grow(new)?;
                edit.clear(old, new, empty)
            })?;
        } else {
            self.edit(&mut state, |edit| edit.clear(new, u64::MAX, empty))?;
        }
        state.period(number)?.len = len;
        self.core.show_len(len);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.history.data().flush()
    }
}

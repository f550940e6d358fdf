//! The image: its map, and how that changes.

use super::layout::{Entry, Map, Maps, Root};
use super::space::Space;
use super::{GRAIN, Mutation};
use crate::source::lock;
use chart::{
    Answer, ChartMut, Epochs, Error, Extent, Intent, Layer, Reservation, Reserve, Result, SetMode, Source,
    SourceId, To, Wait,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Maps that are about to become durable: their bytes, their root, and the grains they free.
type Captured = (Vec<u8>, Root, Vec<u64>);

/// An open image.
pub(super) struct Image {
    source: Arc<dyn Source>,
    mutation: Option<Mutation>,
    epochs: Arc<Epochs>,
    state: Mutex<State>,
    drained: Condvar,
    /// One flush at a time.
    flushing: Mutex<()>,
}

struct State {
    maps: Maps,
    space: Space,
    root: Root,
    /// The maps have changed since the root was written.
    dirty: bool,
    /// Grains of the disk that are being written to a new place.
    reserved: BTreeSet<usize>,
    /// Snapshots that wait for in-place writers.
    draining: u32,
}

impl Image {
    pub(super) fn create(source: Arc<dyn Source>, len: u64, mutation: Option<Mutation>) -> Result<Self> {
        let maps = Maps { current: Map::new(len), snapshots: Default::default(), next_id: 1 };
        let bytes = maps.to_bytes();
        let root = Root::of(&bytes, 0, 2);
        source.set_len(0)?;
        source.set_len((2 + root.grains()) * GRAIN)?;
        source.write_at(2 * GRAIN, &bytes, Wait::Allowed)?;
        source.flush()?;
        source.write_at(root.offset(), &root.to_sector(), Wait::Allowed)?;
        source.flush()?;
        Self::open(source, mutation)
    }

    pub(super) fn open(source: Arc<dyn Source>, mutation: Option<Mutation>) -> Result<Self> {
        let (root, maps) = Root::find(source.as_ref())?;
        let space = Space::of(&maps, &root, source.as_ref(), mutation)?;
        let state = State { maps, space, root, dirty: false, reserved: BTreeSet::new(), draining: 0 };
        Ok(Image {
            source,
            mutation,
            epochs: Arc::default(),
            state: Mutex::new(state),
            drained: Condvar::new(),
            flushing: Mutex::new(()),
        })
    }

    pub(super) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn locked(&self, wait: Wait) -> Result<MutexGuard<'_, State>> {
        match wait {
            Wait::Allowed => Ok(lock(&self.state)),
            Wait::Never => match self.state.try_lock() {
                Ok(state) => Ok(state),
                Err(TryLockError::Poisoned(state)) => Ok(state.into_inner()),
                Err(TryLockError::WouldBlock) => Err(Error::WOULD_BLOCK),
            },
        }
    }

    /// The answer of one map for a range within it, as far as it is one run.
    fn answer(&self, state: &State, map: &Map, at: u64, want: u64, current: bool) -> Result<Answer> {
        if at >= map.len {
            return Err(Error::out_of_range(format!("byte {at} of a toy of {}", map.len)));
        }
        let want = want.min(map.len - at);
        let first = (at / GRAIN) as usize;
        let writable = |g: usize, entry: Entry| {
            let Entry::At(place) = entry else { return false };
            let kept = state.reserved.contains(&g) && !self.has(Mutation::WritableWhileReserved);
            let shared = state.space.is_shared(place) && !self.has(Mutation::WritableWhileShared);
            current && !kept && !shared
        };
        let (entry, free) = (map.entries[first], writable(first, map.entries[first]));
        let mut end = first + 1;
        while (end as u64) * GRAIN < at + want {
            let by = (end - first) as u64;
            let joins = match (entry, map.entries[end]) {
                (Entry::At(a), Entry::At(b)) => b == a + by || self.has(Mutation::OverClaim),
                (a, b) => a == b,
            };
            if !joins || writable(end, map.entries[end]) != free {
                break;
            }
            end += 1;
        }
        let len = want.min(end as u64 * GRAIN - at);
        Ok(match entry {
            Entry::Below => Answer::Below { len },
            Entry::Zero => Answer::Here(Extent::zero(at, len)),
            Entry::At(place) => {
                let skip = if self.has(Mutation::SplitChangesBytes) { 0 } else { at % GRAIN };
                let extent = Extent::raw(at, len, SourceId(0), place * GRAIN + skip);
                Answer::Here(Extent { writable: free, ..extent })
            }
        })
    }

    /// Keeps the state of now; returns its id when it can no longer change (law 3).
    pub(super) fn snapshot(&self) -> u64 {
        let mut state = lock(&self.state);
        let id = state.maps.next_id;
        state.maps.next_id += 1;
        let map = Arc::new(state.maps.current.clone());
        state.space.share(&map);
        state.maps.snapshots.insert(id, map);
        state.dirty = true;
        // Taken after the change: whoever looks from now on finds nothing writable that this snapshot has.
        let epoch = self.epochs.now();
        match self.mutation {
            Some(Mutation::SnapshotDoesNotDrain) => return id,
            Some(Mutation::DrainsUnderLock) => {
                self.drain_under_lock(epoch);
                return id;
            }
            _ => {}
        }
        state.draining += 1;
        drop(state);
        // Neither the lock nor a pin is held here (law 9).
        self.epochs.wait_over(epoch);
        lock(&self.state).draining -= 1;
        self.drained.notify_all();
        id
    }

    /// The planted deadlock, which ends after some time, so that a test of it does.
    fn drain_under_lock(&self, epoch: u64) {
        let until = Instant::now() + Duration::from_secs(15);
        while !self.epochs.is_over(epoch) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn delete_oldest(&self) {
        let mut state = lock(&self.state);
        if let Some((_, map)) = state.maps.snapshots.pop_first() {
            map.places().for_each(|grain| state.space.release(grain, &self.epochs));
            state.dirty = true;
        }
    }

    /// Waits until no snapshot waits: until then nobody may copy what an in-place writer is about to write.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        while state.draining > 0 && !self.has(Mutation::CopiesWhileDraining) {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Sets the place of a grain of the disk.
    fn put(&self, state: &mut State, grain: usize, entry: Entry) {
        let old = std::mem::replace(&mut state.maps.current.entries[grain], entry);
        state.dirty = true;
        if let Entry::At(place) = old {
            state.space.release(place, &self.epochs);
        }
    }

    /// Clears what lies behind the disk's end in its grain.
    fn clear_end(&self, state: &State) -> Result<()> {
        let end = state.maps.current.len;
        let within = end % GRAIN;
        match state.maps.current.entries.get((end / GRAIN) as usize) {
            Some(Entry::At(place)) if state.space.is_shared(*place) => {
                Err(Error::conflict("the last grain has become a snapshot's; try again").at(end))
            }
            Some(Entry::At(place)) => self.source.zero(place * GRAIN + within, GRAIN - within, false),
            _ => Ok(()),
        }
    }

    /// Law 7 broken: sectors are reserved as if they were grains, and the rest of the grain is brought along here.
    fn reserve_sectors(&self, at: u64, want: u64) -> Result<Reserve> {
        let grain = at / GRAIN;
        let (place, old) = {
            let mut state = lock(&self.state);
            let old = state.maps.current.entries[grain as usize];
            if let Entry::At(place) = old
                && !state.space.is_shared(place)
            {
                return Ok(Reserve::Already { len: 1 });
            }
            (state.space.take(1, self.source.as_ref(), &self.epochs)?.0, old)
        };
        let mut bytes = vec![0; GRAIN as usize];
        if let Entry::At(old) = old {
            self.source.read_at(old * GRAIN, &mut bytes, Wait::Allowed)?;
        }
        self.source.write_at(place * GRAIN, &bytes, Wait::Allowed)?;
        let start = at / 512 * 512;
        let end = (at + want).min((grain + 1) * GRAIN).next_multiple_of(512);
        let offset = place * GRAIN + start % GRAIN;
        let (len, source) = (end - start, SourceId(0));
        Ok(Reserve::Ready(Reservation { at: start, len, source, offset, zeroed: false, token: place }))
    }

    /// Writes the maps to a new place, and then the root that names them. Data is durable already.
    fn write_maps(&self, bytes: &[u8], root: &Root) -> Result<()> {
        self.source.write_at(root.grain * GRAIN, bytes, Wait::Allowed)?;
        if !self.has(Mutation::MapBeforeData) {
            self.source.flush()?;
        }
        self.source.write_at(root.offset(), &root.to_sector(), Wait::Allowed)?;
        self.source.flush()
    }

    /// The maps as they are now, where they have changed.
    fn capture(&self) -> Result<Option<Captured>> {
        let mut state = lock(&self.state);
        if !state.dirty {
            return Ok(None);
        }
        let bytes = state.maps.to_bytes();
        let count = (bytes.len() as u64).div_ceil(GRAIN);
        let (grain, _) = state.space.take(count, self.source.as_ref(), &self.epochs)?;
        let root = Root::of(&bytes, state.root.sequence + 1, grain);
        state.dirty = false;
        Ok(Some((bytes, root, state.space.take_pending())))
    }
}

impl Layer for Image {
    fn len(&self) -> u64 {
        lock(&self.state).maps.current.len
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        let state = self.locked(wait)?;
        self.answer(&state, &state.maps.current, at, want, true)
    }
}

impl ChartMut for Image {
    fn grain(&self) -> u64 {
        if self.has(Mutation::ReservationsDoNotWait) { 512 } else { GRAIN }
    }

    fn epochs(&self) -> Option<&Arc<Epochs>> {
        (!self.has(Mutation::ReadersNotPinned)).then_some(&self.epochs)
    }

    fn reserve(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        if self.has(Mutation::ReservationsDoNotWait) {
            return self.reserve_sectors(at, want);
        }
        let mut state = self.settled();
        let grain = (at / GRAIN) as usize;
        let rest = (GRAIN - at % GRAIN).min(want);
        let here = match state.maps.current.entries[grain] {
            Entry::Below => false,
            Entry::Zero => intent == Intent::Fill,
            Entry::At(place) => intent == Intent::Fill || !state.space.is_shared(place),
        };
        if here {
            return Ok(Reserve::Already { len: rest });
        }
        let (place, zeroed) = state.space.take(1, self.source.as_ref(), &self.epochs)?;
        state.reserved.insert(grain);
        let (at, offset, source) = (grain as u64 * GRAIN, place * GRAIN, SourceId(0));
        Ok(Reserve::Ready(Reservation { at, len: GRAIN, source, offset, zeroed, token: place }))
    }

    fn commit(&self, reservation: Reservation) -> Result<()> {
        let mut state = lock(&self.state);
        let grain = (reservation.at / GRAIN) as usize;
        state.reserved.remove(&grain);
        self.put(&mut state, grain, Entry::At(reservation.token));
        Ok(())
    }

    fn abort(&self, reservation: Reservation) {
        let mut state = lock(&self.state);
        state.reserved.remove(&((reservation.at / GRAIN) as usize));
        state.space.give_back(reservation.token, 1);
    }

    fn set(&self, at: u64, len: u64, _: To, _: SetMode) -> Result<u64> {
        let mut state = lock(&self.state);
        let end = at + len;
        if !at.is_multiple_of(GRAIN) || (!end.is_multiple_of(GRAIN) && end < state.maps.current.len) {
            return Err(Error::unsupported("a toy sets whole grains only").at(at));
        }
        let to = if self.has(Mutation::DiscardUncovers) { Entry::Below } else { Entry::Zero };
        for grain in at / GRAIN..end.div_ceil(GRAIN) {
            self.put(&mut state, grain as usize, to);
        }
        Ok(len)
    }

    fn resize(&self, len: u64) -> Result<()> {
        let mut state = lock(&self.state);
        if len > state.maps.current.len {
            self.clear_end(&state)?;
        }
        let grains = len.div_ceil(GRAIN) as usize;
        for grain in grains..state.maps.current.entries.len() {
            self.put(&mut state, grain, Entry::Below);
        }
        state.maps.current.entries.resize(grains, Entry::Zero);
        state.maps.current.len = len;
        state.dirty = true;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let _one = lock(&self.flushing);
        let Some((bytes, root, freed)) = self.capture()? else {
            return if self.has(Mutation::FlushNotPassedDown) { Ok(()) } else { self.source.flush() };
        };
        let data = if self.has(Mutation::MapBeforeData) { Ok(()) } else { self.source.flush() };
        let done = data.and_then(|()| self.write_maps(&bytes, &root));
        let mut state = lock(&self.state);
        if let Err(e) = done {
            // The new root may have come to be all the same, so what it names stays taken.
            state.dirty = true;
            state.space.still_pending(freed);
            return Err(e);
        }
        let old = std::mem::replace(&mut state.root, root);
        state.space.durable(freed, &self.epochs);
        state.space.give_back(old.grain, old.grains());
        Ok(())
    }
}

/// A snapshot's chart.
pub(super) struct Frozen {
    image: Arc<Image>,
    id: u64,
    len: u64,
}

impl Frozen {
    pub(super) fn new(image: Arc<Image>, id: u64) -> Self {
        let len = lock(&image.state).maps.snapshots.get(&id).map_or(0, |m| m.len);
        Frozen { image, id, len }
    }
}

impl Layer for Frozen {
    fn len(&self) -> u64 {
        self.len
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        let state = self.image.locked(wait)?;
        let gone = || Error::not_found(format!("snapshot {} was deleted", self.id));
        let map = state.maps.snapshots.get(&self.id).ok_or_else(gone)?;
        self.image.answer(&state, map, at, want, false)
    }
}

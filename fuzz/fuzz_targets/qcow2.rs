//! A file that says it is qcow2: opened, told about, checked, walked and read.
#![no_main]

use chart::{Layer, Result, Source, Wait};
use format::qcow2::{Header, Image, Info, Needed, Options, Role};
use io::memory::Memory;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// So many answers of a map are asked for, and so many reads made, before it is long enough.
const STEPS: usize = 300;

fuzz_target!(|data: &[u8]| {
    let file: Arc<dyn Source> = Arc::new(Memory::from_bytes("fuzz", data));
    let _ = Info::read(file.as_ref());
    if let Ok(header) = Header::read(file.as_ref())
        && let Ok(encoded) = header.encode()
    {
        let again = Header::decode(&encoded, true);
        assert!(again.is_ok_and(|again| again.is_some_and(|again| again == header)));
    }
    view(&file, None);
    view(&file, Some("1".to_owned()));
});

fn view(file: &Arc<dyn Source>, snapshot: Option<String>) {
    let options = Options { snapshot, allow_corrupt: true, cache_bytes: 0, ..Options::default() };
    let mut opener = |needed: Needed<'_>| -> Result<Arc<dyn Source>> {
        let len = if needed.role == Role::Backing { 70_000 } else { 300_000 };
        Ok(Arc::new(Memory::from_bytes("other", &vec![0x5a; len])))
    };
    let Ok(image) = Image::open(Arc::clone(file), &options, &mut opener) else { return };
    let image = Arc::new(image);
    let _ = image.check();
    for bitmap in image.bitmaps().unwrap_or_default().iter().take(8) {
        if let Ok(map) = bitmap.load(file.as_ref(), image.clusters(), image.size()) {
            let _ = map.run(0, 1 << 20);
        }
    }
    walk(&image);
    if let Ok(disk) = image.disk("fuzz") {
        read(&disk);
    }
}

fn walk(image: &Image) {
    let (len, mut at) = (Layer::len(image), 0);
    for _ in 0..STEPS {
        if at >= len {
            break;
        }
        let want = len - at;
        match image.look(at, want, Wait::Allowed) {
            Ok(answer) => {
                assert!(answer.len() > 0 && answer.len() <= want);
                at += answer.len();
            }
            Err(_) => at = at.saturating_add(image.clusters().size()),
        }
    }
}

fn read(disk: &chart::Disk) {
    let mut buf = vec![0; 5000];
    let mut at = 0;
    for _ in 0..STEPS {
        if at >= disk.len() {
            break;
        }
        let now = usize::try_from(disk.len() - at).unwrap_or(usize::MAX).min(buf.len());
        let _ = disk.read_at(at, &mut buf[..now], Wait::Allowed);
        at += now as u64;
    }
    let tail = disk.len().min(700);
    let _ = disk.read_at(disk.len() - tail, &mut buf[..tail as usize], Wait::Never);
}

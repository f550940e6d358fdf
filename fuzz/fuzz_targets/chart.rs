//! Written charts of either version and form: any bytes decode to an error or to a chart that keeps the law of
//! answers, names nothing but what lies beneath its directories, and comes back as it was, by way of both forms.
#![no_main]

use chart::file::{SourceRecord, Written};
use chart::{Chart, Wait};
use libfuzzer_sys::fuzz_target;
use std::path::Component;

/// So many runs are looked at.
const RUNS: usize = 10_000;

fn walk(written: &Written) {
    let len = Chart::len(&written.table);
    let mut at = 0;
    for _ in 0..RUNS {
        if at >= len {
            assert!(written.table.extent_at(at, 1, Wait::Never).is_err());
            return;
        }
        let extent = written.table.extent_at(at, u64::MAX, Wait::Never).unwrap();
        assert!(extent.at == at && extent.len > 0 && extent.end() <= len);
        at = extent.end();
    }
}

/// What whoever opens the files of a directory relies on.
fn families(written: &Written) {
    for source in &written.sources {
        let SourceRecord::Family(family) = source else { continue };
        let mut end = 0;
        for member in &family.members {
            let parts: Vec<_> = member.name.components().collect();
            assert!(!parts.is_empty() && parts.iter().all(|part| matches!(part, Component::Normal(_))));
            assert!(member.start >= end && member.len > 0);
            end = member.start + member.len;
        }
        assert!(end <= family.len);
    }
}

/// The same chart again, from what is written of it.
fn comes_back(written: &Written) {
    let binary = Written::from_bytes(&written.to_bytes().unwrap()).unwrap();
    let json = Written::from_json(&written.to_json().unwrap()).unwrap();
    for again in [binary, json] {
        assert_eq!(Chart::len(&again.table), Chart::len(&written.table));
        assert_eq!(again.sources, written.sources);
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The checksum would keep the fuzzer out: it is put right first.
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 24 {
        let (head, body) = bytes.split_at_mut(24);
        head[12..16].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        head[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    }
    if let Ok(written) = Written::from_bytes(&bytes) {
        walk(&written);
        families(&written);
        comes_back(&written);
    }
    if let Ok(text) = std::str::from_utf8(&bytes)
        && let Ok(written) = Written::from_json(text)
    {
        walk(&written);
        families(&written);
        comes_back(&written);
    }
});

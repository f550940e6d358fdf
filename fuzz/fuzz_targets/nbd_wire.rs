//! NBD messages, of both sides: any bytes are refused, or are what writes back as the same bytes.
#![no_main]

use io::nbd::wire::{
    BlockStatus, ChunkKind, ClientFlags, ErrorChunk, ExportInfo, ExportNameReply, Go, Greeting, Headers,
    Hole, Listed, MetaContext, MetaQuery, OptionHeader, OptionReply, Reply, Request, StatusFilter,
};
use libfuzzer_sys::fuzz_target;

const HEADERS: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

/// What was parsed from `bytes` and is written by `put` begins with the same bytes.
fn same(bytes: &[u8], put: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    put(&mut out);
    assert_eq!(out.get(..bytes.len()), Some(bytes));
}

fn fixed(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk()
        && let Ok(greeting) = Greeting::parse(head)
    {
        same(head, |out| greeting.put(out));
    }
    if let Some(head) = bytes.first_chunk() {
        let _ = ClientFlags::parse(*head);
    }
    if let Some(head) = bytes.first_chunk()
        && let Ok(parsed) = OptionHeader::parse(head)
    {
        same(&head[..12], |out| OptionHeader::put(parsed.option, &[], out).unwrap());
    }
    if let Some(head) = bytes.first_chunk()
        && let Ok(parsed) = OptionReply::parse(head)
    {
        same(&head[..16], |out| OptionReply::put(parsed.option, parsed.reply, &[], out).unwrap());
    }
    if let Some(head) = bytes.first_chunk()
        && let Ok(parsed) = ExportNameReply::parse(head)
    {
        same(head, |out| parsed.put(true, out));
    }
}

fn handshake(payload: &[u8]) {
    if let Ok(go) = Go::parse(payload) {
        same(payload, |out| go.put(out).unwrap());
    }
    if let Ok(query) = MetaQuery::parse(payload) {
        same(payload, |out| query.put(out).unwrap());
    }
    if let Ok(context) = MetaContext::parse(payload) {
        same(payload, |out| context.put(out).unwrap());
    }
    let _ = Listed::parse(payload);
    let _ = ExportInfo::parse(payload);
    let _ = OptionReply::message(payload);
}

fn transmission(bytes: &[u8]) {
    for headers in HEADERS {
        if let Some(head) = bytes.get(..headers.request_len())
            && let Ok(request) = Request::parse(headers, head)
        {
            same(head, |out| request.put(headers, out).unwrap());
            assert!(request.payload_len(headers) <= request.len);
        }
        let Some(magic) = bytes.first_chunk() else { continue };
        let Ok(len) = Reply::header_len(headers, *magic) else { continue };
        let Some(head) = bytes.get(..len) else { continue };
        match Reply::parse(headers, head) {
            Ok(Reply::Simple(reply)) => same(head, |out| reply.put(out)),
            Ok(Reply::Chunk(chunk)) => same(head, |out| chunk.put(headers, out)),
            Err(_) => {}
        }
    }
    if let Ok(filter) = StatusFilter::parse(bytes) {
        same(bytes, |out| filter.put(out));
    }
    if let Ok(hole) = Hole::parse(bytes) {
        same(bytes, |out| hole.put(out));
    }
    for headers in HEADERS {
        if let Ok(status) = BlockStatus::parse(BlockStatus::kind(headers), bytes) {
            same(bytes, |out| status.put(headers, out).unwrap());
        }
    }
    for kind in [ChunkKind::ERROR, ChunkKind::ERROR_OFFSET, ChunkKind(0x8123)] {
        if let Ok(error) = ErrorChunk::parse(kind, bytes) {
            assert!(!error.message.chars().any(char::is_control));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    fixed(bytes);
    handshake(bytes);
    transmission(bytes);
});

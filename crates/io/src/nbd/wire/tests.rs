use super::*;
use chart::Kind;
use proptest::prelude::*;

fn put(f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    f(&mut out);
    out
}

#[test]
fn the_magic_numbers_are_the_specifications() {
    let greeting = put(|o| Greeting { flags: HandshakeFlags(3) }.put(o));
    assert_eq!(greeting, b"NBDMAGICIHAVEOPT\0\x03");
    let option = put(|o| OptionHeader::put(Opt::GO, b"ab", o).unwrap());
    assert_eq!(option, b"IHAVEOPT\0\0\0\x07\0\0\0\x02ab");
    let reply = put(|o| OptionReply::put(Opt::LIST, Rep::ERR_UNSUP, &[], o).unwrap());
    assert_eq!(reply, [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 3, 0x80, 0, 0, 1, 0, 0, 0, 0]);
    let request =
        Request { flags: CommandFlags::FUA, command: Command::WRITE, cookie: 9, offset: 512, len: 4096 };
    let compact = put(|o| request.put(Headers::Structured, o).unwrap());
    assert_eq!(compact[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1]);
    assert_eq!(compact.len(), Request::COMPACT_LEN);
    let extended = put(|o| request.put(Headers::Extended, o).unwrap());
    assert_eq!(extended[..4], [0x21, 0xe4, 0x1c, 0x71]);
    assert_eq!(extended.len(), Request::EXTENDED_LEN);
    let simple = put(|o| SimpleReply { code: Code::EIO, cookie: 1 }.put(o));
    assert_eq!(simple, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1]);
    let chunk = Chunk { flags: ChunkFlags::DONE, kind: ChunkKind::ERROR, cookie: 2, offset: 3, len: 6 };
    assert_eq!(put(|o| chunk.put(Headers::Structured, o))[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1]);
    assert_eq!(put(|o| chunk.put(Headers::Extended, o))[..8], [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0x80, 1]);
}

#[test]
fn what_was_put_is_parsed_again() {
    let go = Go { name: "disk ä".into(), infos: vec![Info::BLOCK_SIZE, Info(99)] };
    assert_eq!(Go::parse(&put(|o| go.put(o).unwrap())).unwrap(), go);
    let query = MetaQuery { name: String::new(), queries: vec!["base:allocation".into(), "qemu:".into()] };
    assert_eq!(MetaQuery::parse(&put(|o| query.put(o).unwrap())).unwrap(), query);
    let listed = Listed { name: "a".into(), description: "words".into() };
    assert_eq!(Listed::parse(&put(|o| listed.put(o).unwrap())).unwrap(), listed);
    let context = MetaContext { id: 7, name: "base:allocation".into() };
    assert_eq!(MetaContext::parse(&put(|o| context.put(o).unwrap())).unwrap(), context);
    for info in [
        ExportInfo::Export { size: u64::MAX, flags: TransmissionFlags(0x7ff) },
        ExportInfo::Name("n".into()),
        ExportInfo::Description(String::new()),
        ExportInfo::BlockSize(BlockSize { minimum: 512, preferred: 4096, maximum: 1 << 25 }),
    ] {
        assert_eq!(ExportInfo::parse(&put(|o| info.put(o).unwrap())).unwrap(), info);
    }
    let filter = StatusFilter { len: 5, contexts: vec![1, 2] };
    assert_eq!(StatusFilter::parse(&put(|o| filter.put(o))).unwrap(), filter);
    for offset in [None, Some(77)] {
        let error = ErrorChunk { code: Code::ENOSPC, message: "full".into(), offset };
        assert_eq!(ErrorChunk::parse(error.kind(), &put(|o| error.put(o).unwrap())).unwrap(), error);
    }
    for headers in [Headers::Structured, Headers::Extended] {
        let extents = vec![StatusExtent { len: 9, status: 3 }, StatusExtent { len: 1, status: 0 }];
        let status = BlockStatus { context: 4, extents };
        let bytes = put(|o| status.put(headers, o).unwrap());
        assert_eq!(BlockStatus::parse(BlockStatus::kind(headers), &bytes).unwrap(), status);
        let chunk = Chunk { flags: ChunkFlags::NONE, kind: ChunkKind::NONE, cookie: 2, offset: 0, len: 6 };
        let bytes = put(|o| chunk.put(headers, o));
        let magic = bytes[..4].try_into().unwrap();
        assert_eq!(Reply::header_len(headers, magic).unwrap(), bytes.len());
        assert_eq!(Reply::parse(headers, &bytes).unwrap(), Reply::Chunk(chunk));
    }
    let reply = ExportNameReply { size: 3, flags: TransmissionFlags::HAS_FLAGS };
    let bytes = put(|o| reply.put(false, o));
    assert_eq!(bytes.len(), ExportNameReply::LEN + EXPORT_NAME_ZEROES);
    assert_eq!(ExportNameReply::parse(bytes.first_chunk().unwrap()).unwrap(), reply);
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let too_long = Request {
        flags: CommandFlags::NONE,
        command: Command::TRIM,
        cookie: 0,
        offset: 0,
        len: u64::from(u32::MAX) + 1,
    };
    assert_eq!(too_long.put(Headers::Simple, &mut Vec::new()).unwrap_err().kind(), Kind::Invalid);
    too_long.put(Headers::Extended, &mut Vec::new()).unwrap();
    for name in ["x".repeat(STRING_MAX + 1), "nul\0".into()] {
        let go = Go { name, infos: Vec::new() };
        assert_eq!(go.put(&mut Vec::new()).unwrap_err().kind(), Kind::Invalid);
    }
    let wide = BlockStatus { context: 0, extents: vec![StatusExtent { len: 1 << 40, status: 0 }] };
    assert!(wide.put(Headers::Structured, &mut Vec::new()).is_err());
    let empty = BlockStatus { context: 0, extents: Vec::new() };
    assert!(empty.put(Headers::Extended, &mut Vec::new()).is_err());
}

#[test]
fn what_breaks_the_rules_is_corrupt() {
    let corrupt = |r: chart::Result<()>| assert_eq!(r.unwrap_err().kind(), Kind::Corrupt);
    corrupt(ClientFlags::parse([0, 0, 0, 4]).map(drop));
    corrupt(Go::parse(b"\0\0\0\x05name\0\0").map(drop));
    corrupt(Go::parse(b"\0\0\0\x01n\0\x01").map(drop));
    corrupt(Go::parse(b"\0\0\0\x01n\0\0more").map(drop));
    corrupt(Go::parse(b"\0\0\0\x01\xff\0\0").map(drop));
    corrupt(Go::parse(b"\0\0\0\x01\0\0\0").map(drop));
    corrupt(MetaQuery::parse(b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0").map(drop));
    corrupt(ExportInfo::parse(b"\0\0\0\0").map(drop));
    corrupt(BlockStatus::parse(ChunkKind::BLOCK_STATUS, b"\0\0\0\0").map(drop));
    corrupt(BlockStatus::parse(ChunkKind::BLOCK_STATUS, b"\0\0\0\0\0\0\0\0\0\0\0\0").map(drop));
    corrupt(BlockStatus::parse(ChunkKind::BLOCK_STATUS_EXT, &[0, 0, 0, 0, 0, 0, 0, 2]).map(drop));
    corrupt(ErrorChunk::parse(ChunkKind::ERROR, b"\0\0\0\x05\0\xffshort").map(drop));
    corrupt(BlockSize { minimum: 3, preferred: 4096, maximum: 4096 }.check().map(drop));
    assert_eq!(ErrorChunk::parse(ChunkKind(0x8777), b"\0\0\0\x05\0\0anything").unwrap().code, Code::EIO);
}

#[test]
fn words_for_a_person_cannot_drive_a_terminal() {
    assert_eq!(OptionReply::message(b"a\x1b[2Jb\n"), "a [2Jb ");
    assert!(OptionReply::message(&[b'x'; 9000]).len() <= STRING_MAX);
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in any::<u16>()) {
        let _ = Go::parse(&bytes);
        let _ = MetaQuery::parse(&bytes);
        let _ = Listed::parse(&bytes);
        let _ = MetaContext::parse(&bytes);
        let _ = ExportInfo::parse(&bytes);
        let _ = StatusFilter::parse(&bytes);
        let _ = Hole::parse(&bytes);
        let _ = ErrorChunk::parse(ChunkKind(kind), &bytes);
        let _ = BlockStatus::parse(ChunkKind(kind), &bytes);
        for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
            if let Ok(request) = Request::parse(headers, &bytes) {
                prop_assert_eq!(put(|o| request.put(headers, o).unwrap()), bytes.clone());
            }
            let _ = Reply::parse(headers, &bytes);
        }
    }
}

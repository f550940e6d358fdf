use super::*;
use chart::Kind;
use proptest::prelude::*;

fn encoders() -> Vec<(Box<dyn Codec>, Encoder)> {
    vec![
        (Box::new(Deflate), Encoder::deflate(None).unwrap()),
        (Box::new(Zstd), Encoder::zstd(None).unwrap()),
        (Box::new(Deflate), Encoder::deflate(Some(9)).unwrap()),
        (Box::new(Zstd), Encoder::zstd(Some(19)).unwrap()),
    ]
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 ^ (i / 1000) as u8).collect()
}

#[test]
fn what_is_encoded_decodes_with_foreign_bytes_behind_it() {
    for (codec, mut encoder) in encoders() {
        for len in [512, 4096, 65536, 2 << 20] {
            let bytes = text(len);
            let mut out = vec![0xaa; len];
            let n = encoder.encode(&bytes, &mut out).unwrap().unwrap();
            assert!(n < len, "{} {len}", codec.name());
            let mut back = vec![1; len];
            codec.decode(&out, &mut back).unwrap();
            assert!(back == bytes, "{} {len}", codec.name());
            codec.decode(&out[..n], &mut back).unwrap();
            // A reader that wants less than there is gets it.
            codec.decode(&out[..n], &mut back[..len / 2]).unwrap();
        }
    }
}

#[test]
fn what_does_not_shrink_says_so() {
    let noise: Vec<u8> =
        (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i >> 3) as u8).collect();
    for (codec, mut encoder) in encoders() {
        assert_eq!(encoder.encode(&noise, &mut [0; 256]).unwrap(), None, "{}", codec.name());
        let mut out = vec![0; 8192];
        let n = encoder.encode(&noise, &mut out).unwrap().unwrap();
        let mut back = vec![0; 4096];
        codec.decode(&out[..n], &mut back).unwrap();
        assert!(back == noise);
    }
}

#[test]
fn what_ends_early_is_corrupt() {
    for (codec, mut encoder) in encoders() {
        let mut out = vec![0; 8192];
        let n = encoder.encode(&text(4096), &mut out).unwrap().unwrap();
        for cut in [0, 1, n / 2] {
            let e = codec.decode(&out[..cut], &mut [0; 4096]).unwrap_err();
            assert_eq!(e.kind(), Kind::Corrupt, "{} {cut}: {e}", codec.name());
        }
        let e = codec.decode(&out[..n], &mut [0; 4097]).unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt);
        // And the next one is decoded as if nothing had been.
        codec.decode(&out[..n], &mut [0; 4096]).unwrap();
    }
}

#[test]
fn a_window_too_large_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &text(1 << 20)).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(Zstd.decode(&frame, &mut vec![0; 1 << 20]).unwrap_err().kind(), Kind::Corrupt);
}

proptest! {
    #[test]
    fn hostile_bytes_are_an_error_or_bytes(noise in prop::collection::vec(any::<u8>(), 0..600), flip in 0usize..400) {
        for (codec, mut encoder) in encoders() {
            let mut back = vec![0; 4096];
            let _ = codec.decode(&noise, &mut back);
            let mut out = vec![0; 8192];
            let n = encoder.encode(&text(4096), &mut out).unwrap().unwrap();
            out[flip % n] ^= 1 << (flip % 8);
            let _ = codec.decode(&out[..n], &mut back);
        }
    }
}

#[test]
fn levels_that_do_not_exist_are_refused() {
    for (deflate, zstd) in [(-1, 0), (10, 23), (i32::MAX, i32::MIN)] {
        assert!(Encoder::deflate(Some(deflate)).is_err_and(|e| e.to_string().contains("0 to 9")));
        assert!(Encoder::zstd(Some(zstd)).is_err_and(|e| e.to_string().contains("1 to 22")));
    }
}

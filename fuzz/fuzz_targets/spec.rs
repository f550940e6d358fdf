//! SPEC: any text is read or refused; what is read can be written and reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::Spec;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = Spec::parse(OsStr::from_bytes(bytes)) else { return };
    // What can only be written as JSON must be UTF-8 to come back.
    let lossless = spec.format.is_none() && spec.options.is_empty() || std::str::from_utf8(bytes).is_ok();
    if lossless {
        assert_eq!(Spec::parse(spec.to_os_string()).ok(), Some(spec));
    }
});

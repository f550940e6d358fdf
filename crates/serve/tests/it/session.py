# What a client that says every word itself sees. Run by nbdsh; `uri` and `size` are given.
import errno
import os
import random

def connected(prepare=lambda h: None):
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.add_meta_context("qemu:allocation-depth")
    prepare(h)
    h.connect_uri(uri)
    return h

def fails(code, act):
    try:
        act()
    except nbd.Error as e:
        assert e.errnum == code, e
    else:
        assert False, "it succeeded"

# Every kind of handshake.
for prepare in (
    lambda h: None,
    lambda h: h.set_request_structured_replies(False),
    lambda h: h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE),
    lambda h: h.set_handshake_flags(0),
):
    h = connected(prepare)
    assert h.get_size() == size
    h.pwrite(b"words" * 100, 1000)
    assert h.pread(500, 1000) == b"words" * 100
    h.zero(500, 1000)
    assert h.pread(500, 1000) == bytes(500)
    h.shutdown()

# Options, one by one.
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
names = []
h.opt_list(lambda name, words: names.append(name))
assert names == ["disk", "other"], names
h.set_export_name("absent")
fails(errno.ENOENT, h.opt_info)
h.set_export_name("other")
h.opt_info()
assert h.get_size() == 1 << 20
contexts = []
h.opt_list_meta_context(contexts.append)
assert contexts == ["base:allocation", "qemu:allocation-depth"], contexts
h.add_meta_context("base:")
contexts.clear()
h.opt_list_meta_context(contexts.append)
assert contexts == ["base:allocation"], contexts
h.clear_meta_contexts()
h.set_export_name("disk")
h.add_meta_context("base:allocation")
h.add_meta_context("no:such")
h.opt_go()
assert h.can_meta_context("base:allocation") and not h.can_meta_context("no:such")
assert h.get_size() == size and h.get_protocol() == "newstyle-fixed"
h.shutdown()
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri)
h.opt_abort()

# A read comes in chunks, each byte once; with DF in one.
h = connected()
assert h.can_df() and h.can_multi_conn() and h.can_fua() and h.can_cache() and h.can_fast_zero()
h.zero(size, 0)
h.pwrite(b"a" * 65536, 65536)
h.pwrite(b"b" * 65536, 262144)
for flags in (0, nbd.CMD_FLAG_DF):
    chunks = []
    def chunk(part, offset, kind, error):
        chunks.append((offset, len(part), kind))
    whole = h.pread_structured(524288, 0, chunk, flags)
    assert whole == bytes(65536) + b"a" * 65536 + bytes(131072) + b"b" * 65536 + bytes(196608)
    ends = [(offset, offset + length) for offset, length, kind in sorted(chunks)]
    assert ends[0][0] == 0 and ends[-1][1] == 524288 and all(a[1] == b[0] for a, b in zip(ends, ends[1:])), ends
    if flags:
        assert len(chunks) == 1, chunks
    else:
        assert any(kind == nbd.READ_HOLE for _, _, kind in chunks), chunks

# Two contexts are told at once, each from the beginning of what was asked.
told = {}
def status(context, offset, entries, error):
    told.setdefault(context, []).append((offset, list(entries)))
h.block_status(524288, 0, status)
assert sorted(told) == ["base:allocation", "qemu:allocation-depth"], told
for entries in told.values():
    (offset, pairs), = entries
    assert offset == 0 and sum(pairs[::2]) >= 524288, told
allocation = told["base:allocation"][0][1]
assert allocation[2:4] == [65536, 0] and allocation[1] & nbd.STATE_ZERO, allocation
told.clear()
h.block_status(524288, 65536, status, nbd.CMD_FLAG_REQ_ONE)
assert all(len(entries[0][1]) == 2 and entries[0][1][0] <= 524288 for entries in told.values()), told

# What makes no sense is refused, and all goes on.
h.set_strict_mode(0)
fails(errno.EINVAL, lambda: h.pread(512, size))
fails(errno.EINVAL, lambda: h.pread(2, size - 1))
fails(errno.ENOSPC, lambda: h.pwrite(b"xx", size - 1))
fails(errno.ENOSPC, lambda: h.zero(2, size - 1))
fails(errno.EINVAL, lambda: h.trim(2, size - 1))
fails(errno.EINVAL, lambda: h.cache(2, size - 1))
fails(errno.EINVAL, lambda: h.block_status(2, size - 1, status))
fails(errno.EINVAL, lambda: h.trim(1, (1 << 63) - 1))
fails(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE))
fails(errno.EINVAL, lambda: h.pwrite(b"x", 0, nbd.CMD_FLAG_FAST_ZERO))
h.set_strict_mode(nbd.STRICT_MASK)
assert h.pread(1, 65536) == b"a"

# Every flag that makes sense.
h.pwrite(b"c" * 1000, 70000, nbd.CMD_FLAG_FUA)
h.zero(1000, 70000, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
assert h.pread(1000, 70000) == bytes(1000)
h.trim(65536, 262144, nbd.CMD_FLAG_FUA)
h.cache(65536, 65536)
try:
    h.zero(131072, 131072, nbd.CMD_FLAG_FAST_ZERO)
except nbd.Error as e:
    assert e.errnum == errno.ENOTSUP, e

# One connection sees what another was told is done, and its flush covers it.
other = connected()
h.pwrite(b"d" * 4096, 8192)
assert other.pread(4096, 8192) == b"d" * 4096
other.flush()
other.shutdown()

# Many requests at once, in any order, beside what a bytearray would hold.
random.seed(11)
model = bytearray(h.pread(1 << 20, 0))
for _ in range(30):
    under_way, places = [], []
    for _ in range(24):
        length = random.choice((1, 512, 4096, 5000, 70000))
        at = random.randrange((1 << 20) - length)
        if any(at < b and a < at + length for a, b in places):
            continue
        places.append((at, at + length))
        kind = random.randrange(4)
        if kind == 0:
            buffer = nbd.Buffer.from_bytearray(bytearray(os.urandom(length)))
            model[at:at + length] = buffer.to_bytearray()
            under_way.append((h.aio_pwrite(buffer, at), None, at, length))
        elif kind == 1:
            model[at:at + length] = bytes(length)
            under_way.append((h.aio_zero(length, at), None, at, length))
        else:
            buffer = nbd.Buffer(length)
            under_way.append((h.aio_pread(buffer, at), buffer, at, length))
    while h.aio_in_flight() > 0:
        h.poll(-1)
    for cookie, buffer, at, length in under_way:
        assert h.aio_command_completed(cookie)
        assert buffer is None or buffer.to_bytearray() == model[at:at + length], (at, length)
assert h.pread(1 << 20, 0) == model
h.shutdown()
print("all well")

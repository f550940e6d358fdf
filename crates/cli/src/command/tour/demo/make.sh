#!/bin/sh
# Makes demo.qcow2: a GPT with one ext4, small enough to live in the program, for `portolan tour`.
# Needs e2fsprogs, fdisk and a built portolan: make-demo.sh path/to/portolan
set -eu
portolan=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

mkdir -p root/etc root/home/ada root/var/log
printf 'Fair winds.\n' > root/etc/motd
printf 'lighthouse\n' > root/etc/hostname
printf '# Soundings\n\n12 fathoms at the bar, 7 over the reef.\n' > root/home/ada/soundings.md
chmod 600 root/home/ada/soundings.md
ln -s ../../etc/motd root/home/ada/motd
i=0
while [ $i -lt 6000 ]; do i=$((i + 1)); echo "watch $i: nothing in sight"; done > root/var/log/watch.log
ln root/var/log/watch.log root/home/ada/watch.log
find root -exec touch -h -d '2026-03-14 15:09:26Z' {} +

truncate -s 8M demo.raw
printf 'label: gpt\nlabel-id: 9a3f6c1e-1d5b-4c7a-8f21-5e0b7d2c4a66\nstart=2048, uuid=4c1d0b7e-52a9-4e39-9d37-0a6f3b8e1c55, name=root\n' | sfdisk -q demo.raw
E2FSPROGS_FAKE_TIME=1773500966 mkfs.ext4 -q -F -b 1024 -L lighthouse -U 6b1f7e02-93d4-4f0c-8a4d-2f9e1c7b5d11 \
    -E offset=1048576,hash_seed=6b1f7e02-93d4-4f0c-8a4d-2f9e1c7b5d11,root_owner=0:0 -N 128 -J size=1 -d root demo.raw 6144k
"$portolan" convert -c --level 19 -o compression_type=zstd,cluster_size=2048 -f raw demo.raw "$here/demo.qcow2" --force

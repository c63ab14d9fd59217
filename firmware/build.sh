#!/bin/sh
# Builds a disk image with edge inside: a boot partition, two root slots, data. docs/firmware.md says what it is.
#
# Nothing is mounted and no loop device is used: file systems are made from folders, partitions are written into a file.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"

usage() {
  cat <<'END'
firmware/build.sh --board vm|pi --wheels DIR --keyring FILE --version V --out DIR [options]

  --board vm|pi        a virtual machine with UEFI, or a Raspberry Pi 4 or 5
  --arch amd64|arm64   default: the Pi's arm64, the host's for a VM
  --wheels DIR         wheels of edge and of all it needs, for that architecture and the suite's Python
  --keyring FILE       certificate (PEM) of whoever signs image bundles
  --version V          of the image: three numbers
  --out DIR            disk.img, rootfs.ext4 and image.env go there
  --suite NAME         Debian's (default: bookworm)
  --slot-mib N         size of a root slot (default: 1024)
  --data-mib N         size of the data partition (default: 1024); it grows to the disk's end at the first boot
  --units DIR          edge's systemd units (default: those of the Ansible role)
  --cache DIR          keeps Debian's part between builds (default: DIR of --out)
  --console-login      root without a password on the serial console: for tests, never for a device
  --bad                an image whose slot never proves itself: for tests
END
}

die() {
  printf 'firmware: %s\n' "$1" >&2
  exit "${2-1}"
}
say() { printf 'firmware: %s\n' "$*" >&2; }

board='' arch='' wheels='' keyring='' version='' out='' suite=bookworm slot_mib=1024 data_mib=1024 cache=''
units=$here/../ansible/roles/edge/files
console_login=no bad=no
while [ $# -gt 0 ]; do
  case $1 in
    --console-login) console_login=yes ;;
    --bad) bad=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    --board | --arch | --wheels | --keyring | --version | --out | --suite | --slot-mib | --data-mib | --units | --cache)
      [ $# -ge 2 ] || die "$1 needs a value" 2
      case $1 in
        --board) board=$2 ;;
        --arch) arch=$2 ;;
        --wheels) wheels=$2 ;;
        --keyring) keyring=$2 ;;
        --version) version=$2 ;;
        --out) out=$2 ;;
        --suite) suite=$2 ;;
        --slot-mib) slot_mib=$2 ;;
        --data-mib) data_mib=$2 ;;
        --units) units=$2 ;;
        --cache) cache=$2 ;;
      esac
      shift
      ;;
    *)
      usage >&2
      die "unknown option $1" 2
      ;;
  esac
  shift
done

case $board in
  pi) arch=${arch:-arm64} ;;
  vm) arch=${arch:-$(dpkg --print-architecture)} ;;
  *) die '--board is vm or pi' 2 ;;
esac
case $board/$arch in
  vm/amd64) kernel=linux-image-cloud-amd64 efi=grub-efi-amd64-bin target=x86_64-efi loader=BOOTX64.EFI console=ttyS0 ;;
  vm/arm64) kernel=linux-image-cloud-arm64 efi=grub-efi-arm64-bin target=arm64-efi loader=BOOTAA64.EFI console=ttyAMA0 ;;
  pi/arm64) kernel=linux-image-arm64 efi='' target='' loader='' console=serial0 ;;
  *) die "there is no $board image for $arch" 2 ;;
esac
printf '%s' "$version" | grep -Eq '^[0-9]+\.[0-9]+\.[0-9]+$' || die '--version is three numbers, such as 1.0.0' 2
[ -n "$out" ] || die '--out is missing' 2
[ -f "$keyring" ] || die "--keyring: there is no file '$keyring'" 2
[ -n "$(find "$wheels" -maxdepth 1 -name 'edge-*.whl' 2>/dev/null)" ] || die "--wheels: '$wheels' holds no wheel of edge" 2
[ -f "$units/edge-agent.service" ] || die "--units: '$units' has no edge-agent.service" 2
[ "$(id -u)" -eq 0 ] || die 'building an image needs root'
for tool in mmdebstrap mkfs.ext4 mkfs.vfat mcopy sfdisk; do
  command -v "$tool" >/dev/null || die "$tool is missing: apt install mmdebstrap e2fsprogs dosfstools mtools fdisk"
done

mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd)
cache=${cache:-$out}
mkdir -p "$cache"
work=$(mktemp -d "$out/work.XXXXXX")
# Only what was made here; a foreign architecture's emulation may leave nothing mounted.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/root

# --- Debian's part, kept between builds

packages="systemd systemd-sysv systemd-timesyncd systemd-resolved udev dbus kmod iproute2 ca-certificates openssl
  initramfs-tools e2fsprogs dosfstools fdisk util-linux rauc rauc-service
  python3 python3-venv podman runc conmon catatonit netavark aardvark-dns iptables nftables $kernel $efi"
components=main
if [ "$board" = pi ]; then
  components=main,non-free-firmware
  packages="$packages raspi-firmware firmware-brcm80211 wpasupplicant"
else
  packages="$packages grub-common"
fi
# shellcheck disable=SC2086  # a list of names
list=$(printf '%s,' $packages)
stamp=$(printf '%s' "$suite $arch $components $list" | sha256sum | cut -c 1-16)
base=$cache/debian-$suite-$arch-$board-$stamp.tar
if ! [ -f "$base" ]; then
  say "fetching Debian $suite for $arch"
  mmdebstrap --quiet --variant=minbase --architectures="$arch" --components="$components" --include="${list%,}" \
    "$suite" "$base.new" || die 'mmdebstrap failed; its last words are above'
  mv "$base.new" "$base"
fi
mkdir "$root"
tar --extract --file "$base" --directory "$root" --numeric-owner --exclude './dev/*'

# --- edge, and what makes this a device

say 'putting edge into it'
mkdir -p "$root/opt/edge/versions" "$root/usr/lib/edge" "$root/etc/rauc" "$root/boot/firmware" "$root/data" \
  "$root/etc/edge" "$root/var/lib/edge" "$root/var/lib/containers" "$work/wheels"
edge_version=$(basename "$(find "$wheels" -maxdepth 1 -name 'edge-*.whl' | head -n 1)" | cut -d - -f 2)
mkdir -p "$root/tmp/wheels"
cp "$wheels"/*.whl "$root/tmp/wheels/"
venv=/opt/edge/versions/$edge_version
chroot "$root" python3 -m venv "$venv" || die 'the venv could not be made (a foreign architecture needs qemu-user-static)'
chroot "$root" sh -c "$venv/bin/python -m pip install --quiet --no-index --no-deps --no-cache-dir \
  --disable-pip-version-check /tmp/wheels/*.whl && $venv/bin/python -c 'import edge.agent.app'" ||
  die 'edge could not be installed'
rm -rf "$root/tmp/wheels"
ln -s "versions/$edge_version" "$root/opt/edge/current"
ln -s "versions/$edge_version" "$root/opt/edge/good"
ln -sf /opt/edge/current/bin/edge "$root/usr/bin/edge"

install -m 755 "$here"/image/lib/* "$root/usr/lib/edge/"
install -m 644 "$here"/image/units/* "$units"/*.service "$units"/*.path "$root/etc/systemd/system/"
printf '%s\n' "$version" >"$root/usr/lib/edge/image-version"
if [ "$bad" = yes ]; then touch "$root/usr/lib/edge/bad-on-purpose"; fi
install -m 644 "$keyring" "$root/etc/rauc/keyring.pem"
compatible=edge-$board-$arch

cat >"$root/etc/fstab" <<'END'
PARTLABEL=boot  /boot/firmware       vfat  umask=0077,sync,noatime  0  2
PARTLABEL=data  /data                ext4  noatime,x-systemd.growfs  0  2
/data/etc-edge    /etc/edge            none  bind  0  0
/data/edge        /var/lib/edge        none  bind  0  0
/data/containers  /var/lib/containers  none  bind  0  0
END

{
  printf '[system]\ncompatible=%s\nbundle-formats=verity\nstatusfile=/data/firmware/rauc.status\n' "$compatible"
  if [ "$board" = pi ]; then
    printf 'bootloader=custom\n'
  else
    printf 'bootloader=grub\ngrubenv=/boot/firmware/EFI/BOOT/grubenv\n'
  fi
  printf '[keyring]\npath=/etc/rauc/keyring.pem\ncheck-purpose=codesign\n[handlers]\npre-install=/usr/lib/edge/pre-install\n'
  if [ "$board" = pi ]; then printf 'bootloader-custom-backend=/usr/lib/edge/rauc-tryboot\n'; fi
  number=0
  for slot in A B; do
    letter=$(printf '%s' "$slot" | tr AB ab)
    printf '[slot.rootfs.%s]\ndevice=/dev/disk/by-partlabel/root-%s\ntype=ext4\nbootname=%s\n' "$number" "$letter" "$slot"
    if [ "$board" = pi ]; then
      printf '[slot.bootfs.%s]\ndevice=/dev/disk/by-partlabel/boot-%s\ntype=vfat\nparent=rootfs.%s\n' \
        "$number" "$letter" "$number"
    fi
    number=$((number + 1))
  done
} >"$root/etc/rauc/system.conf"

# dm-verity and loop for RAUC's bundles, fuse for the image service.
printf 'loop\ndm_verity\nfuse\noverlay\n' >"$root/etc/modules-load.d/edge.conf"
# A slow card is no failure; an emulated machine is slower still.
patience=5min
if [ "$console_login" = yes ]; then patience=30min; fi
printf '[Manager]\nRuntimeWatchdogSec=15\nRebootWatchdogSec=2min\nDefaultTimeoutStartSec=%s\nDefaultDeviceTimeoutSec=%s\n' \
  "$patience" "$patience" >"$work/manager.conf"
install -D -m 644 "$work/manager.conf" "$root/etc/systemd/system.conf.d/edge.conf"
# Nobody is there for a shell: the next boot may be of the other slot.
for unit in emergency rescue; do
  mkdir -p "$root/etc/systemd/system/$unit.service.d"
  printf '[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/sh -c "sleep 30; exec systemctl --force reboot"\n' \
    >"$root/etc/systemd/system/$unit.service.d/reboot.conf"
done
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >"$work/journal.conf"
install -D -m 644 "$work/journal.conf" "$root/etc/systemd/journald.conf.d/edge.conf"
printf '[Match]\nName=en* eth* wl*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-edge.network"
# Podman looks here for images that have not arrived; the agent's own store is on the data partition by the bind above.
printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n[storage.options]\nadditionalimagestores = ["/var/lib/edge/images/store"]\n' \
  >"$root/etc/containers/storage.conf"
echo edge >"$root/etc/hostname"
: >"$root/etc/machine-id"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
for unit in systemd-networkd systemd-resolved systemd-timesyncd edge-agent edge-images edge-first-boot edge-slot-check; do
  systemctl --quiet --root="$root" enable "$unit.service"
done
systemctl --quiet --root="$root" enable podman.socket edge-update.path
if [ "$console_login" = yes ]; then
  mkdir -p "$root/etc/systemd/system/serial-getty@$console.service.d"
  printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 - vt220\n' \
    >"$root/etc/systemd/system/serial-getty@$console.service.d/login.conf"
fi

# --- file systems

made_ext4() { # FILE MIB LABEL FOLDER
  rm -f "$1"
  truncate --size "${2}M" "$1"
  mkfs.ext4 -q -F -L "$3" -d "$4" -E lazy_itable_init=0,lazy_journal_init=0 "$1"
}
made_vfat() { # FILE MIB LABEL FOLDER
  rm -f "$1"
  truncate --size "${2}M" "$1"
  mkfs.vfat -F 32 -n "$3" "$1" >/dev/null
  mcopy -s -Q -i "$1" "$4"/* ::/
}

boot=$work/boot
mkdir -p "$boot/edge" "$work/data/etc-edge" "$work/data/edge" "$work/data/containers" "$work/data/firmware"
cp "$here/image/boot-readme.txt" "$boot/edge/README.txt"
if [ "$board" = pi ]; then
  cp "$here/image/boot-pi/autoboot.txt" "$boot/"
  for slot in A B; do
    letter=$(printf '%s' "$slot" | tr AB ab)
    pi=$work/boot-$letter
    mkdir "$pi"
    # The Pi's own firmware, the device trees of Debian's kernel, and the kernel: all of one slot.
    cp -r "$root"/usr/lib/raspi-firmware/* "$pi/"
    cp "$root"/usr/lib/linux-image-*/broadcom/bcm2711*.dtb "$root"/usr/lib/linux-image-*/broadcom/bcm2712*.dtb "$pi/" 2>/dev/null ||
      cp "$root"/usr/lib/linux-image-*/broadcom/bcm2711*.dtb "$pi/"
    cp "$root/vmlinuz" "$pi/vmlinuz"
    cp "$root/initrd.img" "$pi/initrd.img"
    cp "$here/image/boot-pi/config.txt" "$pi/"
    sed "s|@LABEL@|root-$letter|; s|@SLOT@|$slot|; s| @CMDLINE@||" "$here/image/boot-pi/cmdline.txt" >"$pi/cmdline.txt"
    made_vfat "$out/boot-$letter.vfat" 256 "BOOT-$slot" "$pi"
  done
else
  mkdir -p "$boot/EFI/BOOT"
  words="console=$console"
  # Emulated machines: each line on the console costs them milliseconds, and mitigations cost them dearly.
  if [ "$console_login" = yes ]; then
    words="$words loglevel=4 systemd.show_status=0 mitigations=off audit=0 no_timer_check"
  fi
  sed "s|@CMDLINE@|$words|" "$here/image/boot-vm/grub.cfg" >"$boot/EFI/BOOT/grub.cfg"
  chroot "$root" grub-mkimage -O "$target" -p /EFI/BOOT -o /tmp/loader.efi \
    part_gpt fat ext2 normal linux loadenv test echo search configfile regexp boot reboot
  mv "$root/tmp/loader.efi" "$boot/EFI/BOOT/$loader"
  chroot "$root" sh -c 'grub-editenv /tmp/grubenv create &&
    grub-editenv /tmp/grubenv set ORDER="A B" A_OK=1 B_OK=0 A_TRY=0 B_TRY=0'
  mv "$root/tmp/grubenv" "$boot/EFI/BOOT/grubenv"
fi

say 'making file systems'
made_ext4 "$out/rootfs.ext4" "$slot_mib" root "$root"
made_ext4 "$work/data.ext4" "$data_mib" data "$work/data"
made_vfat "$work/boot.vfat" 128 EDGE-BOOT "$boot"

# --- the disk

esp=C12A7328-F81F-11D2-BA4B-00A0C93EC93B # a FAT that a firmware looks at
linux=0FC63DAF-8483-4772-8E79-3D69D8477DE4
disk=$out/disk.img
rm -f "$disk"
if [ "$board" = pi ]; then pi_mib=512; else pi_mib=0; fi
truncate --size "$((1 + 128 + pi_mib + 2 * slot_mib + data_mib + 1))M" "$disk"
{
  printf 'label: gpt\nfirst-lba: 2048\n'
  printf 'size=128MiB, type=%s, name=boot\n' "$esp"
  if [ "$board" = pi ]; then
    printf 'size=256MiB, type=%s, name=boot-a\nsize=256MiB, type=%s, name=boot-b\n' "$esp" "$esp"
  fi
  printf 'size=%sMiB, type=%s, name=root-a\nsize=%sMiB, type=%s, name=root-b\nsize=%sMiB, type=%s, name=data\n' \
    "$slot_mib" "$linux" "$slot_mib" "$linux" "$data_mib" "$linux"
} | sfdisk --quiet "$disk"
at=1
place() { # FILE MIB; without a file the place stays empty
  if [ -n "$1" ]; then dd if="$1" of="$disk" bs=1M seek="$at" conv=notrunc,sparse status=none; fi
  at=$((at + $2))
}
place "$work/boot.vfat" 128
if [ "$board" = pi ]; then
  place "$out/boot-a.vfat" 256
  place "$out/boot-b.vfat" 256
fi
place "$out/rootfs.ext4" "$slot_mib"
place '' "$slot_mib"
place "$work/data.ext4" "$data_mib"

printf 'COMPATIBLE=%s\nVERSION=%s\nEDGE_VERSION=%s\n' "$compatible" "$version" "$edge_version" >"$out/image.env"
say "done: $disk ($compatible, image $version, edge $edge_version)"

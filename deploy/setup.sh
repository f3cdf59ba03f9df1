#!/bin/sh
# Sets up one checkout: what `make setup` runs. Touches .venv, the cache folder and apt, nothing else; idempotent.
#   setup.sh run   what the controller needs on a router
#   setup.sh dev   and the tools that check it
#   setup.sh lab   and what the lab needs to build and boot a guest
#   setup.sh xdp   what compiles the XDP program that steers SAs to their CPUs (the lab has it, too)
set -eu
what=${1:-run}
cd "$(dirname "$0")/.."

die() { echo "setup: $*" >&2; exit 1; }
command -v apt-get >/dev/null || die "this is not a Debian system (no apt-get): install python3-venv and python3-nftables by hand"

packages="python3 python3-venv python3-nftables"
[ "$what" = lab ] && packages="$packages mmdebstrap debian-archive-keyring qemu-system-x86 busybox-static cpio e2fsprogs kmod xz-utils zstd"
case $what in lab | xdp) packages="$packages clang libbpf-dev libbpf1 ethtool" ;; esac
# What the tests look at pages with, and make certificates with.
[ "$what" = lab ] && packages="$packages chromium openssl"
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing, and neither root nor sudo is at hand:$missing"
        as_root=sudo
    fi
    echo "setup: installing$missing"
    log=$(mktemp)
    # One update and one install, quiet unless they fail. env: sudo drops the caller's environment.
    { $as_root apt-get -qq update || echo "setup: apt-get update complained; going on with the lists at hand"
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing
    } >"$log" 2>&1 </dev/null || { tail -n 20 "$log" >&2; die "apt-get could not install:$missing"; }
    rm -f "$log"
fi

# Prometheus and promtool, for the tests: unpacked and not installed, because the package starts a server on this machine.
tools=${FLOWFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flowfast}/tools
if [ "$what" = lab ] && ! command -v promtool >/dev/null && ! [ -x "$tools/usr/bin/promtool" ]; then
    echo "setup: unpacking prometheus into $tools"
    mkdir -p "$tools"
    fetched=$(mktemp -d)
    (cd "$fetched" && apt-get -qq download prometheus && dpkg-deb -x prometheus_*.deb "$tools") >"$fetched/log" 2>&1 ||
        { tail -n 5 "$fetched/log" >&2; die "Debian's package prometheus could not be fetched"; }
    rm -rf "$fetched"
fi

# Debian's own python: the only one that sees Debian's python3-nftables.
python=/usr/bin/python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11: Debian 12 or newer is needed"

extras=""
case $what in dev | lab) extras="[dev]" ;; esac
stamp=.venv/.flowfast-setup
want="$extras $("$python" -V) $(cksum <pyproject.toml)"
case "$(cat "$stamp" 2>/dev/null || true)" in
    "$want") ;;
    "[dev]${want#"$extras"}") ;; # more is installed than was asked for
    *)
        "$python" -m venv --system-site-packages .venv
        .venv/bin/pip --disable-pip-version-check --quiet install --editable ".$extras" ||
            die "pip could not install flowfast's dependencies: see the lines above"
        echo "$want" >"$stamp"
        ;;
esac

case $what in lab | xdp)
    for source in flowfast/bpf/*.bpf.c; do
        object=${source%.c}.o
        [ "$object" -nt "$source" ] && continue
        # -g: what libbpf makes maps of. The second folder has asm/types.h, which linux/types.h wants.
        clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror "-I/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object.new"
        mv "$object.new" "$object"
    done ;;
esac

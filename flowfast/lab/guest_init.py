"""The guest's first program: two short shell scripts, packed into the machine's part of the initrd.

No systemd: it would take ten times as long to boot as all the rest. Everything is a shell script because nothing is
there yet to run anything else.
"""

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from flowfast.lab.cpio import Entry, archive

NO_MODULES: Mapping[str, bytes] = MappingProxyType({})
PORTS = ("stdout", "stderr", "control")
"""Names of the virtio-serial ports. On "control" the guest says "started" and then "exit N"."""

FSTAB = """\
run /root/run tmpfs mode=755
tmp /root/tmp tmpfs mode=1777
devpts /dev/pts devpts gid=5,mode=620,ptmxmode=666
shm /dev/shm tmpfs mode=1777
cgroup /sys/fs/cgroup cgroup2 defaults
bpf /sys/fs/bpf bpf defaults
tracefs /sys/kernel/tracing tracefs defaults
debugfs /sys/kernel/debug debugfs defaults
src /lower/src 9p trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro
src /root/src overlay lowerdir=/lower/src,upperdir=/upper/src,workdir=/upper/srcwork
pycache /root/pycache/src 9p trans=virtio,version=9p2000.L,msize=512000,cache=mmap
"""

SHARE = "share /root/share 9p trans=virtio,version=9p2000.L,msize=512000,cache=none\n"

INIT = """\
#!/bin/busybox sh
# In the first root: load what reaches the real one, lay a RAM disk over it, so that /etc and /var can be written, and
# mount there what systemd would have. One busybox process for many steps: each exec costs 10 ms under emulation.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t ext4 -o ro,noatime /dev/vda /lower
$b mount -t tmpfs -o size=75% upper /upper
$b mkdir /upper/root /upper/work /upper/src /upper/srcwork /dev/pts /dev/shm
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work root /root
$b mount -a
for folder in dev proc sys; do $b mount --move /$folder /root/$folder; done
$b mkdir /root/run/netns /root/run/lock /root/run/lab /root/run/bpf
$b cp /lab/* /bin/busybox /root/run/lab/
exec $b switch_root /root /run/lab/busybox sh /run/lab/main
"""

MAIN = """\
# In the real root, as PID 1: run the command, tell its exit code, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 PYTHONPYCACHEPREFIX=/pycache
b=/run/lab/busybox
$b ln -s /proc/self/fd /dev/fd
$b ln -s fd/0 /dev/stdin
$b ln -s fd/1 /dev/stdout
$b ln -s fd/2 /dev/stderr
$b ip link set lo up
# Where `ip netns exec`, which lays another /sys over this one, leaves it to be found.
$b mount --bind /sys/fs/bpf /run/bpf
echo flowfast > /proc/sys/kernel/hostname
for port in /sys/class/virtio-ports/*; do
    read -r name < $port/name && eval $name=/dev/${port##*/}
done
exec 3> $control
cd /src
echo started >&3
. /run/lab/command
echo exit $code >&3
sync
echo o > /proc/sysrq-trigger
sleep 60
"""

EXEC = """\
# The ports can be opened once and are no files: between them and the command stand pipes, which every program knows.
# env, because this shell would run busybox's own idea of `sh` or `ip`.
$b mkfifo /run/lab/out /run/lab/err
$b cat < /run/lab/out > $stdout & out=$!
$b cat < /run/lab/err > $stderr & err=$!
/usr/bin/env -- {command} < /dev/null > /run/lab/out 2> /run/lab/err 3>&-
code=$?
# What it left running would keep the pipes open.
for process in /proc/[0-9]*; do
    pid=${{process#/proc/}}
    case $pid in 1|$out|$err) ;; *) kill -9 $pid 2>/dev/null ;; esac
done
wait $out $err
"""

SHELL = """\
export TERM={term}
# The size after the console is open: opening it sets what QEMU knows, which is nothing.
$b setsid -c $b sh -c {session} < /dev/hvc0 > /dev/hvc0 2>&1 3>&-
code=$?
"""


def exec_script(argv: Sequence[str]) -> str:
    """Runs `argv` with its output on the two ports."""
    return EXEC.format(command=shlex.join(argv))


def shell_script(argv: Sequence[str], rows: int, columns: int, term: str) -> str:
    """Runs `argv` on the console that is the user's terminal."""
    session = f"/run/lab/busybox stty rows {rows} cols {columns}; exec /usr/bin/env -- {shlex.join(argv)}"
    return SHELL.format(term=shlex.quote(term), session=shlex.quote(session))


def first_files(command: str, share: bool, modules: Mapping[str, bytes] = NO_MODULES) -> bytes:
    """The machine's part of the initrd: /init and /lab with the second script, the command to run, and .ko files that
    may be loaded: insmod /run/lab/NAME.ko."""
    fstab = FSTAB + SHARE if share else FSTAB
    return archive(
        [
            Entry("init", INIT.encode(), executable=True),
            Entry("lab"),
            Entry("lab/main", MAIN.encode()),
            Entry("lab/command", command.encode()),
            *(Entry(f"lab/{name}.ko", module) for name, module in modules.items()),
            Entry("etc"),
            Entry("etc/fstab", fstab.encode()),
        ]
    )

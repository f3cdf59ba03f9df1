"""The guest's first program: two short shell scripts, packed into the machine's part of the initrd.

No systemd: it would take ten times as long to boot as all the rest. Everything is a shell script because nothing is
there yet to run anything else.
"""

import shlex
from collections.abc import Sequence

from flowfast.lab.cpio import Entry, archive

PORTS = ("stdout", "stderr", "control")
"""Names of the virtio-serial ports. On "control" the guest says "started" and then "exit N"."""

INIT = """\
#!/bin/busybox sh
# In the first root: load what reaches the real one, and lay a RAM disk over it, so that /etc and /var can be written.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t ext4 -o ro,noatime /dev/vda /lower
$b mount -t tmpfs -o size=75% upper /upper
$b mkdir /upper/root /upper/work /upper/src /upper/srcwork
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work root /root
for folder in dev proc sys; do $b mount --move /$folder /root/$folder; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro src /lower/src
$b mount -t overlay -o lowerdir=/lower/src,upperdir=/upper/src,workdir=/upper/srcwork src /root/src
$b mount -t tmpfs run /root/run
$b mkdir /root/run/lab
$b cp /lab/* /root/run/lab/
exec $b switch_root /root /run/lab/main
"""

MAIN = """\
#!/bin/sh
# In the real root, as PID 1: what systemd would have mounted, then the command, then its exit code.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=${TERM:-linux} PYTHONPYCACHEPREFIX=/pycache
mkdir -p /run/netns /run/lock /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap pycache /pycache/src
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share /share 2>/dev/null
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
hostname -F /etc/hostname
ip link set lo up
[ -d /sys/bus/virtio/drivers/virtio_net ] || ! grep -qs . /run/lab/nics || modprobe -a virtio_net

for port in /sys/class/virtio-ports/*; do
    read -r name < $port/name
    ln -s /dev/${port##*/} /run/lab/$name
done
exec 3> /run/lab/control
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
mkfifo /run/lab/out /run/lab/err
cat < /run/lab/out > /run/lab/stdout & out=$!
cat < /run/lab/err > /run/lab/stderr & err=$!
{command} < /dev/null > /run/lab/out 2> /run/lab/err 3>&-
code=$?
# What it left running would keep the pipes open.
for process in /proc/[0-9]*; do
    pid=${{process#/proc/}}
    case $pid in 1|$out|$err) ;; *) kill -9 $pid 2>/dev/null ;; esac
done
wait $out $err
"""

SHELL = """\
stty -F /dev/hvc0 rows {rows} cols {columns}
TERM={term} setsid -c {command} < /dev/hvc0 > /dev/hvc0 2>&1 3>&-
code=$?
"""


def exec_script(argv: Sequence[str]) -> str:
    """Runs `argv` with its output on the two ports."""
    return EXEC.format(command=shlex.join(argv))


def shell_script(argv: Sequence[str], rows: int, columns: int, term: str) -> str:
    """Runs `argv` on the console that is the user's terminal."""
    return SHELL.format(command=shlex.join(argv), rows=rows, columns=columns, term=shlex.quote(term))


def first_files(command: str, nics: int) -> bytes:
    """The machine's part of the initrd: /init and /lab with the second script and the command to run."""
    return archive(
        [
            Entry("init", INIT.encode(), executable=True),
            Entry("lab"),
            Entry("lab/main", MAIN.encode(), executable=True),
            Entry("lab/command", command.encode()),
            Entry("lab/nics", b"x" * nics),
        ]
    )

"""libbpf through ctypes: objects, programs, maps. iproute2 brings the library with it on every Debian router.

Only what flowfast calls, and with the errno of every failure: libbpf's own words go nowhere, they are for compilers.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from flowfast.model.errors import KernelError, Unavailable

OBJECTS = Path(__file__).resolve().parents[1] / "bpf"
"""Where `make setup-xdp` compiles the programs to."""

_INFO = 256  # bytes of struct bpf_prog_info and bpf_map_info (linux/bpf.h) that we ask for; both grow at their ends
_PROG_MAPS = Struct("=52xIQ16s")  # nr_map_ids, map_ids, name
_MAP_NAME = Struct("=24x16s")
_PROG_TYPE_XDP = 6
_LINK_XDP = 37  # BPF_XDP of enum bpf_attach_type
_LINK_INFO = Struct("=8xI4xI")  # struct bpf_link_info of an XDP link: prog_id, xdp.ifindex
_IF_NOEXIST, _GENERIC, _NATIVE = 1 << 0, 1 << 1, 1 << 2  # XDP_FLAGS_* of linux/if_link.h


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts (tools/lib/bpf/bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _LinkCreate(ctypes.Structure):
    """The beginning of struct bpf_link_create_opts (tools/lib/bpf/bpf.h)."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("padding", ctypes.c_uint32))


@cache
def _lib() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as missing:
        raise Unavailable(f"libbpf: {missing} (apt install libbpf1)") from missing
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, (text, pointer)),
        ("bpf_object__find_map_by_name", pointer, (pointer, text)),
        ("bpf_object__find_program_by_name", pointer, (pointer, text)),
        ("bpf_object__next_program", pointer, (pointer, pointer)),
        ("bpf_object__load", ctypes.c_int, (pointer,)),
        ("bpf_object__close", None, (pointer,)),
        ("bpf_program__fd", ctypes.c_int, (pointer,)),
        ("bpf_program__name", text, (pointer,)),
        ("bpf_program__attach", pointer, (pointer,)),
        ("bpf_link__destroy", ctypes.c_int, (pointer,)),
        ("bpf_program__set_autoload", ctypes.c_int, (pointer, ctypes.c_bool)),
        ("bpf_map__fd", ctypes.c_int, (pointer,)),
        ("bpf_map__set_max_entries", ctypes.c_int, (pointer, ctypes.c_uint32)),
        ("bpf_prog_get_fd_by_id", ctypes.c_int, (ctypes.c_uint32,)),
        ("bpf_map_get_fd_by_id", ctypes.c_int, (ctypes.c_uint32,)),
        ("bpf_obj_get_info_by_fd", ctypes.c_int, (ctypes.c_int, pointer, pointer)),
        ("bpf_map_update_elem", ctypes.c_int, (ctypes.c_int, text, text, ctypes.c_uint64)),
        ("bpf_map_lookup_elem", ctypes.c_int, (ctypes.c_int, text, pointer)),
        ("bpf_map_delete_elem", ctypes.c_int, (ctypes.c_int, text)),
        ("bpf_map_get_next_key", ctypes.c_int, (ctypes.c_int, text, pointer)),
        ("bpf_xdp_attach", ctypes.c_int, (ctypes.c_int, ctypes.c_int, ctypes.c_uint32, pointer)),
        ("bpf_xdp_query_id", ctypes.c_int, (ctypes.c_int, ctypes.c_int, pointer)),
        ("bpf_prog_load", ctypes.c_int, (ctypes.c_int, text, text, text, ctypes.c_size_t, pointer)),
        ("bpf_prog_test_run_opts", ctypes.c_int, (ctypes.c_int, pointer)),
        ("bpf_link_create", ctypes.c_int, (ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer)),
        ("bpf_link_detach", ctypes.c_int, (ctypes.c_int,)),
        ("bpf_obj_pin", ctypes.c_int, (ctypes.c_int, text)),
        ("bpf_obj_get", ctypes.c_int, (text,)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(None)
    return lib


def _checked(result: int, what: str) -> int:
    """libbpf 1.0 returns -errno itself."""
    if result < 0:
        raise KernelError(f"{what}: {os.strerror(-result)}", -result)
    return result


def possible_cpus() -> int:
    """How many CPUs the machine can ever have: the width of a per-CPU map's value."""
    return _checked(int(_lib().libbpf_num_possible_cpus()), "number of possible CPUs")


class Map(NamedTuple):
    """A map by its descriptor."""

    fd: int
    name: str

    def update(self, key: bytes, value: bytes) -> None:
        """Sets one element. Raises KernelError."""
        _checked(_lib().bpf_map_update_elem(self.fd, key, value, 0), f"bpf map {self.name}")

    def delete(self, key: bytes) -> None:
        """Removes one element; none is no error."""
        result = _lib().bpf_map_delete_elem(self.fd, key)
        if result != -errno.ENOENT:
            _checked(result, f"bpf map {self.name}")

    def get(self, key: bytes, size: int) -> bytes | None:
        """The element's value of `size` bytes (those of all possible CPUs for a per-CPU map); None if there is none."""
        value = ctypes.create_string_buffer(size)
        result = _lib().bpf_map_lookup_elem(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        _checked(result, f"bpf map {self.name}")
        return value.raw

    def keys(self, size: int) -> list[bytes]:
        """All keys, of `size` bytes each."""
        found: list[bytes] = []
        key, after = None, ctypes.create_string_buffer(size)
        while _lib().bpf_map_get_next_key(self.fd, key, after) == 0:
            key = after.raw
            found.append(key)
        return found


class Program(NamedTuple):
    """A loaded program by its descriptor."""

    fd: int
    name: str

    def run(self, packet: bytes, repeat: int = 1) -> tuple[int, int]:
        """BPF_PROG_TEST_RUN: (verdict, nanoseconds a run). The packet is not sent anywhere. Raises KernelError."""
        options = _TestRun(sz=ctypes.sizeof(_TestRun), data_size_in=len(packet), repeat=repeat)
        options.data_in = ctypes.cast(ctypes.c_char_p(packet), ctypes.c_void_p)
        _checked(_lib().bpf_prog_test_run_opts(self.fd, ctypes.byref(options)), f"test run of {self.name}")
        return options.retval, options.duration


class Loaded:
    """An object file in the kernel, for as long as it is not closed; what is attached to a device stays there."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._links: list[int] = []

    def map(self, name: str) -> Map:
        """The map of that name."""
        return Map(_lib().bpf_map__fd(_lib().bpf_object__find_map_by_name(self._handle, name.encode())), name)

    def program(self, name: str) -> Program:
        """The program of that name."""
        found = _lib().bpf_object__find_program_by_name(self._handle, name.encode())
        return Program(_lib().bpf_program__fd(found), name)

    def attach(self, name: str) -> None:
        """Attaches a tracing program to the function that its section names, until close(). Raises KernelError."""
        link = _lib().bpf_program__attach(_lib().bpf_object__find_program_by_name(self._handle, name.encode()))
        if not link:
            raise KernelError(f"attaching {name}: {os.strerror(ctypes.get_errno())}", ctypes.get_errno())
        self._links.append(link)

    def close(self) -> None:
        """Lets go of it."""
        for link in self._links:
            _lib().bpf_link__destroy(link)
        _lib().bpf_object__close(self._handle)


@contextmanager
def loaded(name: str, *, only: str | None = None, entries: dict[str, int] | None = None) -> Iterator[Loaded]:
    """The object `name` while the context lasts (see load())."""
    with closing(load(name, only=only, entries=entries)) as held:
        yield held


def load(name: str, *, only: str | None = None, entries: dict[str, int] | None = None) -> Loaded:
    """Loads an object of OBJECTS: all its programs, or one; `entries` sizes maps.

    Raises Unavailable where it was not compiled, KernelError where the kernel refuses it.
    """
    lib, path = _lib(), OBJECTS / f"{name}.bpf.o"
    if not path.exists():
        raise Unavailable(f"{path.name} is not compiled (make setup-xdp: it needs clang)")
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        raise KernelError(f"{path.name}: {os.strerror(ctypes.get_errno())}", ctypes.get_errno())
    held = Loaded(handle)
    try:
        for each, count in (entries or {}).items():
            lib.bpf_map__set_max_entries(lib.bpf_object__find_map_by_name(handle, each.encode()), count)
        program = lib.bpf_object__next_program(handle, None)
        while program:
            lib.bpf_program__set_autoload(program, only in (None, lib.bpf_program__name(program).decode()))
            program = lib.bpf_object__next_program(handle, program)
        _checked(lib.bpf_object__load(handle), f"{path.name}: the kernel refuses it")
    except BaseException:
        held.close()
        raise
    return held


# --- what is attached to devices ------------------------------------------------------------------------------------


def load_xdp(name: str, instructions: bytes) -> Program:
    """An XDP program from its instructions, without maps; close it by closing_program(). Raises KernelError."""
    count = len(instructions) // 8
    fd = _lib().bpf_prog_load(_PROG_TYPE_XDP, name.encode(), b"GPL", instructions, count, None)
    return Program(_checked(fd, f"XDP program {name}"), name)


@contextmanager
def closing_program(program: Program) -> Iterator[Program]:
    """The program while the context lasts; on a device it stays."""
    try:
        yield program
    finally:
        os.close(program.fd)


class Attached(NamedTuple):
    """An XDP program on a device. `generic`: it runs behind the driver, on packets that are the stack's already."""

    name: str
    maps: dict[str, Map]
    generic: bool


def attach_xdp(ifindex: int, program: Program | None, *, replace: bool = False, generic: bool = False) -> None:
    """XDP on a device, native or generic, or (None) none of that mode any more.

    Raises KernelError: EBUSY where another's program is there already, EOPNOTSUPP where the driver has no native XDP.
    """
    flags = (_GENERIC if generic else _NATIVE) | (0 if program is None or replace else _IF_NOEXIST)
    fd = -1 if program is None else program.fd
    _checked(_lib().bpf_xdp_attach(ifindex, fd, flags, None), f"XDP on device {ifindex}")


def pin_xdp(ifindex: int, program: Program, pin: Path) -> None:
    """Native XDP on a device by a link that lives as long as the file `pin` of a bpffs does: no netlink request takes
    it off or replaces it (dev_xdp_attach, net/core/dev.c, since 5.9). Raises KernelError."""
    options = _LinkCreate(sz=ctypes.sizeof(_LinkCreate), flags=_NATIVE)
    what = f"XDP link to device {ifindex}"
    link = _checked(_lib().bpf_link_create(program.fd, ifindex, _LINK_XDP, ctypes.byref(options)), what)
    try:
        _checked(_lib().bpf_obj_pin(link, os.fsencode(pin)), f"{what}: {pin}")
    finally:
        os.close(link)


def pinned_xdp(pin: Path) -> tuple[int, int] | None:
    """Device and program of the XDP link that is pinned there, by number: device 0 is gone. None: no such file."""
    with _pinned(pin) as link:
        if link is None:
            return None
        program, ifindex = _LINK_INFO.unpack_from(_info(link))
        return ifindex, program


def unpin_xdp(pin: Path) -> None:
    """Takes what is pinned there off its device at once, and the file away; no such file is no error."""
    with _pinned(pin) as link:
        if link is not None:
            result = _lib().bpf_link_detach(link)
            if result != -errno.ENOLINK:  # its device is gone
                _checked(result, f"{pin}: XDP link")
            pin.unlink(missing_ok=True)


@contextmanager
def _pinned(pin: Path) -> Iterator[int | None]:
    link = _lib().bpf_obj_get(os.fsencode(pin))
    if link in (-errno.ENOENT, -errno.ENOTDIR):
        yield None
        return
    _checked(link, str(pin))
    try:
        yield link
    finally:
        os.close(link)


def xdp_id(ifindex: int) -> int:
    """The number of the native program on a device; 0 for none. Raises KernelError."""
    return _attached(ifindex, _NATIVE)


@contextmanager
def attached_xdp(ifindex: int) -> Iterator[Attached | None]:
    """The XDP program on a device, whoever attached it; None without one. Raises KernelError."""
    for mode in (_NATIVE, _GENERIC):
        if number := _attached(ifindex, mode):
            break
    else:
        yield None
        return
    fds = [_checked(_lib().bpf_prog_get_fd_by_id(number), "XDP program")]
    try:
        count, _, name = _PROG_MAPS.unpack_from(_info(fds[0]))
        ids = (ctypes.c_uint32 * count)()
        request = bytearray(_INFO)
        _PROG_MAPS.pack_into(request, 0, count, ctypes.addressof(ids), b"")
        _info(fds[0], request)
        maps = {}
        for each in ids:
            fds.append(_checked(_lib().bpf_map_get_fd_by_id(each), "map of the XDP program"))
            (label,) = _MAP_NAME.unpack_from(_info(fds[-1]))
            maps[_text(label)] = Map(fds[-1], _text(label))
        yield Attached(_text(name), maps, mode == _GENERIC)
    finally:
        for fd in fds:
            os.close(fd)


def _attached(ifindex: int, mode: int) -> int:
    """The number of the program that is there in this mode; 0 for none, and for a device that is gone."""
    found = ctypes.c_uint32(0)
    result = _lib().bpf_xdp_query_id(ifindex, mode, ctypes.byref(found))
    if result != -errno.ENODEV:
        _checked(result, f"XDP on device {ifindex}")
    return found.value


def _info(fd: int, request: bytearray | None = None) -> bytes:
    buffer = (ctypes.c_char * _INFO).from_buffer(request if request is not None else bytearray(_INFO))
    size = ctypes.c_uint32(_INFO)
    _checked(_lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(buffer), ctypes.byref(size)), "bpf info")
    return bytes(buffer)


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode()

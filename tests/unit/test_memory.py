"""The C library's heaps: one for all threads, once give_back() was called."""

import subprocess
import sys
from pathlib import Path

HEAPS = """
import ctypes, sys, threading
from flowfast.memory import give_back
if sys.argv[1] == "yes":
    give_back()
kept, together = [], threading.Barrier(4)

def allocate():
    together.wait()
    kept.append([b"x" * 5000 for _ in range(2000)])

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(said: str, folder: Path) -> int:
    told = folder / "malloc.xml"
    subprocess.run([sys.executable, "-c", HEAPS, said, str(told)], check=True)
    return told.read_text().count("<heap nr=")


def test_threads_share_one_heap(tmp_path: Path) -> None:
    assert heaps("no", tmp_path) > 1
    assert heaps("yes", tmp_path) == 1

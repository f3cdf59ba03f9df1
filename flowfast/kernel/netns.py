"""within(): something done in another network namespace, by a thread of its own.

A thread, not a child: pyroute2's own way (netns.create_socket, 0.9) forks, and ends the child with SIGTERM. Until the
child has set its handlers back, that signal is told by the event loop's wakeup descriptor (signal.set_wakeup_fd), which
it shares with us: a controller ended by itself, exit code 0, for a signal that was never sent to it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyroute2.netns import setns

Result = TypeVar("Result")


def within(name: str, do: Callable[[], Result]) -> Result:
    """What `do` returns in network namespace `name` (or path). Raises OSError without one, and what `do` does.

    A socket stays in the namespace that it was made in; a thread's file descriptors are everybody's.
    """

    def there() -> Result:
        setns(name, flags=0, fork=False)
        return do()

    # Its thread ends with it, and with that what the thread is in.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(there).result()

"""The errors a user sees: one line that names the object, the place and the remedy."""


class FlowfastError(Exception):
    """Something the user can act on. `str()` of it is the one line that he is shown; no traceback is printed."""

    exit_code = 1


class UsageError(FlowfastError):
    """What was typed or written is wrong: nothing was changed (exit code 2)."""

    exit_code = 2


class KernelError(FlowfastError):
    """The kernel refused a request. `code` is the errno; the text carries the kernel's extended ack, if it gave one."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what, code)  # all of them, so that it can be pickled: it crosses processes
        self.what, self.code = what, code

    def __str__(self) -> str:
        return self.what


class DecodeError(FlowfastError):
    """A netlink message is truncated or corrupt. The only exception that a decoder raises, whatever it is fed."""


class Unavailable(FlowfastError):
    """A capability is missing here (module, library, privilege). The text says what to install or load."""

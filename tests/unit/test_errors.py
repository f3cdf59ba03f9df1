"""An error crosses processes whole: the lab's namespaces are processes of their own."""

import errno
import pickle

from flowfast.model.errors import KernelError


def test_the_kernels_no_survives_a_pipe() -> None:
    error = pickle.loads(pickle.dumps(KernelError("xfrm: no", errno.EINVAL)))  # noqa: S301 - our own bytes
    assert (str(error), error.code) == ("xfrm: no", errno.EINVAL)

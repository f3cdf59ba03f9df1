"""Errors and SAs cross processes whole: the lab's namespaces are processes of their own."""

import errno
import pickle

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.errors import KernelError


def test_the_kernels_no_survives_a_pipe() -> None:
    error = pickle.loads(pickle.dumps(KernelError("xfrm: no", errno.EINVAL)))  # noqa: S301 - our own bytes
    assert (str(error), error.code) == ("xfrm: no", errno.EINVAL)


def test_an_sa_survives_a_pipe() -> None:
    sa = make_sa("192.0.2.1", "192.0.2.2", 0xC0FFEE01, pcpu=2)
    came = pickle.loads(pickle.dumps(sa))  # noqa: S301 - our own bytes
    assert came == sa
    assert (came.counters, came.replay, came.pcpu) == (sa.counters, sa.replay, 2)

"""uapi.py against the running kernel's own types: struct sizes, where fields begin, and the numbers of all enums."""

import re
import struct
import subprocess
from enum import IntEnum, IntFlag

import pytest

from flowfast.kernel.xfrm import uapi
from tests.guest import btf

pytestmark = pytest.mark.guest(images=["debian14", "debian13", "debian12"])


@pytest.fixture(scope="module")
def kernel() -> btf.Types:
    """The types of this kernel and of its module xfrm_user."""
    subprocess.run(["modprobe", "xfrm_user"], check=True)
    return btf.read("xfrm_user")


def starts(layout: struct.Struct) -> set[int]:
    """The offsets at which a struct's format has fields."""
    found, at = set(), 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.format):
        size = struct.calcsize(f"={code}")
        for _ in range(1 if code in "sx" else int(count or 1)):
            if code != "x":
                found.add(at)
            at += size * int(count or 1) if code in "sx" else size
    assert at == layout.size
    return found


def test_structs_have_the_kernels_size(kernel: btf.Types) -> None:
    assert {name: kernel.sizes.get(name) for name in uapi.STRUCTS} == {
        name: layout.size for name, layout in uapi.STRUCTS.items()
    }


def test_fields_begin_where_the_kernels_do(kernel: btf.Types) -> None:
    variable = {"xfrm_algo", "xfrm_algo_auth", "xfrm_algo_aead", "xfrm_replay_state_esn"}  # their arrays are not ours
    nested = {"xfrm_selector", "xfrm_id", "xfrm_usersa_info", "xfrm_user_tmpl", "xfrm_userpolicy_info"}
    assert nested < kernel.offsets.keys()
    for name, layout in uapi.STRUCTS.items():
        offsets = {offset for offset in kernel.offsets.get(name, []) if name not in variable or offset < layout.size}
        assert offsets <= starts(layout), name


@pytest.mark.parametrize(
    ("prefix", "numbers"),
    [
        ("XFRM_MSG_", uapi.Msg),
        ("XFRMA_", uapi.Attr),
        ("XFRMA_SAD_", uapi.SadAttr),
        ("XFRMA_SPD_", uapi.SpdAttr),
        ("XFRMNLGRP_", uapi.Group),
        ("XFRM_AE_", uapi.AeFlag),
    ],
)
def test_enums_have_the_kernels_numbers(
    kernel: btf.Types, image: str, prefix: str, numbers: type[IntEnum] | type[IntFlag]
) -> None:
    known = {each.name: kernel.enumerators.get(f"{prefix}{each.name}") for each in numbers}
    later = {name for name, value in known.items() if value is None}
    assert {name: value for name, value in known.items() if name not in later} == {
        each.name: each.value for each in numbers if each.name not in later
    }
    if image == "debian14":
        assert later == set()
    else:  # only what came after this kernel is unknown to it
        assert all(numbers[name] > max(value for value in known.values() if value is not None) for name in later)


def test_directions_have_the_kernels_numbers(kernel: btf.Types, image: str) -> None:
    assert kernel.enumerators["XFRM_POLICY_OUT"] == uapi.POLICY_OUT
    assert kernel.enumerators["XFRM_POLICY_FWD"] == uapi.POLICY_FWD
    assert kernel.enumerators["XFRM_POLICY_MAX"] == uapi.POLICY_MAX
    if image != "debian12":
        assert kernel.enumerators["XFRM_SA_DIR_OUT"] == uapi.SA_DIR_OUT

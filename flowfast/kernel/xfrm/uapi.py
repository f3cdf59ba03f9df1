"""include/uapi/linux/xfrm.h in Python: the numbers and the C structs, and nothing that uses them.

The numbers are written out (as of kernel 7.3), because the headers that a distribution installs are older than
the kernels it runs. tests/guest/test_xfrm_uapi.py compares every name here with the header in the guest.
Structs are in native byte order without implicit padding; fields that are big-endian on the wire (`__be16`,
`__be32`) are turned by whoever reads them.
"""

from enum import IntEnum, IntFlag
from struct import Struct

NETLINK_XFRM = 6
AF_INET = 2
AF_INET6 = 10
IPPROTO_ESP = 50
IPPROTO_AH = 51
IPPROTO_COMP = 108

NO_LIMIT = (1 << 64) - 1  # XFRM_INF


class Msg(IntEnum):
    """XFRM_MSG_*."""

    NEWSA = 0x10
    DELSA = 0x11
    GETSA = 0x12
    NEWPOLICY = 0x13
    DELPOLICY = 0x14
    GETPOLICY = 0x15
    ALLOCSPI = 0x16
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDPOLICY = 0x19
    UPDSA = 0x1A
    POLEXPIRE = 0x1B
    FLUSHSA = 0x1C
    FLUSHPOLICY = 0x1D
    NEWAE = 0x1E
    GETAE = 0x1F
    REPORT = 0x20
    MIGRATE = 0x21
    NEWSADINFO = 0x22
    GETSADINFO = 0x23
    NEWSPDINFO = 0x24
    GETSPDINFO = 0x25
    MAPPING = 0x26
    SETDEFAULT = 0x27
    GETDEFAULT = 0x28


class Attr(IntEnum):
    """XFRMA_*."""

    ALG_AUTH = 1
    ALG_CRYPT = 2
    ALG_COMP = 3
    ENCAP = 4
    TMPL = 5
    SA = 6
    POLICY = 7
    SEC_CTX = 8
    LTIME_VAL = 9
    REPLAY_VAL = 10
    REPLAY_THRESH = 11
    ETIMER_THRESH = 12
    SRCADDR = 13
    COADDR = 14
    LASTUSED = 15
    POLICY_TYPE = 16
    MIGRATE = 17
    ALG_AEAD = 18
    KMADDRESS = 19
    ALG_AUTH_TRUNC = 20
    MARK = 21
    TFCPAD = 22
    REPLAY_ESN_VAL = 23
    SA_EXTRA_FLAGS = 24
    PROTO = 25
    ADDRESS_FILTER = 26
    PAD = 27
    OFFLOAD_DEV = 28
    SET_MARK = 29
    SET_MARK_MASK = 30
    IF_ID = 31
    MTIMER_THRESH = 32
    SA_DIR = 33
    NAT_KEEPALIVE_INTERVAL = 34
    SA_PCPU = 35
    IPTFS_DROP_TIME = 36
    IPTFS_REORDER_WINDOW = 37
    IPTFS_DONT_FRAG = 38
    IPTFS_INIT_DELAY = 39
    IPTFS_MAX_QSIZE = 40
    IPTFS_PKT_SIZE = 41


class SadAttr(IntEnum):
    """XFRMA_SAD_*, the attributes of NEWSADINFO."""

    CNT = 1
    HINFO = 2


class SpdAttr(IntEnum):
    """XFRMA_SPD_*, the attributes of NEWSPDINFO."""

    INFO = 1
    HINFO = 2
    IPV4_HTHRESH = 3
    IPV6_HTHRESH = 4


class Group(IntEnum):
    """XFRMNLGRP_*: who wants to hear of what. Group n is bit n - 1 of a socket's mask."""

    ACQUIRE = 1
    EXPIRE = 2
    SA = 3
    POLICY = 4
    AEVENTS = 5
    REPORT = 6
    MIGRATE = 7
    MAPPING = 8


class StateFlag(IntFlag):
    """XFRM_STATE_*, `flags` of an SA."""

    NOECN = 1
    DECAP_DSCP = 2
    NOPMTUDISC = 4
    WILDRECV = 8
    ICMP = 16
    AF_UNSPEC = 32
    ALIGN4 = 64
    ESN = 128


class ExtraFlag(IntFlag):
    """XFRM_SA_XFLAG_*, `extra_flags` of an SA."""

    DONT_ENCAP_DSCP = 1
    OSEQ_MAY_WRAP = 2


class PolicyFlag(IntFlag):
    """XFRM_POLICY_*, `flags` of a policy. CPU_ACQUIRE (kernel 6.13) asks for an SA for each CPU, RFC 9611."""

    LOCALOK = 1
    ICMP = 2
    CPU_ACQUIRE = 4


class OffloadFlag(IntFlag):
    """XFRM_OFFLOAD_*. IPV6 is historical and means nothing."""

    IPV6 = 1
    INBOUND = 2
    PACKET = 4


class AeFlag(IntFlag):
    """XFRM_AE_*: what an async event carries, and why it came (CR replay, CE timer, CU by request)."""

    RTHR = 1
    RVAL = 2
    LVAL = 4
    ETHR = 8
    CR = 16
    CE = 32
    CU = 64


POLICY_IN, POLICY_OUT, POLICY_FWD, POLICY_MAX = 0, 1, 2, 3
SA_DIR_IN, SA_DIR_OUT = 1, 2
REPLAY_ESN_MAX = 4096  # packets in a replay window, and bits in its bitmap
MAX_TEMPLATES = 6  # XFRM_MAX_DEPTH of include/net/xfrm.h
ALGORITHM_NAME_BYTES = 64

# One line a C struct, in the order of the header. In comments, what the letters are.
ADDRESS = Struct("=16s")
SELECTOR = Struct(
    "=16s16s4HHBBB3xiI"
)  # daddr saddr, dport/mask sport/mask (be16), family, plen d s, proto, ifindex, user
ID = Struct("=16sIB3x")  # daddr spi(be32) proto
LIFETIME_CFG = Struct("=8Q")
LIFETIME_CUR = Struct("=4Q")
REPLAY_STATE = Struct("=3I")  # oseq seq bitmap
REPLAY_STATE_ESN = Struct("=6I")  # bmp_len(words) oseq seq oseq_hi seq_hi replay_window, then the bitmap
ALGO = Struct("=64sI")  # name, key bits, then the key
ALGO_AUTH = Struct("=64sII")  # name, key bits, truncated bits, then the key
ALGO_AEAD = Struct("=64sII")  # name, key bits, ICV bits, then the key
STATS = Struct("=3I")  # replay_window replay integrity_failed
MARK = Struct("=II")  # value mask
ENCAP_TMPL = Struct("=HHH2x16s")  # type, sport dport (be16), original address
USERSA_INFO = Struct("=56s16sIB3x16s64s4Q3IIIHBBB7x")
# sel, id{daddr spi proto}, saddr, lft, curlft{bytes packets add use}, stats{3}, seq reqid family mode window flags
USERSA_ID = Struct("=16sIHBx")  # daddr spi(be32) family proto
AEVENT_ID = Struct("=24s16sII")  # sa_id saddr flags reqid
USERSPI_INFO = Struct("=224sII")  # info min max
USERPOLICY_INFO = Struct("=56s64s4QIIBBBB4x")  # sel lft curlft{4} priority index dir action flags share
USERPOLICY_ID = Struct("=56sIB3x")  # sel index dir
USERPOLICY_TYPE = Struct("=BxHBx")  # type reserved1 reserved2
USERPOLICY_DEFAULT = Struct("=BBB")  # in fwd out
USER_TMPL = Struct("=16sIB3xH2x16sIBBBxIII")  # id{daddr spi proto} family saddr reqid mode share optional a/e/calgos
USER_ACQUIRE = Struct("=24s16s56s168sIIII")  # id saddr sel policy aalgos ealgos calgos seq
USER_EXPIRE = Struct("=224sB7x")  # state hard
USER_POLEXPIRE = Struct("=168sB7x")  # pol hard
USERSA_FLUSH = Struct("=B")  # proto
USER_REPORT = Struct("=B3x56s")  # proto sel
USER_MIGRATE = Struct("=16s16s16s16sBBHIHH")  # old daddr saddr, new daddr saddr, proto mode reserved reqid, families
USER_MAPPING = Struct("=24sI16s16sHH")  # id reqid old_saddr new_saddr old_sport new_sport (be16)
ADDRESS_FILTER = Struct("=16s16sHBB")  # saddr daddr family splen dplen
USER_OFFLOAD = Struct("=iB3x")  # ifindex flags
SADHINFO = Struct("=II")  # buckets max
SPDINFO = Struct("=6I")  # in out fwd, socket in out fwd
SPDHINFO = Struct("=II")  # buckets max
SPDHTHRESH = Struct("=BB")  # local remote prefix bits

STRUCTS = {
    "xfrm_address_t": ADDRESS,
    "xfrm_selector": SELECTOR,
    "xfrm_id": ID,
    "xfrm_lifetime_cfg": LIFETIME_CFG,
    "xfrm_lifetime_cur": LIFETIME_CUR,
    "xfrm_replay_state": REPLAY_STATE,
    "xfrm_replay_state_esn": REPLAY_STATE_ESN,
    "xfrm_algo": ALGO,
    "xfrm_algo_auth": ALGO_AUTH,
    "xfrm_algo_aead": ALGO_AEAD,
    "xfrm_stats": STATS,
    "xfrm_mark": MARK,
    "xfrm_encap_tmpl": ENCAP_TMPL,
    "xfrm_usersa_info": USERSA_INFO,
    "xfrm_usersa_id": USERSA_ID,
    "xfrm_aevent_id": AEVENT_ID,
    "xfrm_userspi_info": USERSPI_INFO,
    "xfrm_userpolicy_info": USERPOLICY_INFO,
    "xfrm_userpolicy_id": USERPOLICY_ID,
    "xfrm_userpolicy_type": USERPOLICY_TYPE,
    "xfrm_userpolicy_default": USERPOLICY_DEFAULT,
    "xfrm_user_tmpl": USER_TMPL,
    "xfrm_user_acquire": USER_ACQUIRE,
    "xfrm_user_expire": USER_EXPIRE,
    "xfrm_user_polexpire": USER_POLEXPIRE,
    "xfrm_usersa_flush": USERSA_FLUSH,
    "xfrm_user_report": USER_REPORT,
    "xfrm_user_migrate": USER_MIGRATE,
    "xfrm_user_mapping": USER_MAPPING,
    "xfrm_address_filter": ADDRESS_FILTER,
    "xfrm_user_offload": USER_OFFLOAD,
    "xfrmu_sadhinfo": SADHINFO,
    "xfrmu_spdinfo": SPDINFO,
    "xfrmu_spdhinfo": SPDHINFO,
    "xfrmu_spdhthresh": SPDHTHRESH,
}
"""Every struct by its name in the header, for the test that compares sizes."""

# Netlink itself: include/uapi/linux/netlink.h
NLMSGHDR = Struct("=IHHII")  # length type flags sequence port
NLATTR = Struct("=HH")  # length type
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 1, 2, 4, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLA_TYPE_MASK = 0x3FFF  # less NLA_F_NESTED and NLA_F_NET_BYTEORDER
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10

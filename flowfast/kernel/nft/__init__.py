"""nftables: the real ruleset (RealNft), and one in memory that behaves alike (FakeNft)."""

from flowfast.kernel.nft.fake import FakeNft
from flowfast.kernel.nft.real import RealNft

__all__ = ["FakeNft", "RealNft"]

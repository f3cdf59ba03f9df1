"""flowfast: puts IPsec tunnel traffic on the Linux flowtable, safely, and shows what it gains."""

__version__ = "0.1.0"

"""Which aggregation stages leave packets whole: every kind of packet through a gateway, for each kernel and driver."""

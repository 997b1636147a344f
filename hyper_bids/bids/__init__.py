"""BIDS in and out: the only place that knows file names."""

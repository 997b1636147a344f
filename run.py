#!/usr/bin/env python3
"""Start the app from a checkout: ``./run.py bids_dir output_dir participant``."""

from hyper_bids.cli import run

if __name__ == "__main__":
    run()

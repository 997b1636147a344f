"""``python -m hyper_bids`` is the same as the console command."""

from hyper_bids.cli import run

if __name__ == "__main__":
    run()

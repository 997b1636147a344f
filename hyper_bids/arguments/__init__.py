"""The flags: what the user may type, turned into settings. Imports the standard library only."""

from hyper_bids.arguments.parser import build_parser, parse

__all__ = ["build_parser", "parse"]

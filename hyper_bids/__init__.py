"""Reconstruct what people saw from their brain activity; a BIDS App."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

# An installed package holds its own copy of the file; a checkout has it beside the package.
__version__ = (
    next(path for path in (_HERE / "version", _HERE.parent / "version") if path.is_file())
    .read_text(encoding="ascii")
    .strip()
)

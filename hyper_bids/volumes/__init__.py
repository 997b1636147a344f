"""Masked reading and writing of NIfTI images, one volume in memory at a time."""

from hyper_bids.volumes.brain import brain_mask
from hyper_bids.volumes.onto import read_labels_onto
from hyper_bids.volumes.reading import (
    Header,
    check_complete,
    iterate,
    mean_volume,
    read_header,
    read_labels,
    read_mask,
    read_masked,
    same_grid,
)
from hyper_bids.volumes.writing import to_volume, write_map, write_maps, write_mask, write_series

__all__ = [
    "Header",
    "brain_mask",
    "check_complete",
    "iterate",
    "mean_volume",
    "read_header",
    "read_labels",
    "read_labels_onto",
    "read_mask",
    "read_masked",
    "same_grid",
    "to_volume",
    "write_map",
    "write_maps",
    "write_mask",
    "write_series",
]

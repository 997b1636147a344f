"""Voxels by region of a label image: how many, how well encoded, what they give to a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = "outside all regions"
COLUMNS = {
    "index": "Value of the region in the label image; 0 outside all regions",
    "name": "Name of the region",
    "n_voxels": "Voxels of the region in the brain mask",
    "n_decoder": "Voxels of them that the decoder uses",
    "decoder_share": "Fraction of the decoder's voxels that lie in the region",
}


def region_table(
    labels: np.ndarray,
    names: Mapping[int, str],
    chosen: np.ndarray,
    means: Mapping[str, np.ndarray] | None = None,
    shares: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Return one row a region that has voxels in the brain, in the order of their labels.

    Parameters
    ----------
    labels : int array of shape (n_voxels,)
        Region of each voxel of the brain mask; 0 outside all regions.
    names : mapping of int to str
        Names of the regions. One that is not named is called by its number.
    chosen : int array of shape (n_decoder,)
        Voxels of the decoder, as indices of ``labels``.
    means : mapping of str to array of shape (n_voxels,), optional
        Columns that are means over the region's voxels, without NaN.
    shares : mapping of str to array of shape (n_decoder,), optional
        Columns that are sums over the region's voxels of the decoder, such as parts of a whole.

    Returns
    -------
    DataFrame
        :data:`COLUMNS`, then those of ``means`` and ``shares``. The last row is what lies outside
        all regions, so that voxels and shares add up. A mean of no value is NaN.

    Raises
    ------
    ValueError
        For arrays whose lengths disagree.
    """
    import pandas as pd

    labels, chosen = np.asarray(labels), np.asarray(chosen)
    for wanted, given in ((labels, means or {}), (chosen, shares or {})):
        for column, values in given.items():
            if np.shape(values) != wanted.shape:
                raise ValueError(f"{column}: shape {np.shape(values)} for {wanted.shape} voxels")
    found, place = np.unique(labels, return_inverse=True)
    n = len(found)
    counts = np.bincount(place[chosen], minlength=n)
    table = pd.DataFrame(
        {
            "index": found,
            "name": [OUTSIDE if k == 0 else names.get(int(k), f"region {k}") for k in found],
            "n_voxels": np.bincount(place, minlength=n),
            "n_decoder": counts,
            "decoder_share": counts / max(len(chosen), 1),
        }
    )
    for column, values in (means or {}).items():
        finite = np.isfinite(values)
        totals = np.bincount(place[finite], np.asarray(values)[finite], n)
        held = np.bincount(place[finite], minlength=n)
        table[column] = np.divide(totals, held, out=np.full(n, np.nan), where=held > 0)
    for column, values in (shares or {}).items():
        table[column] = np.bincount(place[chosen], values, n)
    return table.sort_values("index", key=lambda k: k == 0, kind="stable", ignore_index=True)

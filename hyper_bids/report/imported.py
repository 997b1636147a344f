"""What the methods text says of responses that were imported."""

from __future__ import annotations


def stimuli_text(imported: dict | None) -> str:
    """Return what is said of the stimuli's latents; of imported ones it is not known who made what.

    Parameters
    ----------
    imported : dict or None
        None: responses were not imported.
    """
    if imported:
        return "each stimulus is described by the latents of an image model"
    return "the stimuli were made by an image model from known latents"


def responses_text(files: list[str]) -> str:
    """Return the paragraph on responses, from the names of the files they came from."""
    # Names stand in backticks: they may hold characters that Markdown uses.
    names = ", ".join(f"`{name}`" for name in files[:8])
    more = f" and {len(files) - 8} other files" if len(files) > 8 else ""
    return (
        f"Responses to single trials were not estimated here: they were imported from {names}{more}"
        f". How they were estimated, and which data had a part in it, is to be said by those who "
        f"did it."
    )


def choice_text(n_voxels: int) -> str:
    """Return what is said of the choice of voxels."""
    return (
        f"The decoder used the {n_voxels:,} voxels whose responses in training trials that were "
        f"left out were predicted best from the latents, by ridge regression, each voxel with a "
        f"penalty of its own, chosen in the trials that were not left out (all voxels, where there "
        f"were fewer). Test trials had no part in this choice."
    )


def standardised_text() -> str:
    """Return how responses were standardised run by run, where the runs are unknown."""
    return (
        "Since the runs of the trials are unknown, each voxel's responses were z-scored with mean "
        "and standard deviation of all training trials."
    )

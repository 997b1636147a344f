"""The group level: participants' scores to tables and tests. It reads the output folder alone.

``members`` reads what the participants' jobs left, ``mixing`` says whether it may be averaged,
``nulls`` goes through the null distributions, ``tables`` and ``page`` say what came out.
``sharing`` (what participants have in common), ``aligned`` and ``aligned_scores`` decode them
together.
"""

from hyper_bids.group.level import group_level

__all__ = ["group_level"]

"""The tables of the group: participants' scores, means over participants, methods compared."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hyper_bids import stats
from hyper_bids.group.members import KEY, Key, Member
from hyper_bids.group.nulls import TOLERANCE, family, mean_nulls

_METHOD = "hyper decodes the stimuli's known latents, a baseline its encoding of their images"

METRIC_COLUMNS = {
    "participant": "Participant label",
    "method": _METHOD,
    "metric": "Name of the score; higher is better, but of correlation_distance",
    "variant": "Form of the score, or what it is computed on",
    "control": "n/a: the score itself; else the control, see the participants' tables",
    "value": "Mean over test stimuli",
    "se": "Standard error over test stimuli",
    "ci_low": "Lower end of the 95 % interval",
    "ci_high": "Upper end of the 95 % interval",
    "interval": "How it was computed: bootstrap, or binomial (exact, of scores that count hits)",
    "p": "Permutation p, (b + 1) / (n + 1); of random_prior the paper's test, which a constant "
    "prediction passes",
    "p_max": "The same, corrected for all scores of all participants (max-statistic); n/a for "
    "participants whose permutations are not those of the others",
    "n": "Number of test stimuli",
}

STATS_COLUMNS = {
    **{name: METRIC_COLUMNS[name] for name in (*KEY, "control")},
    "mean": "Mean over participants",
    "se": "Standard error of that mean",
    "ci_low": "Lower end of its 95 % interval",
    "ci_high": "Upper end of its 95 % interval",
    "interval_over": "What the interval speaks of. stimuli: other stimuli for these participants; "
    "stimuli and participants: other people too; participants: other people with these stimuli",
    "p": "Permutation p of the mean, (b + 1) / (n + 1): test stimuli shuffled, for all "
    "participants at once. Of the control random_prior the largest p of all participants in the "
    "paper's test, which a constant prediction passes: no test for information",
    "p_max": "The same, corrected for all scores of all methods (max-statistic)",
    "n_participants": "Number of participants with a value",
    "n_significant": "Participants whose own p is 0.05 or less (of random_prior, in the paper's "
    "test)",
    "prevalence": "Most probable fraction of people whose own p would be (Ince et al. 2021)",
    "prevalence_low": "Lower end of its 95 % interval of highest posterior density",
    "prevalence_high": "Upper end of that interval",
}

COMPARISON_COLUMNS = {
    "metric": METRIC_COLUMNS["metric"],
    "variant": METRIC_COLUMNS["variant"],
    "method": "The first method",
    "other": "The second method",
    "difference": "Mean over participants of the first method's score less the second's",
    "se": "Standard error of that mean",
    "ci_low": "Lower end of its 95 % interval",
    "ci_high": "Upper end of its 95 % interval",
    "p": "Two-sided p of signs flipped at random, (b + 1) / (n + 1); not corrected",
    "interval_over": STATS_COLUMNS["interval_over"],
    "n_participants": "Number of participants with both methods",
}

ALPHA = 0.05

# Derived of the correlation of features, which has the test: 1 - r, lower is better.
DISTANCE = "correlation_distance"
# Correlations over stimuli: no means, so that resampling their parts is not resampling them.
_NO_MEANS = ("latent_correlation", "attribute_correlation")
# Each method has latents of its own; these scores, and identification by images and features of
# images, are on one scale in all.
_COMPARABLE = (
    "structural_similarity",
    "luminance_correlation",
    "pixel_correlation",
    "feature_similarity",
    "feature_correlation",
)


@dataclass(frozen=True)
class Interval:
    """Standard error and 95 % interval of a mean over participants, and what it speaks of."""

    se: float = np.nan
    low: float = np.nan
    high: float = np.nan
    over: str | None = None


def group_metrics(members: Sequence[Member]):
    """Return the participants' tables one below the other, with p corrected over all of them.

    Nulls of one participant are in memory at a time. See :func:`nulls.family` for whose p are
    corrected.
    """
    import pandas as pd

    alike = [m for m in family(members) if m.tested]
    parts = ((np.array([m.values[key] for key in m.tested]), m.nulls.of(m.tested)) for m in alike)
    found = stats.max_statistic_of_parts(parts, TOLERANCE)
    tables = []
    p_max = dict(zip([m.participant for m in alike], found, strict=True))
    for member in members:
        table = member.table.assign(participant=member.participant, p_max=np.nan)
        if member.participant in p_max:
            known = dict(zip(member.tested, p_max[member.participant], strict=True))
            keys = list(zip(*(table[name] for name in KEY), strict=True))
            own = table["control"] == "n/a"
            table["p_max"] = [
                known.get(_tested_key(key), np.nan) if it else np.nan
                for key, it in zip(keys, own, strict=True)
            ]
        # Tables of earlier versions may lack what is told of intervals.
        tables.append(table.reindex(columns=list(METRIC_COLUMNS)))
    metrics = pd.concat(tables, ignore_index=True)
    metrics["n"] = metrics["n"].astype("Int64")
    return metrics


def group_stats(members: Sequence[Member], seed: int):
    """Return the mean over participants of each score and control: interval, p, prevalence.

    Parameters
    ----------
    members : sequence of Member
    seed : int
        Of the bootstrap. Each score draws by itself, whatever others there are.

    Returns
    -------
    DataFrame
        Of :data:`STATS_COLUMNS`.
    """
    import pandas as pd

    by_name = {m.participant: m for m in members}
    tested = _tested(members)
    table = pd.concat([m.table.assign(participant=m.participant) for m in members])
    rows = []
    for names, block in table.groupby([*KEY, "control"], sort=False):
        known = block[np.isfinite(block["value"])]
        key, control = names[:3], names[3]
        row = dict(zip((*KEY, "control"), names, strict=True))
        row |= {"mean": known["value"].mean(), "n_participants": len(known)}
        of = [by_name[name] for name in known["participant"]]
        if len(known) and control != "chance":
            scored = control == "n/a" and key[1] not in _NO_MEANS
            found = _over_stimuli(of, key, seed) if scored else None
            found = found or _over_participants(known)
            row |= {"se": found.se, "ci_low": found.low, "ci_high": found.high}
            row["interval_over"] = found.over
        if control == "n/a" and _tested_key(key) in tested:
            row |= tested[_tested_key(key)] | _prevalence(known["p"].to_numpy(float))
        elif control == "random_prior":
            row |= _papers_test(known["p"].to_numpy(float))
        rows.append(row)
    found = pd.DataFrame(rows, columns=list(STATS_COLUMNS))
    found["n_significant"] = found["n_significant"].astype("Int64")
    return found


def _tested(members: Sequence[Member]) -> dict[Key, dict[str, float]]:
    """Return p of each mean, by itself and corrected; only of scores that have nulls."""
    keys = list(dict.fromkeys(key for m in members for key in m.tested))
    if not keys:
        return {}
    nulls = mean_nulls(members, keys)
    means = np.array([np.mean([m.values[k] for m in members if k in m.values]) for k in keys])
    p_max = stats.max_statistic(means, nulls, TOLERANCE)
    return {
        key: {"p": stats.p_value(mean, null, TOLERANCE), "p_max": float(all_p)}
        for key, mean, null, all_p in zip(keys, means, nulls, p_max, strict=True)
    }


def _papers_test(p: np.ndarray) -> dict[str, float]:
    """Return the p by which all participants pass the paper's test; nothing if one has none.

    Nothing is permuted in that test, so that there are no nulls to average: the largest p holds
    where the test holds in each participant.
    """
    if not len(p) or np.isnan(p).any():
        return {}
    return {"p": float(p.max()), "n_significant": int((p <= ALPHA).sum())}


def _prevalence(p: np.ndarray) -> dict[str, float]:
    if np.isnan(p).all():
        return {}
    found = stats.prevalence(p, ALPHA)
    return {
        "n_significant": found.k,
        "prevalence": found.value,
        "prevalence_low": found.low,
        "prevalence_high": found.high,
    }


def _tested_key(key: Key) -> Key:
    """Return the score whose test is that of a score: of a distance, the correlation's."""
    return (key[0], "feature_correlation", key[2]) if key[1] == DISTANCE else key


def _over_stimuli(members: Sequence[Member], key: Key, seed: int) -> Interval | None:
    """Return the interval over stimuli; None if a participant's stimuli have no such score."""
    turned = key[1] == DISTANCE
    lines = [m.of_stimuli(_tested_key(key)) for m in members]
    if any(line is None for line in lines):
        return None
    values = lined_up(lines)
    found = stats.group_interval(1 - values if turned else values, _rng(seed, *key))
    return _shown(found)


def _over_participants(known) -> Interval:
    """Return the interval of what is no mean over stimuli.

    From :data:`stats.MIN_PARTICIPANTS` participants on, of their values, by Student's t. Below, the
    mean of their own intervals: right if they err together, as they may with the same stimuli, and
    else too wide. None, where they have no interval.
    """
    n = len(known)
    values = known["value"].to_numpy(float)
    if n >= stats.MIN_PARTICIPANTS:
        _, low, high = stats.mean_interval(values)
        return Interval(float(values.std(ddof=1) / np.sqrt(n)), low, high, "participants")
    own = known[["se", "ci_low", "ci_high"]].to_numpy(float)
    if np.isnan(own).any():
        return Interval()
    return Interval(*map(float, own.mean(axis=0)), "stimuli")


def _shown(found: stats.GroupMean) -> Interval:
    over = None if np.isnan(found.low) else found.over
    return Interval(found.se, found.low, found.high, over)


def lined_up(lines: Sequence[tuple[Sequence[str], np.ndarray]]) -> np.ndarray:
    """Put participants' scores of stimuli into one array, a stimulus a column.

    Parameters
    ----------
    lines : sequence of (keys of stimuli, scores)
        Of each participant, in any order.

    Returns
    -------
    array of shape (n_participants, n_stimuli)
        Stimuli by key; NaN where a participant did not see one. Stimuli without any score are left
        out.
    """
    names = sorted({name for stimuli, _ in lines for name in stimuli})
    place = {name: k for k, name in enumerate(names)}
    found = np.full((len(lines), len(names)), np.nan)
    for row, (stimuli, values) in zip(found, lines, strict=True):
        row[[place[name] for name in stimuli]] = values
    return found[:, ~np.isnan(found).all(axis=0)]


def group_comparisons(members: Sequence[Member], seed: int):
    """Compare methods, two at a time, by scores that are on one scale in all of them.

    Parameters
    ----------
    members : sequence of Member
    seed : int
        Of bootstrap and sign flips; each comparison draws by itself.

    Returns
    -------
    DataFrame
        Of :data:`COMPARISON_COLUMNS`: participants who have both methods, on the stimuli that have
        both scores. Empty where there is one method.
    """
    import pandas as pd

    keys = dict.fromkeys(key for m in members for key in m.values)
    methods = list(dict.fromkeys(key[0] for key in keys))
    rows = []
    for metric, variant in dict.fromkeys((metric, variant) for _, metric, variant in keys):
        if metric not in _COMPARABLE and variant.partition(",")[0] not in ("images", "features"):
            continue
        for pair in combinations(methods, 2):
            first, second = _both(members, [(method, metric, variant) for method in pair])
            if not len(first):
                continue
            rng = _rng(seed, *pair, metric, variant)
            found = stats.paired_comparison(first, second, rng)
            shown = _shown(found.difference)
            row = {"metric": metric, "variant": variant, "method": pair[0], "other": pair[1]}
            row |= {"difference": found.difference.value, "se": shown.se, "ci_low": shown.low}
            row |= {"ci_high": shown.high, "p": found.p, "interval_over": shown.over}
            rows.append(row | {"n_participants": len(first)})
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))


def _both(members: Sequence[Member], keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    """Return two methods' scores, (n_participants, n_stimuli) each, where both have one."""
    first: list[tuple[list[str], np.ndarray]] = []
    second: list[tuple[list[str], np.ndarray]] = []
    for member in members:
        lines = [member.of_stimuli(key) if key in member.values else None for key in keys]
        if any(line is None for line in lines):
            continue
        held = [dict(zip(*line, strict=True)) for line in lines]
        names = [n for n in held[0] if np.isfinite([h.get(n, np.nan) for h in held]).all()]
        if names:
            first.append((names, np.array([held[0][name] for name in names])))
            second.append((names, np.array([held[1][name] for name in names])))
    return lined_up(first), lined_up(second)


def _rng(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("/".join(("group", *names)).encode())])

"""The methods of one analysis in plain English, with references, from the settings it ran with."""

from __future__ import annotations

from pathlib import PurePath

from hyper_bids import __version__
from hyper_bids.report import imported
from hyper_bids.report.citations import verbatim, with_references
from hyper_bids.report.method_decoder import decoder_text
from hyper_bids.report.method_images import images_text
from hyper_bids.report.method_maps import maps_text
from hyper_bids.report.method_scores import attributes_text, networks_text
from hyper_bids.stats import MIN_PARTICIPANTS


def methods_text(settings: dict[str, dict], facts: dict[str, object]) -> str:
    """Describe an analysis as it was run.

    Parameters
    ----------
    settings : dict
        Stage (``betas``, ``voxels``, ``decoder``, ``images``, ``maps``, ``scores``) to its
        settings, as :func:`hyper_bids.config.to_dict` gives them.
    facts : dict
        Any of ``runs``, ``training_trials``, ``test_trials``, ``test_stimuli``, ``n_latents``,
        ``t_r`` (seconds), ``shared_stimuli`` (bool), ``generator`` (name, file or None),
        ``model`` (of the BOLD, as it was chosen), ``imported`` (``files``, ``places_known`` and
        ``runs_known`` of imported responses), ``networks`` (labels of feature networks),
        ``attributes`` (``boundaries`` or ``labels``) and ``maps`` (whether there are any).
        What is absent is not mentioned, so that without facts the text holds for all participants.

    Returns
    -------
    str
        Markdown: one paragraph a stage, then the references that were cited, by author.
    """
    paragraphs = [
        _introduction(facts),
        _responses(settings.get("betas", {}), facts),
        _voxels(settings.get("voxels", {}), facts),
        decoder_text(settings.get("decoder", {}), facts),
        images_text(settings.get("images", {}), facts),
        maps_text(settings.get("maps", {}), facts),
        _scores(settings.get("scores", {}), facts),
    ]
    return with_references([paragraph for paragraph in paragraphs if paragraph])


_ALIGNED = {
    "ridge-procrustes": "by orthogonal Procrustes maps [schonemann1966, haxby2011] of "
    "ridge-whitened responses [xu2012]",
    "srm": "by the deterministic shared response model [chen2015]",
}


def group_methods_text(
    n_participants: int, n_methods: int = 1, alignment: dict | None = None
) -> str:
    """Describe what the group level did, as :func:`methods_text` does for a participant.

    Parameters
    ----------
    n_participants, n_methods : int
    alignment : dict, optional
        Of participants who were decoded together: ``method``, ``n_stimuli`` (shared), ``averaged``
        and ``by_others`` (what was done).
    """
    drawn = (
        "over test stimuli and participants, both drawn at random [owen2007, hesterberg2015]; of "
        "correlations over stimuli, t intervals over participants"
        if n_participants >= MIN_PARTICIPANTS
        else "over test stimuli, drawn at random for all participants at once [hesterberg2015]; of "
        "correlations over stimuli, means of the participants' intervals"
    )
    compared = (
        " Methods were compared by the differences of their scores of images in the same "
        "participants and stimuli, against differences whose signs were flipped at random "
        "(two-sided)."
        if n_methods > 1
        else ""
    )
    return with_references(
        [
            f"Scores were averaged over {_count(n_participants, 'participant')} with hyper_bids "
            f"{__version__} [gorgolewski2017, dado2022]. Intervals of the means are 95 % bootstrap "
            f"intervals {drawn}. p values of the means are from random pairings of predictions and "
            f"test stimuli, the same for all participants with as many stimuli, averaged over "
            f"participants, as (b + 1) / (n + 1) [phipson2010]: they test these participants, and "
            f"say nothing about others. Corrected p values hold for all scores at once, by the "
            f"largest standardised score of each pairing [nichols2002]. The share of people in "
            f"whom a test at 0.05 would find the effect was estimated from the participants' own "
            f"tests [ince2021].{compared} How the scores themselves came about is on each "
            f"participant's page.",
            *([_alignment(alignment)] if alignment else []),
        ]
    )


def _alignment(told: dict) -> str:
    ways = [
        "their mean there was decoded" if told["averaged"] else "",
        "each participant was decoded with space and decoder of the others"
        if told["by_others"]
        else "",
    ]
    done = ", and ".join(way for way in ways if way)
    return (
        f"Participants were also decoded together. Their responses were brought into a common "
        f"space {_ALIGNED[told['method']]}, from {told['n_stimuli']:,} training stimuli that all "
        f"of them saw; {done}. Decoders were ridge regressions, whose penalty was chosen by "
        f"leaving out stimuli, trained on responses in the common space by maps that had not seen "
        f"the stimulus. Test trials had no part in any fit."
    )


def _introduction(facts: dict) -> str:
    text = (
        f"What participants saw was reconstructed from their brain activity with hyper_bids "
        f"{__version__}, a BIDS App [gorgolewski2016, gorgolewski2017], by the method of "
        f"Dado and others [dado2022]: {imported.stimuli_text(facts.get('imported'))}, "
        f"a linear map from brain responses to latents was fitted on training trials, and the "
        f"latents that it predicted for test trials were compared with the true ones."
    )
    if "training_trials" in facts and "test_trials" in facts:
        had = (
            "There were"
            if facts.get("runs") == 0
            else f"The {_count(facts.get('runs'), 'run')} had"
        )
        text += (
            f" {had} {_count(facts['training_trials'], 'training trial')} and "
            f"{_count(facts['test_trials'], 'test trial')}"
        )
        if "test_stimuli" in facts:
            text += f" with {_count(facts['test_stimuli'], 'test stimulus', 'test stimuli')}"
        text += "."
    return text


def _responses(betas: dict, facts: dict) -> str:
    if facts.get("imported"):
        names = [verbatim(name) for name in facts["imported"]["files"]]
        return imported.responses_text(names)
    if not betas:
        return ""
    estimator = betas.get("estimator", "lsa")
    how = {
        "lsa": "by least squares, with a regressor for every trial in one model [mumford2012]",
        "lss": "by least squares, with a model for every trial, that held its regressor and the "
        "sum of all others' [mumford2012]",
        "optimised": "with a regressor for every trial in one model [mumford2012]",
    }[estimator]
    sampled = f" (repetition time {facts['t_r']:g} s)" if facts.get("t_r") else ""
    text = (
        f"One response for each trial and voxel was estimated in each run {how}. A trial was "
        f"modelled by its duration convolved with {_hrf(betas, facts)}, sampled at "
        f"{betas.get('slice_time_ref', 0.5):g} of each volume{sampled}. {_nuisance(betas, facts)} "
        f"{_noise(betas, facts)}{_choices(betas)} Responses are peaks of the modelled response, in "
        f"percent of the voxel's mean signal."
    )
    if betas.get("dummy_scans"):
        text += f" The first {_count(betas['dummy_scans'], 'volume')} of each run were left out."
    return text


def _hrf(betas: dict, facts: dict) -> str:
    named = {
        "glover": "the canonical response of Glover [glover1999]",
        "spm": "the canonical double-gamma response of SPM [friston1998]",
    }
    asked = betas.get("hrf", "auto")
    if asked == "auto" and betas.get("estimator") != "optimised":
        asked = "glover"
    found = facts.get("model", {}).get("hrf", "library" if asked == "auto" else asked)
    if found == "library":
        return (
            "one of 22 response functions [glover1999, prince2022], which for each voxel was the "
            "one that made the signal of left-out training runs most likely"
        )
    return named.get(found, f"the response {found!r}")


def _noise(betas: dict, facts: dict) -> str:
    model = facts.get("model", {})
    asked = betas.get("noise_model", "auto")
    if asked == "auto" and betas.get("estimator") != "optimised":
        asked = "ols"
    kind = model.get("noise_model", asked)
    own = betas.get("estimator") != "optimised"
    text = {
        "ols": "Noise was taken as white.",
        "ar1": "Noise was modelled as autocorrelated, AR(1), "
        + ("each voxel by itself." if own else "with one coefficient for all voxels"),
        "auto": "Noise was taken as white or AR(1), as training trials suggested.",
    }[kind]
    if kind == "ar1" and not own:
        text += f" ({model['rho']:.2f})." if model.get("rho") else "."
    n = model.get("n_components", 0)
    if n:
        text += (
            f" The first {_count(n, 'principal component')} of each run's voxels that do not "
            f"respond to trials were regressed out [kay2013]."
        )
    if model.get("shrinkage"):
        text += (
            " Responses were shrunken towards each voxel's mean response by ridge regression "
            "[rokem2020], as far as the signal of left-out training runs suggested."
        )
    return text


def _choices(betas: dict) -> str:
    parts = {"drift_order": "order of drift"}
    if betas.get("estimator") == "optimised":
        parts |= {
            "noise_model": "noise model",
            "noise_components": "number of noise components",
            "hrf": "response functions",
            "shrinkage": "shrinkage",
        }
    if _cosines(betas):
        del parts["drift_order"]
    free = [text for name, text in parts.items() if betas.get(name, "auto") == "auto"]
    if not free:
        return ""
    verb = "was" if len(free) == 1 else "were"
    return (
        f" The {_joined(free)} {verb} chosen on training trials alone: by how well responses were "
        f"predicted from their stimuli's latents in training runs that were left out."
    )


def _cosines(betas: dict) -> bool:
    """Say whether the confounds bring the drift terms."""
    return any(str(name).startswith("cosine") for name in betas.get("confounds") or ())


def _nuisance(betas: dict, facts: dict) -> str:
    asked = betas.get("drift_order", "auto")
    order = facts.get("model", {}).get("drift_order", None if asked == "auto" else asked)
    names = list(betas.get("confounds") or ())
    known = {
        "motion6": "the six motion parameters",
        "motion24": "the six motion parameters, their derivatives and the squares of both "
        "[friston1996]",
        "acompcor": "the first five anatomical noise components [behzadi2007]",
        "spikes": "a regressor for each volume marked as an outlier of motion",
    }
    # Names of columns stand in backticks: they may hold characters that Markdown uses.
    told = [known.get(name, f"`{verbatim(name)}`") for name in names if name != "none"]
    terms = ["polynomial drifts" + (f" up to order {order}" if order is not None else "")]
    if _cosines(betas):
        terms = ["a constant and the cosines of the confounds as drift"]
    if told:
        terms.append(f"where the data come with them, {_joined(told)} and outlying first volumes")
    terms.append("and events that show no stimulus")
    return f"Further regressors were {'; '.join(terms)}."


def _voxels(voxels: dict, facts: dict) -> str:
    if not voxels:
        return ""
    if voxels.get("decoder_mask"):
        labels = voxels.get("mask_labels") or ()
        which = f", labels {_joined([str(label) for label in labels])}," if labels else ""
        text = (
            f"The decoder used the voxels of the mask "
            f"{verbatim(PurePath(voxels['decoder_mask']).name)}"
            f"{which} that lie in the brain."
        )
    elif facts.get("imported"):
        text = imported.choice_text(voxels.get("n_voxels", 0))
    else:
        text = (
            f"The decoder used the {voxels.get('n_voxels', 0):,} voxels with the highest z values, "
            f"averaged over the training trials (all voxels, where there were fewer). Test trials "
            f"had no part in this choice."
        )
    how = {
        "run": "Each voxel's responses were z-scored run by run, with mean and standard deviation "
        "of the run's training trials or, in a run that only tests, of its own trials.",
        "train": "Each voxel's responses were z-scored with mean and standard deviation of the "
        "training trials.",
        "none": "Responses were not standardised.",
    }
    if facts.get("imported") and not facts["imported"]["runs_known"]:
        how["run"] = imported.standardised_text()
    text += " " + how.get(voxels.get("standardise"), "")
    return text.rstrip() + " Responses to presentations of one test stimulus were averaged."


def _scores(scores: dict, facts: dict) -> str:
    if not scores:
        return ""
    shared = ""
    if facts.get("shared_stimuli"):
        shared = (
            "Training and test trials could show the same stimuli, so that the scores tell known "
            "categories apart. "
        )
    return (
        f"Predictions were scored on test trials, none of which the decoder was fitted on. {shared}"
        "Two-way identification is the share of the other test stimuli that are less similar to "
        "the prediction than the stimulus shown, by correlation of the latents (ties count one "
        "half; chance is 0.5). Images were compared by structural similarity [wang2004], and by "
        "the correlation of their luminance and of all their pixels. "
        f"{networks_text([verbatim(label) for label in facts.get('networks') or ()])}"
        f"{attributes_text(facts.get('attributes'), scores.get('attribute_scores', 'raw'))}"
        "The paper's similarities are given both as its text prints them and as its code computes "
        "them, since these differ. An image model makes convincing images of any latents, so that "
        "each score stands beside controls [shirakawa2024]: the prediction of the mean training "
        "latent, predictions compared with stimuli that were not shown, and "
        f"{_count(scores.get('prior_samples', 0), 'random latent')}, the paper's test, which a "
        "constant prediction passes. p values are from "
        f"{scores.get('n_permutations', 0):,} random pairings of predictions and stimuli, as "
        "(b + 1) / (n + 1) [phipson2010]. Corrected p values hold for all scores at once, by the "
        "largest standardised score of each pairing [nichols2002]. "
        "Intervals are 95 % bootstrap intervals over test stimuli; of shares of hits (one of n, "
        "top five, retrieval), exact binomial ones [clopper1934]."
    )


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(n: object, one: str, many: str | None = None) -> str:
    if n is None:
        return many or f"{one}s"
    return f"{n:,} {one if n == 1 else many or one + 's'}"

"""The decoder in the methods text, from its settings."""

from __future__ import annotations


def decoder_text(decoder: dict, facts: dict) -> str:
    """Describe how responses were mapped to latents; empty without settings.

    Parameters
    ----------
    decoder : dict
        Settings of the decoder.
    facts : dict
        ``n_latents``, if known; ``places_known`` inside ``imported``.
    """
    if not decoder:
        return ""
    latents = f"the {facts['n_latents']} latents" if facts.get("n_latents") else "the latents"
    name = decoder.get("decoder")
    texts = {
        "ridge": _ridge,
        "dense": _dense,
        "ols": _ols,
        "bayes": _bayes,
        "averaged": _averaged,
        "best": _best,
    }
    if name not in texts:
        return f"Responses were mapped to {latents} by the decoder {name!r}."
    return f"Responses were mapped to {latents} by {texts[name](decoder, facts)}"


def _ridge(decoder: dict, facts: dict) -> str:
    return (
        f"ridge regression [hoerl1970]. One penalty for all latents was chosen by "
        f"{_scheme(decoder)} cross-validation within the training trials.{_refits(decoder)}"
    )


def _dense(decoder: dict, facts: dict) -> str:
    return (
        f"one dense layer, trained as in the paper [dado2022]: half the mean squared error, "
        f"minimised by Adam [kingma2015] with learning rate {decoder.get('learning_rate'):g} and "
        f"weight decay {decoder.get('weight_decay'):g}, in batches of "
        f"{decoder.get('decoder_batch')} for {decoder.get('epochs'):,} epochs. No stopping rule "
        f"saw the test trials."
    )


def _ols(decoder: dict, facts: dict) -> str:
    return "ordinary least squares; with fewer trials than voxels, the solution of smallest norm."


def _bayes(decoder: dict, facts: dict) -> str:
    near = "of voxels near each other"
    if (facts.get("imported") or {}).get("places_known") is False:
        near = "of pairs of voxels that stood out [fan2013]"
    return (
        f"inverting a linear model of the responses. Signal and noise of each voxel, components of "
        f"noise that voxels share [ahn2013, paul2007] and correlations {near} were estimated from "
        f"the training trials; the covariance of the latents was shrunk [schafer2005]. A "
        f"prediction is the latents' posterior mean, given the response, the weights' uncertainty "
        f"and how many repeats were averaged."
    )


def _averaged(decoder: dict, facts: dict) -> str:
    return (
        f"a weighted sum of ridge regressions [hoerl1970]: of all voxels, with one penalty and "
        f"with one for each latent, and of the eighth, quarter and half of the voxels that "
        f"responded most. Penalties and weights, which were not negative, were chosen by "
        f"{_scheme(decoder)} cross-validation within the training trials [breiman1996]."
    )


def _best(decoder: dict, facts: dict) -> str:
    return (
        f"whichever of two decoders predicted training trials that were left out better. One was "
        f"{_averaged(decoder, facts).removesuffix('.')}. The other one predicted by "
        f"{_bayes(decoder, facts)}"
    )


def _scheme(decoder: dict) -> str:
    cv, runs = str(decoder.get("cv", "auto")), "leave-one-run-out"
    return {
        "auto": f"{runs} (or, with one training run, leave-one-trial-out; if it repeats stimuli, "
        "by ten groups of stimuli that are left out)",
        "loo": "leave-one-trial-out",
        "runs": runs,
    }.get(cv, f"{cv}-fold")


def _refits(decoder: dict) -> str:
    n = decoder.get("refit_permutations")
    if not n:
        return ""
    return (
        f" To test all of the fit, it was fitted again, with its penalty chosen again, to "
        f"{n:,} shuffling{'s' * (n != 1)} of training responses against latents."
    )

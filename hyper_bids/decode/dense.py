"""The paper's decoder: one dense layer, trained by Adam on the latents' squared error."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from hyper_bids.decode.decoder import Decoder, check_training
from hyper_bids.errors import UsageError

# Uniform on (-0.07, 0.07): the initial weights of the reference code's dense layer.
INITIAL_RANGE = 0.07


@dataclass(frozen=True)
class DenseOptions:
    """Options of :func:`fit_dense`; the defaults are the paper's.

    Attributes
    ----------
    epochs : int
        Passes over the training trials.
    learning_rate, weight_decay : float
        Of Adam; the weight decay is added to the gradient, of weights and bias alike.
    batch_size : int
        Trials a step.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    progress : bool
        Show a progress bar.
    """

    epochs: int = 1500
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    batch_size: int = 30
    device: str = "cpu"
    progress: bool = False

    def __post_init__(self):
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f"epochs {self.epochs}, batch size {self.batch_size}; at least 1 is wanted"
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise ValueError(
                f"learning rate {self.learning_rate}, weight decay {self.weight_decay}; above 0 "
                f"and not below 0 are wanted"
            )


def fit_dense(
    betas: np.ndarray, latents: np.ndarray, rng: np.random.Generator, **options
) -> Decoder:
    """Train a dense layer with bias as the paper does (Dado et al. 2022, Methods).

    Loss: half the squared error, averaged over the latents and the trials of a batch. Adam with
    moments 0.9 and 0.999 and eps 1e-8. Trials are shuffled in each epoch and the last, smaller
    batch is used.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    latents : array of shape (n_trials, n_latents)
    rng : numpy.random.Generator
        Draws the first weights and the order of the trials, on any device the same.
    **options
        Fields of :class:`DenseOptions`.

    Returns
    -------
    Decoder
        ``report``: ``loss`` (a list of the mean training loss of each epoch, each batch's before
        its step) and the options.

    Raises
    ------
    UsageError
        If the training diverges.
    ValueError
        For shapes that disagree, fewer than two trials, values that are not finite, or options
        out of range.

    Notes
    -----
    float32; on a CPU the same seed gives the same bits again. Holds the data and five times the
    weights: parameters, gradients, two moments, and the result.
    """
    import torch

    chosen = DenseOptions(**options)
    betas, latents = check_training(betas, latents)
    X = torch.tensor(betas, dtype=torch.float32, device=chosen.device)
    Y = torch.tensor(latents, dtype=torch.float32, device=chosen.device)
    start = rng.uniform(-INITIAL_RANGE, INITIAL_RANGE, (Y.shape[1], X.shape[1]))
    weight = torch.tensor(start, dtype=torch.float32, device=chosen.device, requires_grad=True)
    bias = torch.zeros(Y.shape[1], device=chosen.device, requires_grad=True)
    loss = _train(X, Y, weight, bias, rng, chosen)
    report = {"loss": loss, "n_trials": len(betas), **asdict(chosen)}
    del report["progress"]
    weights = np.ascontiguousarray(weight.detach().cpu().numpy().T)
    return Decoder("dense", weights, bias.detach().cpu().numpy(), report)


def _train(X, Y, weight, bias, rng: np.random.Generator, chosen: DenseOptions) -> list[float]:
    """Train weight and bias in place; return the mean loss of each epoch."""
    import torch
    from tqdm import tqdm

    adam = torch.optim.Adam(
        [weight, bias],
        lr=chosen.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=chosen.weight_decay,
        fused=True,
    )
    loss = []
    epochs = tqdm(range(chosen.epochs), desc="decoder", unit="epoch", disable=not chosen.progress)
    for epoch in epochs:
        order = rng.permutation(len(X))
        loss.append(_epoch(X, Y, weight, bias, adam, torch.from_numpy(order), chosen.batch_size))
        if not np.isfinite(loss[-1]):
            raise UsageError(
                f"The dense decoder diverged in epoch {epoch + 1} (--learning-rate "
                f"{chosen.learning_rate:g}, --weight-decay {chosen.weight_decay:g}); use a smaller "
                f"learning rate."
            )
    return loss


def _epoch(X, Y, weight, bias, adam, order, batch_size: int) -> float:
    """Make one pass over the trials in the order given; return the mean loss over them."""
    import torch

    total = torch.zeros((), dtype=torch.float64, device=X.device)
    for batch in order.to(X.device).split(batch_size):
        adam.zero_grad()
        predicted = torch.nn.functional.linear(X[batch], weight, bias)
        loss = 0.5 * (predicted - Y[batch]).square().mean()
        loss.backward()
        adam.step()
        # Kept on the device: to read each step's number would wait for each step.
        total += loss.detach() * len(batch)
    return total.item() / len(X)

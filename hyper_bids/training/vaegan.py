"""Training of a VAE-GAN (Larsen et al. 2016): first as a VAE, then with a discriminator.

With an image x, its latent z drawn from the encoder's distribution, the reconstruction y = G(z),
and y' = G(z') of a latent z' from the prior, encoder and generator minimise

    KL / D + log(mean((y - x)^2)) / 2 + log(mean((f(y) - f(x))^2)) / 2

over the D values of an image, where f are features of the discriminator (left out in the first
phase, as is all that follows). The logarithm is the likelihood of Gaussian noise whose variance is
the best one for the batch (Rybkin et al. 2021), so that no weight between reconstruction and prior
needs to be chosen. The discriminator minimises the cross-entropy of x against y and y', and the
generator, but not the encoder, the opposite for y and y'. Larsen et al. compare features only; with
pixels beside them, colours stay those of the image.

Batch norms use the batch in the first epochs only. With the last layer normalised, too, the
brightness of an image would depend on the others of its batch, and training could not bring the
error below that. Later they use their running averages, which stay as they are: what is trained is
what is exported.

References
----------
Larsen ABL, Sønderby SK, Larochelle H, Winther O (2016). Autoencoding beyond pixels using a learned
similarity metric. ICML. arXiv:1512.09300
Rybkin O, Daniilidis K, Levine S (2021). Simple and effective VAE training with calibrated decoders.
ICML. arXiv:2006.13202
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hyper_bids.errors import InputError
from hyper_bids.generators.vaegan import Architecture
from hyper_bids.training import networks
from hyper_bids.training.settings import VaeGanTraining

if TYPE_CHECKING:
    import torch

# As usual for GANs (Radford et al. 2016).
_BETAS = (0.5, 0.999)
# Part of the learning rate that is left in the last epoch.
_LEAST = 0.1
# Weight of the discriminator's opinion beside the reconstruction, in the generator's loss. With
# three times as much, images are sharper and less like the original.
ADVERSARIAL = 0.003
_AVERAGES = (".norm.mean", ".norm.variance")


class Training:
    """The state of a training between two epochs.

    Parameters
    ----------
    settings : VaeGanTraining
    device : str
        ``"cpu"`` or ``"cuda:N"``.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    state : dict of str to tensor
        All arrays, as :func:`networks.shapes_of_training` says.
    optimisers : dict of str to torch.optim.Adam
        ``model`` (encoder and generator) and ``discriminator``.
    """

    def __init__(self, settings: VaeGanTraining, device: str = "cpu"):
        import torch

        self.settings, self.device, self.epoch = settings, device, 0
        self.architecture = Architecture(settings.resolution, settings.n_latents, settings.width)
        drawn = networks.initial_state(self.architecture, settings.random_seed)
        self.state = {name: tensor.to(device) for name, tensor in drawn.items()}
        self.optimisers = {}
        for group in ("model", "discriminator"):
            parameters = [self.state[name] for name in self.trained(group)]
            for tensor in parameters:
                tensor.requires_grad_(True)
            self.optimisers[group] = torch.optim.Adam(
                parameters, lr=settings.learning_rate, betas=_BETAS
            )

    @property
    def is_frozen(self) -> bool:
        """Whether batch norms use their running averages."""
        return self.epoch >= self.settings.averaging_epochs

    @property
    def rate(self) -> float:
        """Learning rate of this epoch; it falls from the first to the last on a line to a tenth."""
        done = self.epoch / max(1, self.settings.epochs - 1)
        return self.settings.learning_rate * (1 - (1 - _LEAST) * done)

    def trained(self, group: str) -> list[str]:
        """Return the names of the arrays that an optimiser changes, in its order."""
        # Biases of convolutions before a batch norm have no effect, and stay as they are.
        return [
            name
            for name in self.state
            if name.startswith("discriminator.") == (group == "discriminator")
            and not name.endswith((*_AVERAGES, ".conv.bias"))
        ]

    def weights(self) -> dict[str, np.ndarray]:
        """Return the arrays of the finished model, those of training left out."""
        kept = self.architecture.shapes()
        return {name: self.state[name].detach().cpu().numpy().copy() for name in kept}

    def run_epoch(
        self, images: np.ndarray, step_done: Callable[[int, dict[str, float]], None] | None = None
    ) -> dict[str, float]:
        """Pass over the images once, in an order and with noise that seed and epoch decide.

        Parameters
        ----------
        images : uint8 array of shape (n, resolution, resolution, 3)
            Two at least. What is left after the last full batch is left out of this epoch.
        step_done : callable, optional
            Told the number of images, and the losses, after each step.

        Returns
        -------
        dict of str to float
            Means over the epoch: ``pixels`` (root mean square error, of 1), ``KL`` (nats an image),
            and with a discriminator ``features`` (likewise) and ``judged`` (part of its judgements
            that were right).

        Raises
        ------
        InputError
            If the weights are no longer finite.
        """
        import torch

        adversarial = self.epoch >= self.settings.vae_epochs
        for optimiser in self.optimisers.values():
            optimiser.param_groups[0]["lr"] = self.rate
        # Of each epoch its own, so that one that goes on draws what one without a break draws.
        rng = np.random.default_rng([self.settings.random_seed, self.epoch])
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        totals: dict[str, float] = {}
        n_steps = 0
        for batch in self._batches(images, rng):
            losses = self._step(batch, noise, adversarial)
            n_steps += 1
            totals = {key: totals.get(key, 0.0) + value for key, value in losses.items()}
            if step_done is not None:
                step_done(len(batch), losses)
        means = {key: value / n_steps for key, value in totals.items()}
        if not all(map(math.isfinite, means.values())):
            raise InputError(
                f"epoch {self.epoch + 1}: training has diverged (losses {means}). Give a smaller "
                f"--learning-rate than {self.settings.learning_rate:g}, and --restart."
            )
        self.epoch += 1
        return means

    def _batches(self, images: np.ndarray, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        import torch

        size = min(self.settings.batch_size, len(images))
        order = rng.permutation(len(images))
        for start in range(0, len(images) - size + 1, size):
            chosen = images[np.sort(order[start : start + size])]
            batch = torch.from_numpy(chosen).to(self.device)
            yield batch.permute(0, 3, 1, 2).float().div_(255)

    def _step(self, images: torch.Tensor, noise, adversarial: bool) -> dict[str, float]:
        import torch

        model = self.optimisers["model"].param_groups[0]["params"]
        mean, log_spread = networks.encoded(self.state, images, self.is_frozen)
        drawn = torch.randn(mean.shape, generator=noise).to(self.device)
        latents = mean + drawn * log_spread.exp()
        made = networks.generated(self.state, latents, self.is_frozen)
        divergence = (mean**2 + (2 * log_spread).exp() - 1) / 2 - log_spread
        divergence = divergence.sum(dim=1).mean()
        error = (made - images).square().mean()
        loss = divergence / images[0].numel() + error.log() / 2
        told = {"pixels": error.item() ** 0.5, "KL": divergence.item()}
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
        if adversarial:
            told |= self._against(images, made, loss, noise)
        else:
            loss.backward(inputs=model)
        self.optimisers["model"].step()
        return told

    def _against(self, images, made, loss, noise) -> dict[str, float]:
        """Add the discriminator's part to the gradients, and let it learn."""
        import torch
        from torch.nn.functional import softplus

        state, names = self.state, self.trained("model")
        generator = [state[name] for name in names if name.startswith("generator.")]
        sizes = (len(images), self.settings.n_latents)
        invented = torch.randn(sizes, generator=noise).to(self.device)
        fancied = networks.generated(state, invented, self.is_frozen)
        wanted, real = networks.judged(state, images)
        features, copied = networks.judged(state, made)
        _, invented = networks.judged(state, fancied)
        distance = (features - wanted.detach()).square().mean()
        model = [state[name] for name in names]
        (loss + distance.log() / 2).backward(inputs=model, retain_graph=True)
        opposed = softplus(-copied).mean() + softplus(-invented).mean()
        (ADVERSARIAL * opposed).backward(inputs=generator, retain_graph=True)
        judgement = softplus(-real).mean() + (softplus(copied) + softplus(invented)).mean() / 2
        judge = [state[name] for name in self.trained("discriminator")]
        judgement.backward(inputs=judge)
        self.optimisers["discriminator"].step()
        right = (real > 0).float().mean() + (copied < 0).float().mean()
        right = right + (invented < 0).float().mean()
        return {"features": distance.item() ** 0.5, "judged": right.item() / 3}

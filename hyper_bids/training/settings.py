"""What a VAE-GAN is trained with. Imports the standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VaeGanTraining:
    """Settings of a training; two of the same settings and images give the same weights.

    Attributes
    ----------
    resolution : int
        Height and width of the images in pixels, a multiple of 32.
    n_latents : int
        Length of a latent vector.
    width : int
        A third of the channels of the encoder's first layer; the original has 64.
    epochs : int
        Passes over the images.
    batch_size : int
        Images a step.
    learning_rate : float
        Of Adam, in the first epoch; it falls to a tenth.
    vae_only : bool
        Leave out the discriminator.
    random_seed : int
        Of all that is drawn.
    """

    resolution: int = 64
    n_latents: int = 64
    width: int = 16
    epochs: int = 16
    batch_size: int = 16
    learning_rate: float = 1e-3
    vae_only: bool = False
    random_seed: int = 1412

    @property
    def averaging_epochs(self) -> int:
        """Epochs in which batch norms use the batch: the first fifth, but one at least."""
        return max(1, round(0.2 * self.epochs))

    @property
    def vae_epochs(self) -> int:
        """Epochs without a discriminator: all of them, or the first four fifths."""
        return self.epochs if self.vae_only else round(0.8 * self.epochs)

"""Training of a VAE-GAN against torch's own layers and losses; resumption; both commands."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hyper_bids import cli
from hyper_bids.errors import InputError, UsageError
from hyper_bids.generators import checkpoints, vaegan, weightfile
from hyper_bids.generators.eigenface import fit_eigenface, load_eigenface
from hyper_bids.generators.pictures import find_pictures, picture_batches
from hyper_bids.training import commands, networks, resume
from hyper_bids.training import vaegan as training_of_vaegan
from hyper_bids.training.settings import VaeGanTraining
from hyper_bids.training.vaegan import Training

TINY = VaeGanTraining(resolution=32, n_latents=5, width=1, epochs=6, batch_size=8, random_seed=3)


@pytest.fixture(autouse=True)
def one_thread():
    """Compute on one thread: more of them wait for each other where the arrays are so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def faces(rng):
    """Twenty-two uint8 images of 32 pixels: a disc on grey."""
    return discs(rng, 22)[0]


def discs(rng, n):
    """Return images of white discs, and planted in [0, 1], (n, 3): place, grey around them."""
    planted = rng.random((n, 3))
    y, x = np.mgrid[:32, :32] / 31
    centre = 0.3 + 0.4 * planted[:, :2]
    apart = np.hypot(y - centre[:, :1, None], x - centre[:, 1:, None])
    disc = 1 / (1 + np.exp((apart - 0.2) * 40))
    grey = 0.1 + 0.5 * planted[:, 2, None, None]
    grey = grey + disc * (0.95 - grey)
    return np.rint(255 * grey[..., None] * [1, 0.9, 0.7]).astype(np.uint8), planted


@pytest.fixture
def folder(faces, tmp_path):
    """Return a folder with the images as PNG."""
    (tmp_path / "faces").mkdir()
    for k, image in enumerate(faces):
        Image.fromarray(image).save(tmp_path / "faces" / f"{k:02d}.png")
    return tmp_path / "faces"


# Networks, against torch's layers


class Cropped(nn.Module):
    """What a transposed convolution of TensorFlow's leaves off."""

    def forward(self, x):
        return x[:, :, :-1, :-1]


def of_torch(state, scope, latent_layers):
    """Return a network of torch's layers with the weights of ``state``."""
    layers = []
    for k in range(1, 6):
        arrays = {p: state[f"{scope}.layer{k}.{p}"] for p in ("conv.weight", "conv.bias")}
        weight = arrays["conv.weight"]
        if scope == "encoder":
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, 2)
            before = [nn.ZeroPad2d((0, 1, 0, 1)), conv]
        else:
            conv = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 3, 2)
            before = [conv, Cropped()]
        norm = nn.BatchNorm2d(conv.out_channels, eps=1e-6, momentum=0.1)
        with torch.no_grad():
            conv.weight.copy_(weight)
            conv.bias.copy_(arrays["conv.bias"])
            for part in ("weight", "bias"):
                getattr(norm, part).copy_(state[f"{scope}.layer{k}.norm.{part}"])
        layers += [*before, norm, nn.ELU()]
    return nn.Sequential(*latent_layers(layers))


def dense_of(state, name):
    layer = nn.Linear(*state[f"{name}.weight"].shape[::-1])
    with torch.no_grad():
        layer.weight.copy_(state[f"{name}.weight"])
        layer.bias.copy_(state[f"{name}.bias"])
    return layer


@pytest.fixture
def training():
    return Training(TINY)


def test_networks_are_those_of_torchs_layers_and_the_export_is_their_evaluation_mode(
    training, faces
):
    state = training.state
    encoder = of_torch(
        state,
        "encoder",
        lambda layers: [*layers, nn.Flatten(), dense_of(state, "encoder.fc"),
                        dense_of(state, "encoder.mean"), nn.Tanh()],
    )  # fmt: skip
    generator = of_torch(
        state,
        "generator",
        lambda layers: [dense_of(state, "generator.fc"), nn.ELU(), nn.Unflatten(1, (16, 1, 1)),
                        *layers],
    )  # fmt: skip
    images = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for _ in range(3):
            mean, log_spread = networks.encoded(state, images)
            torch.testing.assert_close(mean, encoder(images))
            made = networks.generated(state, mean)
            torch.testing.assert_close(made, generator(mean))
        assert log_spread.shape == mean.shape
        assert made.std() > 0.1
        # Not the same in evaluation mode, after so few steps.
        encoder.eval(), generator.eval()
        weights = vaegan.prepare({k: torch.from_numpy(v) for k, v in training.weights().items()})
        expected = encoder(images)
        torch.testing.assert_close(networks.encoded(state, images, frozen=True)[0], expected)
        torch.testing.assert_close(networks.generated(state, mean, frozen=True), generator(mean))
        assert (expected - mean).abs().max() > 0.01
        torch.testing.assert_close(vaegan.encode_forward(weights, images), expected)
        torch.testing.assert_close(vaegan.generator_output(weights, mean), generator(mean))


def test_the_export_has_the_layout_of_the_image_model_and_no_array_of_training(training):
    architecture = vaegan.Architecture(32, 5, 1)
    assert {k: v.shape for k, v in training.weights().items()} == architecture.shapes()
    beside = set(training.state) - set(training.weights())
    assert all(name.startswith(("spread.", "discriminator.")) for name in beside)


# Losses, against torch's own


def first_step(settings, faces, monkeypatch, adversarial, weight=None):
    """Return a training after one step, the gradients it took, and what it told."""
    if weight is not None:
        monkeypatch.setattr(training_of_vaegan, "ADVERSARIAL", weight)
    training = Training(settings)
    training.epoch = settings.vae_epochs if adversarial else 0
    images = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    told = training._step(images, torch.Generator().manual_seed(7), adversarial)
    gradients = {k: v.grad for k, v in training.state.items() if v.grad is not None}
    return training, gradients, told


def parts_of_the_loss(faces, frozen):
    """Return networks before a step, and what the losses are made of, drawn as in a step."""
    training = Training(TINY)
    images = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    noise = torch.Generator().manual_seed(7)
    mean, log_spread = networks.encoded(training.state, images, frozen)
    latents = mean + torch.randn(mean.shape, generator=noise) * log_spread.exp()
    made = networks.generated(training.state, latents, frozen)
    invented = torch.randn(mean.shape, generator=noise)
    fancied = networks.generated(training.state, invented, frozen)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, log_spread.exp()), normal(0, 1))
    return training.state, images, made, fancied, divergence.sum(1).mean()


def test_the_first_phase_follows_the_gradient_of_divergence_and_likelihood(faces, monkeypatch):
    _, gradients, told = first_step(TINY, faces, monkeypatch, adversarial=False)
    state, images, made, _, divergence = parts_of_the_loss(faces, frozen=False)
    error = nn.functional.mse_loss(made, images)
    # The Gaussian whose variance is the error, with its constants left out.
    log_likelihood = torch.distributions.Normal(made, error.sqrt()).log_prob(images).mean()
    constant = -0.5 * np.log(2 * np.pi) - 0.5
    loss = divergence / images[0].numel() - (log_likelihood - constant)
    loss.backward()
    assert told["KL"] == pytest.approx(divergence.item(), rel=1e-5)
    assert told["pixels"] == pytest.approx(error.item() ** 0.5, rel=1e-5)
    assert not any(name.startswith("discriminator") for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, state[name].grad, rtol=1e-3, atol=1e-5)


def test_the_second_phase_adds_features_and_only_the_generator_works_against_the_judge(
    faces, monkeypatch
):
    _, gradients, _ = first_step(TINY, faces, monkeypatch, True, weight=0.0)
    _, opposed, _ = first_step(TINY, faces, monkeypatch, True, weight=10.0)
    state, images, made, fancied, divergence = parts_of_the_loss(faces, frozen=True)
    (wanted, real), (features, copied), (_, invented) = (
        networks.judged(state, x) for x in (images, made, fancied)
    )
    likelihood = ((made - images) ** 2).mean().log() / 2
    alike = ((features - wanted.detach()) ** 2).mean().log() / 2
    entropy = nn.functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    against = entropy(copied, ones) + entropy(invented, ones)
    judgement = entropy(real, ones) + (entropy(copied, zeros) + entropy(invented, zeros)) / 2
    own = [k for k in gradients if not k.startswith("discriminator")]
    base = torch.autograd.grad(
        divergence / images[0].numel() + likelihood + alike,
        [state[k] for k in own],
        retain_graph=True,
    )
    generator = [k for k in own if k.startswith("generator")]
    more = torch.autograd.grad(against, [state[k] for k in generator], retain_graph=True)
    more = dict(zip(generator, more, strict=True))
    for name, expected in zip(own, base, strict=True):
        torch.testing.assert_close(gradients[name], expected, rtol=1e-3, atol=1e-5)
        both = expected + 10 * more.get(name, torch.zeros(()))
        torch.testing.assert_close(opposed[name], both, rtol=1e-3, atol=1e-4)
    judge = [k for k in gradients if k.startswith("discriminator")]
    expected = torch.autograd.grad(judgement, [state[k] for k in judge])
    for name, gradient in zip(judge, expected, strict=True):
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)


def test_each_epoch_has_an_order_and_noise_of_its_own(faces, monkeypatch):
    seen = []

    def step(self, images, noise, adversarial):
        seen.append((images, torch.randn(3, generator=noise)))
        return {"pixels": 0.0}

    monkeypatch.setattr(Training, "_step", step)
    training = Training(TINY)
    for _ in range(2):
        training.run_epoch(faces)
    # Two batches of eight an epoch.
    assert len(seen) == 4
    for before, after in zip(seen[0], seen[2], strict=True):
        assert not torch.equal(before, after)


def test_reconstructions_and_latents_follow_the_images(rng):
    images, planted = discs(rng, 192)
    settings = dataclasses.replace(TINY, width=2, epochs=24, learning_rate=5e-3, vae_only=True)
    training = commands.train(images[:128], settings)
    weights = vaegan.prepare({k: torch.from_numpy(v) for k, v in training.weights().items()})
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    latents = vaegan.encode_forward(weights, shown)
    made = vaegan.generator_output(weights, latents)
    error = ((made - shown)[128:] ** 2).mean()
    baseline = ((shown[:128].mean(0) - shown[128:]) ** 2).mean()
    assert error < 0.25 * baseline
    # A linear map of the latents tells what was planted in images that were not trained on.
    design = np.c_[latents.numpy(), np.ones(192)]
    fitted = np.linalg.lstsq(design[:128], planted[:128])[0]
    residual = ((design @ fitted - planted)[128:] ** 2).mean(0)
    assert (residual < 0.25 * planted[128:].var(0)).all()


# Resumption


def test_a_training_that_goes_on_has_the_bits_of_one_without_a_break(faces, tmp_path):
    whole = commands.train(faces, TINY)
    path = tmp_path / "x.partial"
    # A break before, between and after the first steps of each phase.
    assert TINY.vae_epochs == 5
    for _ in range(TINY.epochs):
        training = Training(TINY)
        if path.exists():
            resume.load_progress(path, training, resume.checksum_of(faces))
        training.run_epoch(faces)
        resume.save_progress(path, training, resume.checksum_of(faces))
    assert training.epoch == whole.epoch == 6
    for name, array in whole.state.items():
        assert torch.equal(array, training.state[name]), name
    # Seed and epoch decide: another seed gives others.
    other = commands.train(faces, dataclasses.replace(TINY, random_seed=4))
    assert not np.array_equal(other.weights()["encoder.fc.weight"],
                              whole.weights()["encoder.fc.weight"])  # fmt: skip


FLAGS = ["--resolution", "32", "--latents", "5", "--width", "1", "--batch-size", "8",
         "--random-seed", "3", "--device", "cpu"]  # fmt: skip


def test_an_interrupted_command_goes_on_and_writes_the_file_of_one_that_was_not(
    folder, tmp_path, monkeypatch, said
):
    argv = ["train-vaegan", str(folder), *FLAGS, "--epochs", "4"]
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    assert cli.main([*argv[:2], str(whole), *argv[2:], "--name", "discs"]) == 0
    argv = [*argv[:2], str(out), *argv[2:], "--name", "discs"]
    run_epoch, partial = Training.run_epoch, tmp_path / "out.safetensors.partial"

    def interrupted(self, *args):
        if self.epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(self, *args)

    monkeypatch.setattr(Training, "run_epoch", interrupted)
    assert cli.main(argv) == 130
    assert partial.exists()
    assert not out.exists()
    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    assert cli.main(argv) == 0
    assert "going on after epoch 2 of 4" in said.text
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()
    model = checkpoints.load(out)
    assert (model.name, model.n_latents, model.image_shape) == ("discs", 5, (32, 32, 3))
    assert (model.latent_space, model.frame) == ("encoded", 1.0)
    assert model.generate(model.encode(np.zeros((2, 32, 32, 3)))).shape == (2, 32, 32, 3)
    assert weightfile.read_header(out).metadata["source"] == "trained on 22 images of faces"


def test_a_training_of_other_settings_or_images_is_refused_by_name(faces, tmp_path):
    path = tmp_path / "x.partial"
    training = Training(TINY)
    training.run_epoch(faces)
    resume.save_progress(path, training, resume.checksum_of(faces))
    other = dataclasses.replace(TINY, n_latents=6, vae_only=True)
    with pytest.raises(UsageError, match=r"1 epoch with n_latents 5 \(now 6\), vae_only False"):
        commands.train(faces, other, partial=path)
    with pytest.raises(UsageError, match=r"other images.*--restart"):
        commands.train(faces[::-1], TINY, partial=path)
    whole, header = path.read_bytes(), weightfile.read_header(path)
    arrays = {key: a.numpy() for key, a in weightfile.read_arrays(path, header).items()}
    for key, shape in (("weights/encoder.fc.weight", 3), ("exp_avg/encoder.fc.weight", 3),
                       ("step/encoder.fc.bias", None), ("exp_avg_sq/spread.bias", 0)):  # fmt: skip
        changed = {**arrays, key: arrays[key][:shape] if shape else np.zeros((2, 2))}
        weightfile.write(path, changed, header.metadata)
        with pytest.raises(InputError, match=f"another shape: {key}.*--restart"):
            commands.train(faces, TINY, partial=path)
        del changed[key]
        if not key.startswith("step"):
            weightfile.write(path, changed, header.metadata)
            with pytest.raises(InputError, match=f"missing.*{key}.*--restart"):
                commands.train(faces, TINY, partial=path)
    path.write_bytes(whole[:-3])
    with pytest.raises(InputError, match="truncated"):
        commands.train(faces, TINY, partial=path)
    weightfile.write(path, training.weights(), {"format": "hyper_bids"})
    with pytest.raises(InputError, match="not a training that was broken off"):
        commands.train(faces, TINY, partial=path)
    weightfile.write(path, arrays, {"format": resume.FORMAT})
    with pytest.raises(InputError, match="not a training that was broken off"):
        commands.train(faces, TINY, partial=path)


def test_restart_begins_anew(folder, tmp_path, said):
    out = tmp_path / "out.safetensors"
    partial = tmp_path / "out.safetensors.partial"
    partial.write_bytes(b"of something else")
    argv = ["train-vaegan", str(folder), str(out), *FLAGS, "--epochs", "1", "--vae-only"]
    assert cli.main(argv) == 65
    assert partial.read_bytes() == b"of something else"
    assert cli.main([*argv, "--restart"]) == 0
    assert out.exists()
    assert not partial.exists()


# What is refused


def test_weights_that_are_no_longer_finite_are_not_kept(faces, tmp_path):
    settings = dataclasses.replace(TINY, learning_rate=1e30)
    path = tmp_path / "x.partial"
    with pytest.raises(InputError, match=r"epoch \d: training has diverged.*--learning-rate"):
        commands.train(faces, settings, partial=path)
    for file in tmp_path.iterdir():
        arrays = weightfile.read_arrays(file, weightfile.read_header(file))
        assert all(torch.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("command", ["train-vaegan", "fit-eigenface"])
def test_nothing_is_overwritten_unless_it_is_asked_for(command, folder, tmp_path, said):
    flags = [*FLAGS, "--epochs", "1"] if command == "train-vaegan" else ["--components", "3"]
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"kept")
    for out, status, word in (
        (there, 73, "--overwrite"),
        (tmp_path / "out.pth", 64, ".safetensors"),
        (tmp_path / "absent" / "out.safetensors", 73, "no such folder"),
    ):
        assert cli.main([command, str(folder), str(out), *flags]) == status
        assert word in said.messages[-1]
    assert there.read_bytes() == b"kept"
    assert cli.main([command, str(folder), str(there), *flags, "--overwrite"]) == 0
    assert checkpoints.load(there).name == "there"


def test_wrong_images_and_sizes_are_refused(folder, tmp_path, said):
    out = str(tmp_path / "out.safetensors")
    (tmp_path / "one").mkdir()
    (folder / "00.png").rename(tmp_path / "one" / "00.png")
    for argv, status, word in (
        ([str(tmp_path / "one"), out, *FLAGS], 65, "2 at least"),
        ([str(tmp_path / "absent"), out, *FLAGS], 65, "no such file or folder"),
        ([str(folder), out, "--resolution", "48"], 64, "multiple of 32"),
        ([str(folder), out, "--latents", "0"], 64, "--latents"),
    ):
        assert cli.main(["train-vaegan", *argv]) == status
        assert word in said.messages[-1]
    (folder / "01.png").write_bytes(b"<html>")
    for command in ("train-vaegan", "fit-eigenface"):
        assert cli.main([command, str(folder), out]) == 65
        assert "01.png: an HTML page" in said.messages[-1]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", ["train-vaegan", "fit-eigenface"])
def test_help_loads_no_heavy_library(command):
    code = (
        "import sys\n"
        "from hyper_bids.cli import main\n"
        f"status = main([{command!r}, '--help'])\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'sklearn') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


# Eigenfaces of a folder


def test_eigenfaces_of_a_folder_are_those_of_its_images(folder, tmp_path, said):
    out = tmp_path / "faces.safetensors"
    argv = ["fit-eigenface", str(folder), str(out), "--components", "4", "--size", "16"]
    assert cli.main([*argv, "--name", "discs", "--licence", "CC0"]) == 0
    model = load_eigenface(out)
    (images,) = picture_batches(find_pictures(folder), (16, 16))
    expected = fit_eigenface(images, 4)
    np.testing.assert_array_equal(model.components, expected.components)
    np.testing.assert_array_equal(model.mean, expected.mean)
    assert (model.name, model.licence, model.n_images) == ("discs", "CC0", 22)
    assert model.source == "22 images of faces"
    assert "4 components with" in said.text
    assert cli.main(["fit-eigenface", str(folder), str(tmp_path / "all.safetensors")]) == 0
    assert load_eigenface(tmp_path / "all.safetensors").n_latents == 21

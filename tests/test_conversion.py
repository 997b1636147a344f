"""``hyper_bids convert-weights``, and public checkpoints given as they are."""

import numpy as np
import pytest
import torch
from test_formats_references import genforce_image, genforce_tensors, write_torch, zoo_tensors

from hyper_bids import cli
from hyper_bids.generators import checkpoints, weightfile


@pytest.fixture
def checkpoint(rng, tmp_path):
    """Return a checkpoint under genforce's names, and the arrays in it."""
    arrays = genforce_tensors(rng)
    path = tmp_path / "pggan.pth"
    write_torch(path, arrays, wrap=lambda tensors: {"generator_smooth": tensors})
    return path, arrays


def images_of(path, latents):
    return checkpoints.load(path).generate(latents)


def test_a_converted_checkpoint_gives_the_images_of_its_own_project(checkpoint, rng, tmp_path):
    path, arrays = checkpoint
    target = tmp_path / "weights.safetensors"
    assert cli.main(["convert-weights", str(path), str(target), "--name", "faces"]) == 0
    generator = checkpoints.load(target)
    latents = rng.standard_normal((2, generator.n_latents)).astype(np.float32)
    theirs = genforce_image(arrays, torch.from_numpy(latents).double()).numpy()
    expected = np.clip((theirs + 1) / 2, 0, 1)
    images = generator.generate(latents).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    assert generator.name == "faces"
    metadata = weightfile.read_header(target).metadata
    assert metadata["source"] == "genforce"
    assert metadata["licence"]


def test_a_public_checkpoint_can_be_given_as_it_is(checkpoint, rng, tmp_path):
    path, _ = checkpoint
    target = tmp_path / "weights.safetensors"
    assert cli.main(["convert-weights", str(path), str(target)]) == 0
    latents = rng.standard_normal((2, checkpoints.load(path).n_latents))
    np.testing.assert_array_equal(images_of(path, latents), images_of(target, latents))


def test_the_zoo_keeps_its_bias_of_each_unit(rng, tmp_path):
    path, target = tmp_path / "zoo.pth", tmp_path / "zoo.safetensors"
    write_torch(path, zoo_tensors(rng), wrap=lambda tensors: {"avgG": tensors})
    assert cli.main(["convert-weights", str(path), str(target)]) == 0
    assert weightfile.read_header(target).metadata["dense_biases"] == "16"
    latents = rng.standard_normal((2, checkpoints.load(path).n_latents))
    np.testing.assert_array_equal(images_of(path, latents), images_of(target, latents))


def test_what_cannot_be_converted_is_refused_and_nothing_is_overwritten(checkpoint, tmp_path, said):
    path, _ = checkpoint
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"kept")
    page = tmp_path / "page.pth"
    page.write_bytes(b"<!DOCTYPE html><html>")
    for source, target, status, word in (
        (path, there, 73, "not overwritten"),
        (path, tmp_path / "out.pth", 64, ".safetensors"),
        (path, tmp_path / "absent" / "out.safetensors", 73, "no such folder"),
        (tmp_path / "absent.pth", tmp_path / "out.safetensors", 64, "no such file"),
        (page, tmp_path / "out.safetensors", 65, "HTML page"),
        # Too long a name for the system, but one that can be asked for.
        (path, tmp_path / f"{'n' * 240}.safetensors", 73, "cannot be written"),
    ):
        assert cli.main(["convert-weights", str(source), str(target)]) == status
        assert word in said.messages[-1]
    assert there.read_bytes() == b"kept"
    assert not (tmp_path / "out.safetensors").exists()


def test_a_vaegan_of_tensorflow_is_converted_with_its_frame(rng, tmp_path, said):
    from test_tf_bundle import write_bundle
    from test_vaegan import drawn_variables

    arrays = {name: np.asarray(a, np.float32) for name, a in sorted(drawn_variables(rng).items())}
    arrays["discriminator/fc/W"] = np.zeros((3, 1), np.float32)
    write_bundle(tmp_path / "vaegan.ckpt", dict(sorted(arrays.items())))
    path, target = tmp_path / "vaegan.ckpt.index", tmp_path / "vaegan.safetensors"
    assert cli.main(["convert-weights", str(path), str(target), "--name", "celeba"]) == 0
    assert "VanRullen and Reddy's TensorFlow checkpoint, 64 pixels" in said.text
    theirs, ours = checkpoints.load(path), checkpoints.load(target)
    assert (ours.name, ours.frame, ours.latent_space) == ("celeba", theirs.frame, "encoded")
    assert ours.frame == 0.8
    latents = rng.standard_normal((2, 7))
    np.testing.assert_array_equal(ours.generate(latents), theirs.generate(latents))
    images = rng.random((2, 64, 64, 3), dtype=np.float32)
    np.testing.assert_array_equal(ours.encode(images), theirs.encode(images))
    metadata = weightfile.read_header(target).metadata
    assert metadata["source"] == "vaegan-tensorflow"
    assert "CelebA" in metadata["licence"]
    # Its values are missing.
    (tmp_path / "vaegan.ckpt.data-00000-of-00001").unlink()
    assert cli.main(["convert-weights", str(path), str(tmp_path / "b.safetensors")]) == 65
    assert "data-00000-of-00001" in said.messages[-1]

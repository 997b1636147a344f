"""Weight files that are not what was asked for: they are called what they are, nothing is run."""

import io
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import bids_tree
import numpy as np
import pytest
import torch
from test_bad_input import snapshot
from test_formats_references import (
    genforce_tensors,
    hyper_parameters,
    karras_variables,
    network,
    network_class,
    write_mxnet,
    write_torch,
)

from hyper_bids import cli
from hyper_bids.generators import checkpoints, pggan, saving


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return a dataset with six latents and no images."""
    root = tmp_path_factory.mktemp("dataset") / "ds"
    return bids_tree.make_dataset(root, participants=("01",), key="stim_id", n_latents=6)


@pytest.fixture
def refused(bids_dir, said, monkeypatch, tmp_path):
    """Return a function that gives a file to both commands, and checks how they refuse it.

    The last line must be one line, with the file's name and all ``words``; nothing may be written.
    """
    monkeypatch.chdir(tmp_path)

    def check(path, *words, participant=True, convert=True, status=65):
        before = snapshot(tmp_path)
        app = [str(bids_dir), "out", "participant", "--skip-bids-validation"]
        calls = [[*app, "--generator", str(path)]] if participant else []
        calls += [["convert-weights", str(path), "out.safetensors"]] if convert else []
        for argv in calls:
            said.clear()
            assert cli.main(argv) == status, said.text
            last = said.records[-1].getMessage()
            for word in (Path(path).name, *words):
                assert word in last, last
            assert "\n" not in last
            assert "Traceback" not in said.text
            assert snapshot(tmp_path) == before

    return check


def own_file(path, rng, **sizes):
    architecture = pggan.Architecture(64, **{"fmap_base": 512, "fmap_max": 16, **sizes})
    state = {key: rng.standard_normal(shape) for key, shape in architecture.shapes().items()}
    saving.save_network(path, "pggan", state, path.stem, "none")


def own(path, rng, monkeypatch):
    own_file(path, rng, n_latents=6)


def genforce(path, rng, monkeypatch):
    write_torch(path, genforce_tensors(rng), wrap=lambda tensors: {"generator_smooth": tensors})


def genforce_old(path, rng, monkeypatch):
    write_torch(path, genforce_tensors(rng), zipped=False)


def karras(path, rng, monkeypatch):
    made = network_class(monkeypatch)
    networks = tuple(network(made, karras_variables(rng)) for _ in range(3))
    path.write_bytes(pickle.dumps(networks, protocol=2))


def hyper(path, rng, monkeypatch):
    write_mxnet(path, hyper_parameters(rng))


WRITERS = {
    "own.safetensors": own,
    "genforce.pth": genforce,
    "older.pth": genforce_old,
    "karras.pkl": karras,
    "generator.params": hyper,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kept", [0.02, 0.6, 0.999])
def test_a_file_that_was_cut_off(name, kept, refused, rng, monkeypatch, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, rng, monkeypatch)
    checkpoints.load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    refused(path, "truncated")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("an empty file", "download it again")),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            ("Git LFS", "pull"),
        ),
        (b"\r\n<!DOCTYPE html><html>Virus scan warning</html>", ("HTML page", "download it again")),
        (b"\xef\xbb\xbf<HTML><body>Sign in</body></HTML>", ("HTML page", "download it again")),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ("XML page",)),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), ("an HDF5 file",)),
        (b"\x93NUMPY\x01\x00" + bytes(100), ("a NumPy .npy array",)),
        (b"\x1f\x8b\x08" + bytes(100), ("a gzip archive", "unpack")),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), ("a PNG picture",)),
        (b"just a few words", ("16 bytes of no known kind",)),
    ],
)
def test_something_else_under_the_name_of_weights(content, words, refused, tmp_path):
    path = tmp_path / "pggan_celebahq.pth"
    path.write_bytes(content)
    refused(path, *words, "docs/image-models.md")


def test_a_pointer_of_git_annex(refused, tmp_path):
    path = tmp_path / "pggan_celebahq.pth"
    path.write_bytes(b"/annex/objects/SHA256E-s92000000--0a1b.pth\n")
    refused(path, "without content (git-annex)", convert=False)
    refused(path, "git-annex pointer", "datalad get", participant=False)


def test_an_archive_of_other_things(refused, tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    refused(path, "a zip archive", "readme.txt")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    shutil.move(tmp_path / "a.npz", path)
    refused(path, "a zip archive", "a.npy")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["b1024.fromrgb.weight", "b4.out.weight"], "the discriminator of a GAN"),
        (["synthesis.b4.const", "mapping.fc0.weight"], "a StyleGAN, not a PGGAN"),
        (["conv1.weight", "bn1.weight", "layer1.0.conv1.weight"], "that recognises images"),
    ],
)
def test_another_network(keys, words, refused, tmp_path):
    path = tmp_path / "network.pth"
    torch.save({key: torch.zeros(4, 4, 3, 3) for key in keys}, path)
    refused(path, words)


def test_the_discriminator_of_a_gan(refused, rng, tmp_path):
    path = tmp_path / "pggan_celebahq1024.pth"
    tensors = {f"layer{k}.weight": torch.zeros(16, 16, 3, 3) for k in range(18)}
    tensors |= {f"input{k}.weight": torch.zeros(16, 3, 1, 1) for k in range(9)}
    torch.save({"discriminator": tensors}, path)
    refused(path, "keys discriminator", "generator's state_dict")
    torch.save(tensors, path)
    refused(path, "the discriminator of a GAN", "the generator's weights")


def test_a_network_of_half_a_resolution(refused, rng, tmp_path):
    path = tmp_path / "pggan.pth"
    arrays = genforce_tensors(rng)
    torch.save(
        {k: torch.from_numpy(v) for k, v in arrays.items() if not k.startswith("layer9.")}, path
    )
    refused(path, "pixels", "Missing", "layer9.weight")


def test_a_network_with_another_number_of_latents_than_the_dataset(refused, rng, tmp_path):
    path = tmp_path / "pggan.safetensors"
    own_file(path, rng, n_latents=7)
    refused(path, "takes 7 latents", "the dataset has 6", convert=False, status=64)


def test_a_folder_in_the_place_of_a_file(refused, tmp_path):
    (tmp_path / "weights").mkdir()
    refused(tmp_path / "weights", "a folder", "the file of weights in it", status=64)


def test_a_file_that_is_not_there(refused, tmp_path):
    refused(tmp_path / "absent.pth", "no such file", status=64)


def test_a_link_to_nowhere(refused, tmp_path):
    (tmp_path / "weights.pth").symlink_to(tmp_path / ".git" / "annex" / "objects" / "x")
    path = tmp_path / "weights.pth"
    refused(path, "without content (git-annex)", convert=False)
    refused(path, "a link to a file that is not here", participant=False, status=64)


def test_a_file_without_rights_to_read_it(refused, rng, monkeypatch, tmp_path):
    path = tmp_path / "weights.safetensors"
    own(path, rng, monkeypatch)
    whole = Path.open

    def closed(self, *args, **kwargs):
        # The root user may read everything, so that the system's answer is given here.
        if sys._getframe(1).f_globals["__name__"].startswith("hyper_bids.") and self == path:
            raise PermissionError(13, "Permission denied")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    refused(path, "cannot be read (Permission denied)")


def test_a_pickle_that_would_run_a_program(refused, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    refused(path, "a pickle that names", "nothing of it was run")
    with io.BytesIO() as stream:
        torch.save({"generator": Evil()}, stream)
        path.write_bytes(stream.getvalue())
    refused(path, "a pickle that names", "nothing of it was run")
    assert not (tmp_path / "ran").exists()

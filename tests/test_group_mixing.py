"""Results of other settings or versions: not averaged unless that is allowed, and then told."""

import json

import pytest
from group_results import KEYS, page, planted, read, run, stat, write_scores

from hyper_bids.bids.outputs import output_path
from hyper_bids.errors import InputError
from hyper_bids.group.mixing import differences, settings_of


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def said(**changes) -> dict:
    """Return what a participant's sidecars say; ``stage__name`` is a setting."""
    scores = {"SoftwareVersion": "1.0", "Settings": {"scores": {"n_permutations": 200}}}
    settings = {"voxels": {"n_voxels": 50, "decoder_mask": None}, "decoder": {"decoder": "ridge"}}
    decoder = {"SoftwareVersion": "1.0", "RandomSeed": 1, "Settings": settings}
    for name, value in changes.items():
        stage, _, setting = name.partition("__")
        if setting:
            (scores if stage == "scores" else decoder)["Settings"][stage][setting] = value
        else:
            scores[name] = decoder[name] = value
    return {**scores, "decoder": decoder}


DIFFERENCES = {
    "a setting of the voxels": (
        {"voxels__n_voxels": 100}, "n_voxels (voxels): 50 (sub-01, sub-03), 100 (sub-02)",
    ),
    "a setting of the decoder": ({"decoder__decoder": "dense"}, "decoder (decoder): ridge"),
    "a setting of the scores": ({"scores__n_permutations": 9}, "n_permutations (scores): 200"),
    "the version": ({"SoftwareVersion": "2.0"}, "version of the app: 1.0 (sub-01, sub-03), 2.0"),
    "the seed": ({"RandomSeed": 2}, "random_seed: 1 (sub-01, sub-03), 2 (sub-02)"),
    "a mask": (
        {"voxels__decoder_mask": "/data/v1.nii.gz"},
        "decoder_mask (voxels): none (sub-01, sub-03), a file (sub-02)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_results_that_differ_are_refused_and_what_differs_is_named_with_whose_it_is(out, rng, name):
    changes, words = DIFFERENCES[name]
    for label in ("01", "02", "03"):
        write_scores(out, label, planted(rng), **said(**(changes if label == "02" else {})))
    with pytest.raises(InputError) as caught:
        run(out)
    message = str(caught.value)
    assert caught.value.exit_status == 65
    assert words in message
    assert "--allow-mixed" in message
    assert "\n" not in message
    assert not (out / "group_stats.tsv").exists()


def test_mixed_results_that_are_allowed_are_averaged_and_told_in_page_and_tables(out, rng):
    write_scores(out, "01", planted(rng), **said())
    write_scores(out, "02", planted(rng), **said(voxels__n_voxels=100))
    run(out, "--allow-mixed")
    words = "n_voxels (voxels): 50 (sub-01), 100 (sub-02)"
    assert stat(out, KEYS[0])["n_participants"] == 2
    assert words in page(out)
    for name in ("group_metrics", "group_stats"):
        sidecar = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert sidecar["Mixed"] == [words]
        assert sidecar["Settings"]["group"] == {"allow_mixed": True, "align": "none"}


def test_those_of_one_choice_can_be_averaged_by_themselves(out, rng):
    for label in ("01", "02", "03"):
        write_scores(out, label, planted(rng), **said(voxels__n_voxels=50 + (label == "02")))
    run(out, "--participant-label", "01", "03")
    assert set(read(out, "group_metrics")["participant"]) == {"01", "03"}
    assert "different settings" not in page(out)


NO_NUMBERS = (
    "batch_size",
    "write_images",
    "generator",
    "feature_networks",
    "attribute_boundaries",
)


@pytest.mark.parametrize(
    "name",
    ["voxels__decoder_mask", *(f"decoder__{name}" for name in NO_NUMBERS)],
)
def test_a_mask_of_its_own_and_what_changes_no_number_are_no_difference(out, rng, name):
    for label in ("01", "02"):
        write_scores(out, label, planted(rng), **said(**{name: f"of sub-{label}"}))
    run(out)
    assert stat(out, KEYS[0])["n_participants"] == 2


def test_what_a_participants_files_do_not_tell_is_no_difference(out, rng):
    first = said()
    first.pop("decoder")
    write_scores(out, "01", planted(rng), **first)
    write_scores(out, "02", planted(rng), **said())
    run(out)
    assert stat(out, KEYS[0])["n_participants"] == 2


def test_decoders_of_other_methods_count_too(out, rng):
    for label in ("01", "02"):
        write_scores(out, label, planted(rng), others={"eigenface": planted(rng)}, **said())
        entities = {"subject": label, "task": "faces", "method": "eigenface"}
        path = (out / output_path("decoder", entities)).with_suffix(".json")
        content = said(decoder__cv="loo" if label == "01" else "5")["decoder"]
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"cv \(decoder\): loo \(sub-01\), 5 \(sub-02\)"):
        run(out)


@pytest.mark.parametrize("method", ["hyper", "vaegan"])
def test_image_models_are_read_from_beside_the_scores_of_images(out, rng, method):
    for label in ("01", "02"):
        write_scores(out, label, planted(rng), others={"vaegan": planted(rng)}, **said())
        entities = {"subject": label, "task": "faces"}
        entities |= {"method": method} if method != "hyper" else {}
        path = out / output_path("reconstructions", entities)
        path = path.with_name(f"{path.name.split('.')[0]}.json")
        content = {"Generator": "m.pt", "GeneratorChecksum": label * 32}
        path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"image model.*: m.pt 01010101 \(sub-01\), m.pt 0202"):
        run(out)


def test_image_models_and_networks_go_by_their_checksums_and_not_by_their_files():
    def told(generator, checksum, network, directions=()):
        return settings_of({
            "summary_metrics": {
                "Settings": {"scores": {"feature_networks": [network]}},
                "FeatureNetworks": [{"Name": "VGGFace", "SHA256": network}],
                "AttributeDirections": list(directions),
            },
            "reconstructions": {
                "Settings": {"images": {"generator": generator, "latent_norm": "prior"}},
                "Generator": generator, "GeneratorChecksum": checksum,
            },
        })  # fmt: skip

    same = {"01": told("/a/m.pt", "f" * 64, "e" * 64), "02": told("/b/m.pt", "f" * 64, "e" * 64)}
    assert differences(same) == []
    other = same | {"02": told("/b/m.pt", "0" * 64, "e" * 64)}
    assert differences(other) == ["image model: m.pt ffffffff (sub-01), m.pt 00000000 (sub-02)"]
    other = same | {"02": told("/a/m.pt", "f" * 64, "0" * 64)}
    assert differences(other) == ["network VGGFace: eeeeeeee (sub-01), 00000000 (sub-02)"]
    age = told("/a/m.pt", "f" * 64, "e" * 64, [{"Name": "age", "SHA256": "a" * 64}])
    fitted = told("/a/m.pt", "f" * 64, "e" * 64, [{"Name": "age", "FitRSquare": 0.5}])
    assert differences({"01": age, "02": fitted}) == []


def test_eigenfaces_of_each_participants_own_training_stimuli_are_no_difference():
    told = {}
    for label in ("01", "02"):
        images = {"Generator": "eigenface", "GeneratorChecksum": label * 32}
        told[label] = settings_of({"reconstructions, eigenface": images})
    assert differences(told) == []


def test_imported_and_estimated_responses_are_not_alike():
    told = {
        "01": settings_of({"betas": {"Settings": {"betas": {"hrf": "glover"}}}}),
        "02": settings_of({"betas": {"Settings": {}}}),
    }
    assert differences(told) == ["responses: estimated (sub-01), imported (sub-02)"]


def test_a_setting_that_everybody_has_otherwise_makes_a_short_message():
    told = {f"{k:03d}": {"n_voxels (voxels)": str(k)} for k in range(100)}
    (message,) = differences(told)
    assert message.endswith("and 96 more")
    told = {f"{k:03d}": {"n_voxels (voxels)": str(k % 2)} for k in range(100)}
    (message,) = differences(told)
    assert "0 (sub-000, sub-002, sub-004 and 47 more)" in message

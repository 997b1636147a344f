"""Settings: TOML there and back, what a file and the flags may say, and which of them wins."""

import argparse
import dataclasses
from dataclasses import fields

import pytest

from hyper_bids import arguments, config, converters
from hyper_bids.config import STAGES, Settings, from_toml, stage_of, to_toml, with_values
from hyper_bids.errors import UsageError

PLACES = ["raw", "out", "participant"]

# One value for every setting, each other than the default.
OTHER = {
    "bids_dir": "/data/raw bids",
    "output_dir": "out/ä \"quoted\" 'twice' \\ back",
    "analysis_level": "group",
    "refit_permutations": 99,
    "prior_samples": 50,
    "prior_images": "7",
    "methods": ("hyper", "eigenface", "own=/models/vae gan.safetensors"),
    "random_seed": 7,
    "estimator": "lss",
    "participant_label": ("01", "A"),
    "session_label": ("pre",),
    "task_id": ("faces", "houses"),
    "run_id": ("1", "02"),
    "space": "MNI152NLin2009cAsym",
    "desc_label": "denoised",
    "derivatives": ("fmriprep=/data/prep", "relative"),
    "bids_filter_file": "filter.json",
    "bids_database_dir": "index",
    "bids_database_wipe": True,
    "skip_bids_validation": True,
    "test_run_id": ("9",),
    "test_repeated": True,
    "allow_shared_stimuli": True,
    "no_realign": True,
    "hrf": "spm",
    "drift_order": "0",
    "noise_model": "ar1",
    "noise_components": "3",
    "shrinkage": "none",
    "confounds": ("motion24", "white_matter"),
    "dummy_scans": 3,
    "slice_time_ref": 0.1,
    "n_voxels": 12,
    "decoder_mask": "mask.nii.gz",
    "mask_labels": (0, 17),
    "standardise": "none",
    "decoder": "dense",
    "cv": "10",
    "epochs": 2,
    "learning_rate": 1.5e-7,
    "weight_decay": 0.0,
    "decoder_batch": 1,
    "generator": "weights.safetensors",
    "latent_norm": "none",
    "precision": "bf16",
    "batch_size": "3",
    "write_images": True,
    "atlas": "areas.nii.gz",
    "atlas_names": "areas.tsv",
    "no_maps": True,
    "n_permutations": 99,
    "feature_networks": ("dlib-face", "weights of mine, 2.pth"),
    "feature_layer": "fc6",
    "attribute_boundaries": "boundaries",
    "attribute_scores": "normalised",
    "allow_mixed": True,
    "align": "srm",
    "work_dir": "scratch",
    "nprocs": 5,
    "omp_nthreads": 2,
    "mem_mb": 16000,
    "device": "cuda:1",
    "use_plugin": "linear",
    "stop_on_first_crash": True,
}

# Words on the command line for each flag that sets a setting, and the value that they set.
FLAGS = {
    "--participant-label": (["01", "sub-A"], ("01", "A")),
    "--session-label": (["ses-pre"], ("pre",)),
    "--session-id": (["pre", "post"], ("pre", "post")),
    "--task-id": (["task-faces,houses"], ("faces", "houses")),
    "-t": (["faces"], ("faces",)),
    "--run-id": (["run-1", "02"], ("1", "02")),
    "--test-run-id": (["9"], ("9",)),
    "--test-repeated": ([], True),
    "--allow-shared-stimuli": ([], True),
    "--no-realign": ([], True),
    "--refit-permutations": (["1000"], 1000),
    "--prior-samples": (["500"], 500),
    "--prior-images": (["30"], "30"),
    "--methods": (["vaegan", "own=a=b.safetensors"], ("vaegan", "own=a=b.safetensors")),
    "--derivatives": (["fmriprep=/data/prep", "other"], ("fmriprep=/data/prep", "other")),
    "-d": (["prep"], ("prep",)),
    "--space": (["T1w"], "T1w"),
    "--desc-label": (["denoised"], "denoised"),
    "--bids-filter-file": (["filter.json"], "filter.json"),
    "--bids-database-dir": (["index"], "index"),
    "--bids-database-wipe": ([], True),
    "--skip-bids-validation": ([], True),
    "--skip-bids-validator": ([], True),
    "--hrf": (["spm"], "spm"),
    "--drift-order": (["0"], "0"),
    "--noise-model": (["ols"], "ols"),
    "--noise-components": (["0"], "0"),
    "--shrinkage": (["none"], "none"),
    "--confounds": (["motion24,csf", "white_matter"], ("motion24", "csf", "white_matter")),
    "--dummy-scans": (["3"], 3),
    "--slice-time-ref": (["0"], 0.0),
    "--n-voxels": (["12"], 12),
    "--decoder-mask": (["mask.nii.gz"], "mask.nii.gz"),
    "--mask-labels": (["3,4", "17", "--decoder-mask", "mask.nii.gz"], (3, 4, 17)),
    "--standardise": (["train"], "train"),
    "--decoder": (["ols"], "ols"),
    "--cv": (["5"], "5"),
    "--betas": (["lss"], "lss"),
    "--epochs": (["2"], 2),
    "--learning-rate": (["1e-3"], 1e-3),
    "--weight-decay": (["0.5"], 0.5),
    "--decoder-batch": (["7"], 7),
    "--generator": (["none"], "none"),
    "--latent-norm": (["none"], "none"),
    "--batch-size": (["3"], "3"),
    "--precision": (["auto"], "auto"),
    "--write-images": ([], True),
    "--atlas": (["areas.nii.gz"], "areas.nii.gz"),
    "--atlas-names": (["areas.tsv"], "areas.tsv"),
    "--no-maps": ([], True),
    "--n-permutations": (["99"], 99),
    "--feature-network": (["auto", "a,b.pth"], ("auto", "a,b.pth")),
    "--feature-layer": (["pool5"], "pool5"),
    "--attribute-boundaries": (["boundaries"], "boundaries"),
    "--attribute-scores": (["normalised"], "normalised"),
    "--allow-mixed": ([], True),
    "--align": (["srm"], "srm"),
    "--random-seed": (["0"], 0),
    "--work-dir": (["scratch"], "scratch"),
    "-w": (["scratch"], "scratch"),
    "--nprocs": (["5"], 5),
    "--nthreads": (["5"], 5),
    "--n-cpus": (["5"], 5),
    "--omp-nthreads": (["2"], 2),
    "--mem-mb": (["800"], 800),
    "--mem-gb": (["2"], 2048),
    "--mem": (["1.5G"], 1536),
    "--device": (["cuda:1"], "cuda:1"),
    "--use-plugin": (["multiproc"], "multiproc"),
    "--stop-on-first-crash": ([], True),
}

# Flags that concern one call, and are no part of the settings.
CALL_FLAGS = {
    "-h", "--help", "--version", "--config-file", "--dry-run", "--notrack", "-v", "--verbose",
    "-q", "--quiet",
}  # fmt: skip


def flat(settings: Settings) -> dict[str, object]:
    """Return name to value over the run and all stages."""
    values = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values |= {inner.name: getattr(value, inner.name) for inner in fields(value)}
        else:
            values[field.name] = value
    return values


def parsed(*words: str) -> Settings:
    return arguments.parse([*PLACES, *words])[0]


def written(tmp_path, text: str) -> str:
    path = tmp_path / "chosen settings.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Work in a folder with a file ``mask.nii.gz``: the mask must be there to be accepted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.nii.gz").touch()
    return tmp_path


# Stages and names


def test_the_values_of_these_tests_cover_every_setting_and_differ_from_its_default():
    default = flat(Settings())
    assert set(OTHER) == set(default)
    assert [name for name, value in OTHER.items() if value == default[name]] == []


def test_every_setting_belongs_to_one_stage_or_to_the_run():
    owners = {}
    for field in fields(Settings):
        if field.name in STAGES:
            for inner in fields(field.default_factory):
                owners.setdefault(inner.name, []).append(field.name)
        else:
            owners.setdefault(field.name, []).append(None)
    assert {name: where for name, where in owners.items() if len(where) != 1} == {}
    # `decoder` is a stage and a setting of that stage, so that its name alone means the setting.
    assert {name: stage_of(name) for name in owners} == {n: w[0] for n, w in owners.items()}


@pytest.mark.parametrize("name", ["n_voxel", "inputs", "betas", ""])
def test_a_name_that_is_no_setting_has_no_stage(name):
    with pytest.raises(KeyError):
        stage_of(name)
    with pytest.raises(KeyError):
        with_values(Settings(), {name: 1})


@pytest.mark.parametrize("name", OTHER)
def test_changing_one_setting_changes_it_alone_and_its_stage_alone(name):
    before = Settings()
    after = with_values(before, {name: OTHER[name]})
    assert flat(after) == flat(before) | {name: OTHER[name]}
    owner = stage_of(name) or name
    assert [f.name for f in fields(Settings) if getattr(before, f.name) != getattr(after, f.name)] \
        == [owner]  # fmt: skip
    assert before == Settings()


def test_settings_cannot_be_changed_in_place():
    for holder in (Settings(), *(getattr(Settings(), stage) for stage in STAGES)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(holder, fields(holder)[0].name, "x")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_as_plain_json_types_comes_back_equal(stage):
    settings = getattr(with_values(Settings(), OTHER), stage)
    plain = config.to_dict(settings)
    kinds = (str, int, float, bool, type(None))
    for value in plain.values():
        assert isinstance(value, kinds) or (
            type(value) is list and all(isinstance(entry, kinds) for entry in value)
        )
    assert config.from_dict(stage, plain) == settings


# TOML there and back


@pytest.mark.parametrize("record", [None, {"version": "9", "run_id": "x", "n_voxels": "none"}])
def test_settings_other_than_the_defaults_come_back_equal_from_toml(tmp_path, record):
    settings = with_values(Settings(), OTHER)
    text = to_toml(settings, record)
    assert with_values(Settings(), from_toml(written(tmp_path, text))) == settings
    assert ("[run]" in text) == (record is not None)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_alone_comes_back_equal_from_toml(tmp_path, stage):
    names = [f.name for f in fields(getattr(Settings(), stage))]
    settings = with_values(Settings(), {name: OTHER[name] for name in names})
    found = from_toml(written(tmp_path, to_toml(settings)))
    assert {name: found[name] for name in names} == {name: OTHER[name] for name in names}
    assert {type(found[name]) for name in names} == {type(OTHER[name]) for name in names}
    assert with_values(Settings(), found) == settings


def test_default_settings_come_back_equal_from_toml(tmp_path):
    assert with_values(Settings(), from_toml(written(tmp_path, to_toml(Settings())))) == Settings()


def test_a_table_holds_its_own_stage_and_no_other(tmp_path):
    text = "[betas]\ndummy_scans = 5\nconfounds = ['csf']\n[resources]\nnprocs = 3\n"
    found = from_toml(written(tmp_path, text))
    assert found == {"dummy_scans": 5, "confounds": ("csf",), "nprocs": 3}


def test_settings_may_stand_at_the_top_of_the_file_whatever_their_stage(tmp_path):
    text = "random_seed = 3\ndecoder = 'ols'\nmask_labels = [1, 2]\n[betas]\nhrf = 'spm'\n"
    found = with_values(Settings(), from_toml(written(tmp_path, text)))
    expected = Settings(
        random_seed=3,
        betas=config.BetaSettings(hrf="spm"),
        voxels=config.VoxelSettings(mask_labels=(1, 2)),
        decoder=config.DecoderSettings(decoder="ols"),
    )
    assert found == expected


def test_one_value_is_taken_for_a_list_of_one(tmp_path):
    found = from_toml(written(tmp_path, "[inputs]\ntask_id = 'faces'\n[voxels]\nmask_labels = 4\n"))
    assert found == {"task_id": ("faces",), "mask_labels": (4,)}


def test_a_whole_number_is_accepted_where_a_number_is_wanted(tmp_path):
    found = from_toml(written(tmp_path, "[betas]\nslice_time_ref = 1\n[decoder]\nweight_decay = 0"))
    assert found == {"slice_time_ref": 1.0, "weight_decay": 0.0}
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("[betas]\ndrift_order = 2", "drift_order", "2"),
        ("[betas]\nnoise_components = 0", "noise_components", "0"),
        ("cv = 10", "cv", "10"),
        ("[inputs]\ntest_run_id = 3", "test_run_id", ("3",)),
        ("[inputs]\nrun_id = [1, '02']", "run_id", ("1", "02")),
    ],
)
def test_a_whole_number_is_accepted_where_text_may_be_a_number(tmp_path, text, name, value):
    path = written(tmp_path, text)
    assert from_toml(path) == {name: value}
    assert flat(parsed("--config-file", path)) == flat(parsed()) | {name: value}


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("[betas]\ndummy_scans = true", "dummy_scans", "a whole number"),
        ("[betas]\ndummy_scans = 2.0", "dummy_scans", "a whole number"),
        ("[betas]\ndrift_order = true", "drift_order", "a string"),
        ("[betas]\ndrift_order = 2.0", "drift_order", "a string"),
        ("[betas]\nnoise_components = [2]", "noise_components", "a string"),
        ("[betas]\nslice_time_ref = false", "slice_time_ref", "a number"),
        ("[betas]\nslice_time_ref = '0.5'", "slice_time_ref", "a number"),
        ("[betas]\nhrf = 3.0", "hrf", "a string"),
        ("[betas]\nhrf = ['glover']", "hrf", "a string"),
        ("[betas]\nconfounds = ['csf', 3.5]", "confounds", "a string"),
        ("[voxels]\nmask_labels = [1, true]", "mask_labels", "a whole number"),
        ("[voxels]\nmask_labels = [[1, 2]]", "mask_labels", "a whole number"),
        ("[resources]\nnprocs = true", "nprocs", "a whole number"),
        ("[images]\nwrite_images = 1", "write_images", "true or false"),
        ("[images]\nwrite_images = 'yes'", "write_images", "true or false"),
        ("[inputs]\nspace = 2009-01-01", "space", "a string"),
        ("random_seed = '5'", "random_seed", "a whole number"),
        ("cv = false", "cv", "a string"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_file_name_and_what_is_wanted(
    tmp_path, text, name, kind
):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        from_toml(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path, name, kind):
        assert word in message, message


def test_an_unknown_table_is_refused_with_the_file_and_the_tables_that_are_known(tmp_path):
    path = written(tmp_path, "[beta]\nhrf = 'spm'\n")
    with pytest.raises(UsageError) as caught:
        from_toml(path)
    message = str(caught.value)
    for word in (path, "[beta]", *STAGES):
        assert word in message, message


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_setting_is_refused_with_file_table_and_the_settings_that_are_known(
    tmp_path, stage
):
    path = written(tmp_path, f"[{stage}]\nno_such_thing = 1\n")
    with pytest.raises(UsageError) as caught:
        from_toml(path)
    message = str(caught.value)
    known = [f.name for f in fields(getattr(Settings(), stage))]
    for word in (path, f"[{stage}]", "no_such_thing", *known):
        assert word in message, message


@pytest.mark.parametrize(
    "text",
    ["[betas]\nn_voxels = 3\n", "[inputs]\nrandom_seed = 3\n", "[voxels]\ndecoder = 'ols'\n"],
)
def test_a_setting_in_the_table_of_another_stage_is_refused(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match="unknown setting") as caught:
        from_toml(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("text", ["no_such_thing = 1\n", "inputs = 3\n", "[[inputs]]\nspace='x'\n"])
def test_an_unknown_setting_at_the_top_is_refused_with_file_and_known_names(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match="random_seed") as caught:
        from_toml(path)
    assert path in str(caught.value)


def test_a_file_that_is_absent_or_no_toml_is_refused_with_its_name(tmp_path):
    broken, latin = tmp_path / "broken.toml", tmp_path / "latin.toml"
    broken.write_text("[betas\n")
    latin.write_bytes(b"space = '\xe4'\n")
    for path in (tmp_path / "absent.toml", tmp_path, broken, latin):
        with pytest.raises(UsageError, match="config-file") as caught:
            from_toml(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# Flags


def option_strings() -> set[str]:
    parser = arguments.build_parser()
    return {text for action in parser._actions for text in action.option_strings}


def test_every_flag_sets_a_setting_or_concerns_the_call():
    assert option_strings() == set(FLAGS) | CALL_FLAGS


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_changes_the_setting_that_it_names_and_no_other(in_folder, flag):
    words, value = FLAGS[flag]
    dest = next(
        action.dest for action in arguments.build_parser()._actions if flag in action.option_strings
    )
    before, after = flat(parsed()), flat(parsed(flag, *words))
    assert after[dest] == value != before[dest]
    assert type(after[dest]) is type(value)
    more = {"decoder_mask": "mask.nii.gz"} if "--decoder-mask" in words else {}
    assert after == before | {dest: value} | more


@pytest.mark.parametrize("flag", sorted(f for f in FLAGS if "-" in f.removeprefix("--")[1:]))
def test_flags_in_underscore_spelling_mean_the_same(in_folder, flag):
    words, _ = FLAGS[flag]
    other = "--" + flag.removeprefix("--").replace("-", "_")
    assert parsed(other, *words) == parsed(flag, *words)
    if len(words) == 1:
        assert parsed(f"{other}={words[0]}") == parsed(flag, *words)


def test_underscores_and_hyphens_of_values_stay_as_they_are():
    settings = parsed("--work_dir=/a_b/c-d", "--derivatives", "my_prep=/x_y/z-z")
    assert settings.resources.work_dir == "/a_b/c-d"
    assert settings.inputs.derivatives == ("my_prep=/x_y/z-z",)
    settings = arguments.parse(["raw_bids", "out_x-y", "group"])[0]
    assert (settings.bids_dir, settings.output_dir) == ("raw_bids", "out_x-y")


def test_without_flags_the_settings_are_the_defaults():
    expected = Settings(bids_dir="raw", output_dir="out", analysis_level="participant")
    assert arguments.parse(PLACES) == (
        expected,
        {"dry_run": False, "verbose": False, "quiet": False, "notrack": False},
    )


def test_what_concerns_the_call_is_no_part_of_the_settings():
    settings, call = arguments.parse([*PLACES, "-vv", "--dry-run", "--notrack"])
    assert settings == parsed()
    assert call == {"dry_run": True, "verbose": 2, "quiet": False, "notrack": True}


@pytest.mark.parametrize(
    "words",
    [
        ["--participant-label", "01", "02"],
        ["--participant-label", "sub-01", "sub-02"],
        ["--participant-label", "01,02"],
        ["--participant-label", "sub-01,02,"],
        ["--participant-label", "01", "--participant-label", "sub-02"],
        ["--participant_label=01", "--participant_label=02"],
    ],
)
def test_labels_are_taken_with_and_without_prefix_with_commas_and_flags_repeated(words):
    assert parsed(*words).inputs.participant_label == ("01", "02")


@pytest.mark.parametrize("label", ["sub-", "su-01", "0 1", "../01", "01*", "ses-01", "ä"])
def test_what_is_no_label_is_refused_with_the_flag_and_what_was_given(label):
    with pytest.raises(UsageError, match="--participant-label") as caught:
        parsed("--participant-label", label)
    assert label in str(caught.value)


@pytest.mark.parametrize("word", ["", ","])
@pytest.mark.parametrize("flag", ["--participant-label", "--task-id", "--mask-labels"])
def test_a_flag_without_any_label_is_refused_and_does_not_mean_all(in_folder, flag, word):
    # As from a variable of the shell that is empty: --participant-label "$label".
    more = ["--decoder-mask", "mask.nii.gz"] if flag == "--mask-labels" else []
    with pytest.raises(UsageError, match=flag):
        parsed(*more, flag, word)


@pytest.mark.parametrize("dash", "–—―‐‑−－")
def test_a_dash_of_a_word_processor_is_refused_as_wrong_usage(dash):
    assert UsageError.exit_status == 64
    with pytest.raises(UsageError, match="dash"):
        parsed("--participant-label", "01", f"{dash}n-voxels", "5")
    with pytest.raises(UsageError) as caught:
        parsed(f"{dash}n-voxels", "5")
    assert f"{dash}n-voxels" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--no-such-flag"], "--no-such-flag"),
        (["--n-vox", "5"], "--n-vox"),
        (["--hrf", "fir"], "fir"),
        (["--betas", "optimized"], "optimized"),
        (["--noise-model", "ar2"], "ar2"),
        (["--shrinkage", "0.5"], "0.5"),
        (["--noise-components", "few"], "few"),
        (["--mem-mb", "5", "--mem", "5G"], "--mem"),
        (["--mask-labels", "3"], "--decoder-mask"),
        (["--decoder-mask", "no-such-file.nii"], "no-such-file.nii"),
    ],
)
def test_wrong_flags_are_usage_errors_that_say_what_was_wrong(in_folder, words, told):
    with pytest.raises(UsageError) as caught:
        parsed(*words)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argv", [[], ["raw"], ["raw", "out"], ["raw", "out", "subject"]])
def test_the_three_places_are_needed_and_the_level_is_one_of_two(argv):
    with pytest.raises(UsageError, match=r"analysis_level|output_dir"):
        arguments.parse(argv)


# The configuration file and the command line together


def test_the_file_sets_what_the_command_line_does_not(tmp_path):
    path = written(tmp_path, "random_seed = 5\n[betas]\nhrf = 'spm'\n[voxels]\nn_voxels = 8\n")
    found = parsed("--config-file", path)
    assert found == with_values(parsed(), {"random_seed": 5, "hrf": "spm", "n_voxels": 8})


@pytest.mark.parametrize("first", [True, False])
def test_the_command_line_wins_over_the_file_wherever_it_stands(tmp_path, first):
    path = written(
        tmp_path,
        "bids_dir = 'elsewhere'\n[voxels]\nn_voxels = 8\nstandardise = 'train'\n"
        "[inputs]\nparticipant_label = ['07']\n",
    )
    flags = ["--n-voxels", "9", "--participant-label", "01"]
    file = ["--config-file", path]
    found = parsed(*(flags + file if first else file + flags))
    assert (found.voxels.n_voxels, found.voxels.standardise) == (9, "train")
    # Labels of the two are not mixed.
    assert found.inputs.participant_label == ("01",)
    assert found.bids_dir == "raw"


def test_a_flag_that_says_the_default_wins_over_the_file(tmp_path):
    path = written(tmp_path, "[voxels]\nn_voxels = 8\n[betas]\nconfounds = ['none']\n")
    found = parsed("--config-file", path, "--n-voxels", "4096", "--confounds", "motion6")
    assert found == parsed()


def test_the_record_of_a_run_repeats_it(tmp_path):
    settings = parsed("--n-voxels", "9", "--confounds", "none", "--mem", "2G", "--cv", "loo")
    path = written(tmp_path, to_toml(settings, {"version": "1", "participant": "01"}))
    assert parsed("--config-file", path) == settings


REFUSED = {
    "hrf": "'fir'",
    "standardise": "'all'",
    "decoder": "'lasso'",
    "latent_norm": "'unit'",
    "use_plugin": "'slurm'",
    "drift_order": "-1",
    "noise_model": "'white'",
    "noise_components": "-3",
    "shrinkage": "'yes'",
    "dummy_scans": "-1",
    "slice_time_ref": "1.5",
    "n_voxels": "0",
    "cv": "'1'",
    "epochs": "0",
    "batch_size": "0",
    "n_permutations": "0",
    "random_seed": "-1",
    "nprocs": "0",
    "omp_nthreads": "-2",
    "mem_mb": "0",
    "device": "'gpu'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_flag_refuses_is_refused_in_a_file_too(tmp_path, name):
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        parsed(f"--{name.replace('_', '-')}={REFUSED[name].strip(chr(39))}")
    path = written(tmp_path, f"{name} = {REFUSED[name]}\n")
    with pytest.raises(UsageError, match=name.replace("_", "[-_]")):
        parsed("--config-file", path)


# Converters


@pytest.mark.parametrize(
    ("convert", "accepted"),
    [
        (converters.one_or_more, {"1": 1, "007": 7, "4096": 4096}),
        (converters.zero_or_more, {"0": 0, "3": 3}),
        (converters.fraction, {"0": 0.0, "1": 1.0, "0.25": 0.25, "1e-3": 0.001}),
        (converters.positive, {"0": 0.0, "2.5": 2.5, "1e3": 1000.0}),
        (converters.words, {"a": ("a",), "a,b": ("a", "b"), "a,": ("a",)}),
        (converters.whole_numbers, {"3": (3,), "0,12": (0, 12)}),
        (
            converters.megabytes,
            {"16G": 16 * 1024, "16GB": 16 * 1024, "16000M": 16000, "0.5 g": 512, "800mb": 800},
        ),
        (converters.cross_validation, {t: t for t in ("auto", "loo", "runs", "2", "10")}),
        (converters.auto_or_number, {t: t for t in ("auto", "0", "12")}),
        (converters.device, {t: t for t in ("auto", "cpu", "cuda", "cuda:0", "cuda:12")}),
        (converters.labels("run", "--run-id"), {"1": ("1",), "run-1,A+B": ("1", "A+B")}),
    ],
)
def test_what_a_converter_accepts_it_turns_into_this_value(convert, accepted):
    found = {text: convert(text) for text in accepted}
    assert found == accepted
    assert [type(v) for v in found.values()] == [type(v) for v in accepted.values()]


@pytest.mark.parametrize(
    ("convert", "texts"),
    [
        (converters.one_or_more, ["0", "-1", "1.0", "1e3", "", " 1", "1_000", "x"]),
        (converters.zero_or_more, ["-1", "0.5", "", "x"]),
        (converters.fraction, ["-0.1", "1.01", "nan", "inf", "", "half"]),
        (converters.positive, ["-0.1", "nan", "inf", "-inf", "", "x"]),
        (converters.whole_numbers, ["-3", "1,x", "1.5"]),
        (converters.megabytes, ["16", "16T", "G", "-1G", "1e3M", ""]),
        (converters.megabytes, ["0G", "0M", "0.0001G"]),  # nothing is not "no limit"
        (converters.cross_validation, ["1", "0", "-2", "2.5", "kfold", "", "LOO"]),
        (converters.auto_or_number, ["-1", "2.5", "Auto", "", " 1", "\N{SUPERSCRIPT TWO}", "٣"]),
        (converters.device, ["gpu", "cuda:", "cuda:x", "cuda0", "", "CPU", "cpu "]),
    ],
)
def test_what_a_converter_refuses_is_named_in_its_complaint(convert, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            pytest.fail(f"{text!r} was accepted as {convert(text)!r}")
        assert repr(text.split(",")[-1]) in str(caught.value)


def test_choices_of_the_flags_are_those_that_a_file_may_have(tmp_path):
    for action in arguments.build_parser()._actions:
        if not action.choices or action.dest == "analysis_level":
            continue
        for choice in action.choices:
            path = written(tmp_path, f"{action.dest} = '{choice}'\n")
            found = parsed("--config-file", path)
            assert found == with_values(parsed(), {action.dest: choice})
            assert found == parsed(action.option_strings[0], choice)

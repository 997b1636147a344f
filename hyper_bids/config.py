"""Settings of a run: frozen dataclasses, one for each stage, read from and written to TOML.

A stage is given its own settings only, so that changing the decoder does not touch what was
computed before it. Defaults stand here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from hyper_bids.errors import UsageError


@dataclass(frozen=True)
class InputSettings:
    """Which files of the dataset are used, and which trials test."""

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    run_id: tuple[str, ...] = ()
    space: str | None = None
    desc_label: str = "preproc"
    derivatives: tuple[str, ...] = ()
    bids_filter_file: str | None = None
    bids_database_dir: str | None = None
    bids_database_wipe: bool = False
    skip_bids_validation: bool = False
    test_run_id: tuple[str, ...] = ()
    test_repeated: bool = False
    allow_shared_stimuli: bool = False
    no_realign: bool = False


@dataclass(frozen=True)
class BetaSettings:
    """How one response a trial is estimated from the BOLD signal."""

    estimator: str = "optimised"
    hrf: str = "auto"
    drift_order: str = "auto"
    noise_model: str = "auto"
    noise_components: str = "auto"
    shrinkage: str = "auto"
    confounds: tuple[str, ...] = ("motion6",)
    dummy_scans: int = 0
    slice_time_ref: float = 0.5


@dataclass(frozen=True)
class VoxelSettings:
    """Which voxels the decoder sees, and how their responses are standardised."""

    n_voxels: int = 4096
    decoder_mask: str | None = None
    mask_labels: tuple[int, ...] = ()
    standardise: str = "run"


@dataclass(frozen=True)
class DecoderSettings:
    """The map from voxels to latents."""

    decoder: str = "ridge"
    cv: str = "auto"
    epochs: int = 1500
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    decoder_batch: int = 30
    refit_permutations: int = 0


@dataclass(frozen=True)
class ImageSettings:
    """The image model that turns latents into images."""

    generator: str = "auto"
    latent_norm: str = "prior"
    precision: str = "float32"
    batch_size: str = "auto"
    write_images: bool = False
    prior_images: str = "auto"


@dataclass(frozen=True)
class MapSettings:
    """Where in the brain: regions that maps are summed up by, and whether there are maps."""

    atlas: str | None = None
    atlas_names: str | None = None
    no_maps: bool = False


@dataclass(frozen=True)
class ScoreSettings:
    """Scores and permutation tests."""

    n_permutations: int = 10_000
    prior_samples: int = 1000
    feature_networks: tuple[str, ...] = ("auto",)
    feature_layer: str | None = None
    attribute_boundaries: str | None = None
    attribute_scores: str = "raw"


@dataclass(frozen=True)
class GroupSettings:
    """What participants' results are put together, and how."""

    allow_mixed: bool = False
    align: str = "none"


@dataclass(frozen=True)
class ResourceSettings:
    """Where and with what a run computes; never part of a result."""

    work_dir: str | None = None
    nprocs: int | None = None
    omp_nthreads: int | None = None
    mem_mb: int | None = None
    device: str = "auto"
    use_plugin: str = "auto"
    stop_on_first_crash: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that the user chose for one run of the app."""

    bids_dir: str = ""
    output_dir: str = ""
    analysis_level: str = "participant"
    methods: tuple[str, ...] = ("hyper",)
    random_seed: int = 1412
    inputs: InputSettings = field(default_factory=InputSettings)
    betas: BetaSettings = field(default_factory=BetaSettings)
    voxels: VoxelSettings = field(default_factory=VoxelSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    maps: MapSettings = field(default_factory=MapSettings)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    resources: ResourceSettings = field(default_factory=ResourceSettings)


STAGES: tuple[str, ...] = tuple(
    f.name for f in dataclasses.fields(Settings) if dataclasses.is_dataclass(f.default_factory)
)


def stage_of(name: str) -> str | None:
    """Return the stage that holds the setting ``name``; None for one of the run itself."""
    for stage in STAGES:
        if name in _field_types(_stage_class(stage)):
            return stage
    if name in _field_types(Settings) and name not in STAGES:
        return None
    raise KeyError(name)


def with_values(settings: Settings, values: dict[str, object]) -> Settings:
    """Return ``settings`` with the named values replaced, whichever stage they belong to."""
    changed: dict[str | None, dict[str, object]] = {}
    for name, value in values.items():
        changed.setdefault(stage_of(name), {})[name] = value
    top = changed.pop(None, {})
    for stage, new in changed.items():
        top[stage] = dataclasses.replace(getattr(settings, stage), **new)
    return dataclasses.replace(settings, **top)


def from_toml(path: str | os.PathLike) -> dict[str, object]:
    """Read settings from a TOML file.

    Parameters
    ----------
    path : path
        A file with one table a stage (``[inputs]``, ``[betas]``, ...), as the app writes it to
        ``logs/``. A setting may also stand at the top of the file, outside any table.

    Returns
    -------
    dict
        Setting name to value; the values have the types of the settings.

    Raises
    ------
    UsageError
        If the file cannot be read, is no TOML, or holds an unknown table, key or type.
    """
    import tomllib

    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config-file {path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config-file {path}: not a TOML file ({error}).") from None
    # Written by the app beside the settings, as a record; nothing to be set.
    tables.pop("run", None)
    values: dict[str, object] = {}
    for key, value in tables.items():
        entries = value if isinstance(value, dict) else {key: value}
        table = key if isinstance(value, dict) else None
        if table is not None and table not in STAGES:
            raise UsageError(
                f"--config-file {path}: unknown table [{table}]. Known tables: {', '.join(STAGES)}."
            )
        for name, entry in entries.items():
            values[name] = _checked(path, table, name, entry)
    return values


def to_toml(settings: Settings, record: dict[str, object] | None = None) -> str:
    """Write ``settings`` as TOML, with ``record`` (version, date, run id) in a table of its own."""
    import tomli_w

    tables = _without_none(dataclasses.asdict(settings))
    if record:
        tables["run"] = record
    return tomli_w.dumps(tables)


def to_dict(stage: object) -> dict[str, object]:
    """Return a stage's settings as plain JSON types, for sidecars and for the cache."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(stage).items()
    }


def from_dict(stage: str, values: dict[str, object]) -> object:
    """Return the settings of ``stage`` from what :func:`to_dict` gave."""
    return _stage_class(stage)(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    )


def _stage_class(stage: str) -> type:
    return next(f.default_factory for f in dataclasses.fields(Settings) if f.name == stage)


def _field_types(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _without_none(tables: dict) -> dict:
    # TOML has no null: a setting that is not there has its default.
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in tables.items()
        if value is not None
    }


def _checked(path: object, table: str | None, name: str, value: object) -> object:
    where = f"--config-file {path}: " + (f"[{table}] " if table else "")
    try:
        stage = stage_of(name)
    except KeyError:
        stage = "unknown"
    if stage == "unknown" or (table is not None and stage != table):
        known = sorted(_field_types(_stage_class(table) if table else Settings))
        raise UsageError(f"{where}unknown setting {name!r}. Known: {', '.join(known)}.")
    wanted = _field_types(_stage_class(stage) if stage else Settings)[name]
    try:
        return _as_type(value, wanted)
    except TypeError:
        raise UsageError(
            f"{where}{name} = {value!r} has the wrong type; {_type_name(wanted)} is wanted."
        ) from None


def _as_type(value: object, wanted: object) -> object:
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(wanted) if kind is not type(None)]
        return _as_type(value, kinds[0])
    if origin is tuple:
        kind = typing.get_args(wanted)[0]
        entries = value if isinstance(value, list) else [value]
        return tuple(_as_type(entry, kind) for entry in entries)
    if wanted in (float, str) and isinstance(value, int) and not isinstance(value, bool):
        return wanted(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError
    return value


def _type_name(wanted: object) -> str:
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return _type_name(typing.get_args(wanted)[0])
    if origin is tuple:
        return f"a list ({_type_name(typing.get_args(wanted)[0])} each)"
    return names[wanted]

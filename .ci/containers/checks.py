"""What .ci/container checks in an image and in results; run with a bare Python.

``checks.py image INSPECT.json ROOT TRACES VERSION REVISION``
``checks.py score DERIVATIVES METRIC AT_LEAST``
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

LARGEST = 1.8e9  # bytes, of an image for CPUs
ENTRY = ["/opt/hyper_bids/bin/hyper_bids"]
PREFIX = "org.opencontainers.image."
# Where settings of package managers could have been left; libraries' own code names hosts, too.
LOOKED_AT = ("etc", "root", "home", "var", "tmp", "run", "mnt", "srv", "opt/hyper_bids/pyvenv.cfg")
NAMES = {"ca.crt", "pip.conf", ".pip", ".netrc", ".pypirc", "uv.toml"}


def image(inspected: Path, root: Path, traces: Path, version: str, revision: str) -> None:
    """Check an image by its configuration and its files."""
    (about,) = json.loads(inspected.read_text("utf-8"))
    config = about["Config"]
    labels = config.get("Labels") or {}
    for name, value in (("title", "hyper_bids"), ("version", version), ("revision", revision),
                        ("licenses", "Apache-2.0")):  # fmt: skip
        expect(
            labels.get(PREFIX + name) == value,
            f"label {name}: {labels.get(PREFIX + name)}, not {value}",
        )
    expect(
        config.get("Entrypoint") == ENTRY, f"entry point: {config.get('Entrypoint')}, not {ENTRY}"
    )
    expect(not config.get("User"), f"user: {config.get('User')}, not left open")
    package = [
        line
        for line in config["Env"]
        if line.startswith(("PIP_", "UV_", "http_proxy", "https_proxy"))
    ]
    expect(not package, f"package settings in the environment: {package}")
    torch = next(root.glob("opt/hyper_bids/lib/python3*/site-packages/torch/version.py")).read_text(
        "utf-8"
    )
    for_cpu = "cuda: Optional[str] = None" in torch
    size = about["Size"]
    if for_cpu:
        expect(size < LARGEST, f"{size / 1e9:.2f} GB; a CPU image may have {LARGEST / 1e9:.1f}")
    found = left_behind(root, traces.read_text("utf-8").split())
    expect(not found, f"package settings in files: {found}")
    print(f"{size / 1e9:.2f} GB for {'CPUs' if for_cpu else 'GPUs, whose size is not limited'}")


def left_behind(root: Path, traces: list[str]) -> list[str]:
    """Return the files that name a place of packages, or have a package manager's settings."""
    found = []
    for top in LOOKED_AT:
        for folder, _, names in os.walk(root / top):
            for path in (Path(folder) / name for name in names):
                if path.is_symlink() or not path.is_file():
                    continue
                content = path.read_bytes()
                if path.name in NAMES or any(trace.encode() in content for trace in traces):
                    found.append(f"/{path.relative_to(root)}")
    content = (root / "opt/hyper_bids/pyvenv.cfg").read_text("utf-8")
    return found + [trace for trace in traces if trace in content]


def score(derivatives: Path, metric: str, at_least: float) -> None:
    """Check a score of the first participant, of single trials."""
    (path,) = derivatives.glob("sub-01/**/*_desc-summary_metrics.tsv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t")
                if row["metric"] == metric and row["variant"] == "latents, single trials"
                and row["control"] == "n/a"]  # fmt: skip
    value = float(rows[0]["value"])
    expect(value >= at_least, f"{metric} {value}, not at least {at_least}")
    expect((derivatives / "group.html").is_file(), "no page of the group")
    print(f"{metric} {value:.3f}, at least {at_least}")


def expect(holds: bool, otherwise: str) -> None:
    """End with a message unless something holds."""
    if not holds:
        sys.exit(otherwise)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "image":
        image(*map(Path, given[:3]), *given[3:])
    else:
        score(Path(given[0]), given[1], float(given[2]))

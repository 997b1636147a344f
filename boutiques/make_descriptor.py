"""Write boutiques/descriptor.json, the command line as Boutiques (schema 0.5) describes it.

``python boutiques/make_descriptor.py`` after a flag has changed; the tests compare the two.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hyper_bids.arguments.parser import build_parser

FOLDER = Path(__file__).resolve().parent
# Metavariables that stand for a file or folder of the user's.
FILES = ("FILE", "DIR")
NUMBERS = ("N", "X", "MB", "GB")


def descriptor() -> dict:
    """Return the descriptor, made from the parser of the app."""
    inputs = [
        described(action)
        for action in build_parser()._actions
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction)
    ]
    keys = " ".join(one["value-key"] for one in inputs)
    return {
        "name": "hyper_bids",
        "tool-version": (FOLDER.parent / "version").read_text("utf-8").strip(),
        "description": "A BIDS App that reconstructs what people saw from their brain activity",
        "schema-version": "0.5",
        "command-line": f"/opt/hyper_bids/bin/hyper_bids {keys}",
        "container-image": {"type": "docker", "image": "hyper:latest"},
        "inputs": inputs,
        "output-files": [
            {
                "id": "results",
                "name": "BIDS derivatives",
                "path-template": "[OUTPUT_DIR]",
                "optional": False,
            }
        ],
        "tags": {"domain": ["neuroinformatics", "fmri", "bids"]},
    }


def described(action: argparse.Action) -> dict:
    """Return one flag or position as an input of Boutiques."""
    flags = [flag for flag in action.option_strings if flag.startswith("--")] or [action.dest]
    name = flags[0].lstrip("-").replace("-", "_")
    one = {
        "id": name,
        "name": name.replace("_", " "),
        "description": action.help,
        "value-key": f"[{name.upper()}]",
        "optional": bool(action.option_strings),
        "type": kind(action),
    }
    if action.option_strings:
        one["command-line-flag"] = flags[0]
    if action.choices:
        one["value-choices"] = list(action.choices)
    if action.nargs == "+":
        one |= {"list": True, "list-separator": " "}
    return one


def kind(action: argparse.Action) -> str:
    """Return the type that Boutiques gives to an argument."""
    if action.nargs == 0:
        return "Flag"
    if action.metavar in NUMBERS:
        return "Number"
    if action.metavar in FILES or action.dest == "bids_dir":
        return "File"
    return "String"


def text() -> str:
    """Return the descriptor as the file has it."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (FOLDER / "descriptor.json").write_text(text(), "utf-8")

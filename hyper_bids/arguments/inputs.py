"""Flags: what is read."""

from __future__ import annotations

from hyper_bids.converters import (
    Extend,
    Parser,
    labels,
)


def add_selection(parser: Parser) -> None:
    """Add the flags that say what is read."""
    group = parser.add_argument_group("what is read")
    _add_labels(group)
    group.add_argument(
        "--test-repeated",
        action="store_true",
        help="stimuli shown in more than one run are the test set",
    )
    group.add_argument(
        "--allow-shared-stimuli",
        action="store_true",
        help="let one stimulus stand in training and test (categories; not for identities)",
    )
    group.add_argument(
        "-d",
        "--derivatives",
        nargs="+",
        action="extend",
        metavar="[NAME=]PATH",
        help="preprocessed BOLD, masks and confounds (fMRIPrep or alike); else raw BOLD",
    )
    group.add_argument(
        "--no-realign",
        action="store_true",
        help="raw BOLD is aligned already: leave it as it is",
    )
    group.add_argument("--space", metavar="SPACE", help="space of the preprocessed BOLD")
    group.add_argument(
        "--desc-label", metavar="DESC", help="desc- of the preprocessed BOLD (preproc)"
    )
    group.add_argument("--bids-filter-file", metavar="FILE", help='JSON: {"bold": {entity: value}}')
    group.add_argument("--bids-database-dir", metavar="DIR", help="keep pybids' index here")
    group.add_argument("--bids-database-wipe", action="store_true", help="build that index anew")
    group.add_argument(
        "--skip-bids-validation",
        "--skip-bids-validator",
        dest="skip_bids_validation",
        action="store_true",
        help="do not run the BIDS validator, where one is installed",
    )


def _add_labels(group) -> None:
    for flag, alias, prefix, dest in (
        ("--participant-label", (), "sub", "participant_label"),
        ("--session-label", ("--session-id",), "ses", "session_label"),
        ("--task-id", ("-t",), "task", "task_id"),
        ("--run-id", (), "run", "run_id"),
        ("--test-run-id", (), "run", "test_run_id"),
    ):
        text = (
            "runs whose trials test (where the events do not say)"
            if dest == "test_run_id"
            else f"labels, with or without {prefix}-"
        )
        group.add_argument(
            flag,
            *alias,
            dest=dest,
            nargs="+",
            action=Extend,
            metavar="LABEL",
            type=labels(prefix, flag),
            help=text,
        )

"""The parser of all commands: the text of a flag to its value, or what would be accepted."""

from __future__ import annotations

import argparse
import re

from hyper_bids.errors import UsageError

# The dashes that word processors put where a hyphen was typed.
_DASHES = re.compile("^[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")


class Parser(argparse.ArgumentParser):
    """Argument parser whose complaints are errors of the app (exit status 64)."""

    def error(self, message: str) -> None:
        """Raise the complaint with the usage line's hint."""
        raise UsageError(f"{message}. See {self.prog} --help.")


def with_hyphens(argv: list[str]) -> list[str]:
    """Spell flags with hyphens: ``--task_id`` is taken as ``--task-id``, as in other BIDS Apps."""
    return [re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in argv]


def labels(prefix: str, flag: str):
    """Return a converter for labels given with or without ``prefix``, commas allowed."""

    def convert(text: str) -> tuple[str, ...]:
        found = []
        for token in filter(None, text.split(",")):
            if _DASHES.match(token):
                raise argparse.ArgumentTypeError(
                    f"{token!r} begins with a dash that is not ASCII, as word processors write it; "
                    f"type the flag again with plain hyphens"
                )
            label = token.removeprefix(f"{prefix}-")
            if not re.fullmatch(r"[0-9A-Za-z+]+", label):
                raise argparse.ArgumentTypeError(
                    f"{token!r} is not a label; letters and digits are accepted, with or without "
                    f"{prefix}- before them"
                )
            found.append(label)
        return _some(text, found)

    convert.__name__ = flag
    return convert


def method(text: str) -> tuple[str, ...]:
    """Convert ``NAME`` or ``NAME=FILE``; the name is letters and digits."""
    name = text.partition("=")[0]
    if not re.fullmatch(r"[0-9A-Za-z]+", name):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a method; NAME or NAME=FILE is accepted, a name of letters and digits"
        )
    return (text,)


class Extend(argparse.Action):
    """Collect the tuples that a converter gives, over several words and several uses."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Add ``values`` to what is there."""
        held = getattr(namespace, self.dest, ())
        groups = values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, held + tuple(v for group in groups for v in group))


def one_or_more(text: str) -> int:
    """Convert a whole number above zero."""
    return _whole(text, 1)


def zero_or_more(text: str) -> int:
    """Convert a whole number from zero."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def fraction(text: str) -> float:
    """Convert a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def positive(text: str) -> float:
    """Convert a number of zero or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def above_zero(text: str) -> float:
    """Convert a number above zero."""
    value = positive(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def words(text: str) -> tuple[str, ...]:
    """Convert a word, or several joined by commas."""
    return _some(text, [word for word in text.split(",") if word])


def name_or_path(text: str) -> tuple[str]:
    """Convert a name or a path, which may hold commas."""
    return _some(text, [text] if text.strip() else [])


def _some(text: str, found: list[str]) -> tuple[str, ...]:
    # An empty variable of the shell must not come to mean "all".
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is empty; leave out the flag to take all")
    return tuple(found)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Convert whole numbers, commas allowed."""
    return tuple(zero_or_more(word) for word in words(text))


def megabytes(text: str) -> int:
    """Convert a size with a unit (``16G``, ``800M``) to megabytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GM])B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no unit, and other apps disagree on it; write 16G or 16000M"
        )
    size = int(float(match[1]) * (1024 if match[2] == "G" else 1))
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1M")
    return size


def cross_validation(text: str) -> str:
    """Convert ``auto``, ``loo``, ``runs`` or a number of folds."""
    if text in ("auto", "loo", "runs") or (text.isdecimal() and int(text) >= 2):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is none of auto, loo, runs, or a number of folds from 2"
    )


def auto_or_number(text: str) -> str:
    """Convert ``auto`` or a whole number from 0."""
    if text == "auto" or (text.isdecimal() and text.isascii()):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number from 0")


def auto_or_more(text: str) -> str:
    """Convert ``auto`` or a whole number from 1."""
    if text == "auto" or (auto_or_number(text) and int(text) >= 1):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number from 1")


def device(text: str) -> str:
    """Convert the name of a device."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")

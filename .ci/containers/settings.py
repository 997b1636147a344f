"""Gather this machine's package settings in a folder, to be bound over an image that is built.

``settings.py FOLDER SUITE PIP`` writes what apt and pip (a program, PIP) need to reach what this
machine reaches. Each target of a bind is a folder that every Debian image has, so that no trace of
it stays in the image:

    home/           for /root: pip's settings, certificates
    sources.list.d/ for /etc/apt/sources.list.d, and apt.conf.d/ for /etc/apt/apt.conf.d
    binds           the binds themselves, FROM:TO:ro, one a line
    apt.conf        apt's settings for use outside an image
    next.list       apt's sources of SUITE, another Debian release from the same place
    traces          what must not be found in the image, one text a line
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOME = "/root"
# pip's settings that are no use in an image, or that the image's own files state.
LEFT_OUT = ("constraint", "require-virtualenv", "user", "target", "prefix", "root", "cache-dir")
LINKS = ("find-links", "index-url", "extra-index-url")


def main(folder: Path, suite: str, pip: str) -> None:
    """Write all files."""
    home = folder / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    options, section_of = pip_settings(pip)
    certificates = bundle(options.get("cert"))
    if certificates:
        shutil.copyfile(certificates, home / "ca.crt")
        options["cert"] = f"{HOME}/ca.crt"
    sources = apt_sources()
    binds = {home: HOME}
    traces = {urlsplit(uri).hostname for uri, *_ in sources}
    for name in LINKS:
        if name in options:
            words = options[name].split()
            traces |= {urlsplit(word).hostname or word.removeprefix("file://") for word in words}
            options[name] = "\n    ".join(inside(word, home, binds) for word in words)
    write_pip(home / ".config" / "pip" / "pip.conf", options, section_of)

    write(folder / "sources.list.d" / "machine.list", (f"deb {' '.join(s)}" for s in sources))
    uri = next(uri for uri, release, _ in sources if release == host_release())
    write(folder / "next.list", [f"deb {uri} {suite} main"])
    write(folder / "apt.conf", apt_options(certificates))
    write(folder / "apt.conf.d" / "machine", apt_options(certificates and f"{HOME}/ca.crt"))
    for name in ("sources.list.d", "apt.conf.d"):
        binds[folder / name] = f"/etc/apt/{name}"
    write(folder / "binds", (f"{source}:{target}:ro" for source, target in binds.items()))
    write(folder / "traces", sorted(filter(None, traces)))
    print(f"{len(sources)} sources of apt; of pip: {', '.join(options) or 'nothing'}")


def pip_settings(pip: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return pip's settings by name, and the section of each."""
    found = {"global": {}, ":env:": {}, "install": {}}
    for line in output(pip, "config", "list"):
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found and name not in LEFT_OUT:
            found[section][name] = str(ast.literal_eval(value))
    sections = {
        name: "install" if name in found["install"] else "global"
        for s in found
        for name in found[s]
    }
    # As pip has it: the environment over a command's section over the global one.
    return found["global"] | found["install"] | found[":env:"], sections


def inside(word: str, home: Path, binds: dict[Path, str]) -> str:
    """Return a place of packages as the image sees it; folders of this machine are bound."""
    parts = urlsplit(word)
    if parts.scheme not in ("", "file"):
        return word
    path = Path(unquote(parts.path))
    # Beside an index's pages are the files that they link to.
    top = path.parent if path.name == "simple" else path
    if not top.is_dir():
        return word
    target = f"links/{len(binds)}"
    (home / target).mkdir(parents=True)
    binds[top] = f"{HOME}/{target}"
    return f"file://{HOME}/{target}/{path.relative_to(top)}".removesuffix("/.")


def write_pip(path: Path, options: dict[str, str], section_of: dict[str, str]) -> None:
    """Write pip's configuration file."""
    lines = []
    for section in ("global", "install"):
        lines.append(f"[{section}]")
        lines += [
            f"{name} = {v}"
            for name, v in options.items()
            if section_of.get(name, "global") == section
        ]
    write(path, lines)


def bundle(stated: str | None) -> str | None:
    """Return the certificates that this machine trusts."""
    places = (stated, os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
    return next((place for place in places if place and Path(place).is_file()), None)


def apt_sources() -> list[tuple[str, str, str]]:
    """Return URI, release and component of each source of this machine's Debian release."""
    wanted = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    lines = output("apt-get", "indextargets", "--format", wanted, "Created-By: Packages")
    found = (tuple(line.split()) for line in lines)
    ours = [
        f[:3] for f in found if len(f) == 4 and f[3] == "Debian" and f[1].startswith(host_release())
    ]
    if not ours:
        sys.exit("apt has no source of this machine's Debian release")
    return list(dict.fromkeys(ours))


def apt_options(certificates: str | None) -> list[str]:
    """Return apt's settings of downloads: proxies, checks, retries."""
    kept = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    lines = [line for line in output("apt-config", "dump", "Acquire") if line.startswith(kept)]
    if certificates:
        lines.append(f'Acquire::https::CAInfo "{certificates}";')
    return lines


def host_release() -> str:
    """Return the code name of this machine's Debian release."""
    lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION_CODENAME", "")


def output(*command: str) -> list[str]:
    """Return the lines that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def write(path: Path, lines) -> None:
    """Write lines to a file that every user may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

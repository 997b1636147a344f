"""Files of the containers agree with each other and with the project."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DEFINITION = (ROOT / "Singularity.def").read_text("utf-8")
CONTEXT = (ROOT / ".dockerignore").read_text("utf-8").split()
# The program in the Dockerfile that lists what to install.
REQUIREMENTS = re.search(r'python3 -c "(?P<code>import sys, tomllib[^"]*)"', DOCKERFILE)["code"]


def entry_point():
    found = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.M)[1]
    (program,) = ast.literal_eval(found)
    return program


def copied():
    """Return the files and folders that the Dockerfile takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M)
    return [name for line in lines for name in line.split()[:-1]]


def requirements(extras):
    result = subprocess.run(
        [sys.executable, "-c", REQUIREMENTS, extras],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return result.stdout.split("\n")[:-1]


def test_what_the_dockerfile_copies_is_there_and_is_sent_to_the_build():
    assert copied()
    for name in copied():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in CONTEXT, name


def test_only_what_is_named_is_sent_to_the_build():
    assert CONTEXT[0] == "*"


def test_all_that_the_package_is_built_from_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*build["packages"], *build["force-include"], project["project"]["readme"]}
    needed |= {name for name in project["project"]["license-files"] if "*" not in name}
    assert needed <= set(copied())


@pytest.mark.parametrize("extras", ["", "faces", "faces,validator"])
def test_the_image_gets_the_dependencies_and_the_extras_that_are_asked_for(extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for name in filter(None, extras.split(",")):
        wanted += project["optional-dependencies"][name]
    assert requirements(extras) == wanted


def test_every_dependency_of_the_image_is_pinned():
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = {_plain(name) for name in re.findall(r"^([\w.-]+)==", constraints, re.M)}
    for line in requirements("faces,validator"):
        assert _plain(re.match(r"[\w.-]+", line)[0]) in pinned, line


def test_a_change_of_the_source_leaves_the_layer_of_packages_as_it_is():
    before, _, after = DOCKERFILE.partition("--requirement requirements.txt")
    assert "COPY hyper_bids" in after
    assert "COPY hyper_bids" not in before


def test_any_user_may_run_the_image():
    assert not re.search(r"^USER", DOCKERFILE, re.M)


def test_the_definition_starts_the_program_that_the_image_starts():
    assert entry_point().startswith("/")
    assert f'exec {entry_point()} "$@"' in DEFINITION
    assert f"app={entry_point()}\n" in DEFINITION


def test_caches_that_the_image_places_are_placed_by_the_definition_too():
    """Apptainer may show the host's /tmp, where a name for all users would not do."""
    places = set(re.findall(r"(\w+)=/tmp/hyper_bids", DOCKERFILE))
    own = set(re.findall(r'(\w+)="\$hyper_bids_tmp', DEFINITION))
    assert len(places) > 5
    assert places <= own


def test_the_definition_has_its_parts():
    sections = re.findall(r"^%(\w+)", DEFINITION, re.M)
    assert {"arguments", "labels", "environment", "runscript", "test", "help"} <= set(sections)
    argument = dict(re.findall(r"^    (BOOTSTRAP|IMAGE)=(\S+)$", DEFINITION, re.M))
    assert argument == {"BOOTSTRAP": "docker-daemon", "IMAGE": "hyper:latest"}
    assert DEFINITION.startswith("Bootstrap: {{ BOOTSTRAP }}\nFrom: {{ IMAGE }}\n")


def test_the_boutiques_descriptor_has_the_flags_of_the_command_line():
    """Write it anew with boutiques/make_descriptor.py after a flag has changed."""
    path = ROOT / "boutiques" / "make_descriptor.py"
    maker = runpy.run_path(str(path))
    assert (path.parent / "descriptor.json").read_text("utf-8") == maker["text"]()


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

"""The pages: every score on them, nothing that is not, safe text, no network; and the methods."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest

from hyper_bids.config import Settings, to_dict
from hyper_bids.report import scores
from hyper_bids.report.build import About, write_report
from hyper_bids.report.methods import group_methods_text, methods_text

# What the scores of the app are called on the pages.
NAMES = {
    ("latent_similarity", "code"): "Latent similarity (squared distance, as in the paper's code)",
    ("latent_similarity", "printed"): "Latent similarity (distance, as in the paper's text)",
    ("latent_cosine", "n/a"): "Latent cosine",
    ("latent_correlation", "n/a"): "Latent correlation",
    ("two_way_identification", "latents"): "Two-way identification (latents)",
    ("two_way_identification", "images, SSIM"): "Two-way identification (images, SSIM)",
    ("one_of_n_identification", "latents"): "One-of-n identification (latents)",
    ("structural_similarity", "reference"): "Structural similarity (as in the paper's code)",
    ("feature_similarity", "code, EfficientNet-Lite0"): "Feature similarity (squared distance, as "
    "in the paper's code; EfficientNet-Lite0)",
    ("feature_similarity", "printed, VGG16 fc7"): "Feature similarity (distance, as in the paper's "
    "text; VGG16 fc7)",
    ("two_way_identification", "features, VGGFace"): "Two-way identification (features, VGGFace)",
    ("attribute_correlation", "age"): "Attribute correlation (age)",
    ("attribute_correlation", "age_c_gender_eyeglasses"): "Attribute correlation (age, free of "
    "gender and eyeglasses)",
}
WITH_CHANCE = ("two_way_identification", "one_of_n_identification")
HOSTILE = "<script>alert('x')</script> & \"more\" <b>bold"

# Elements without an end, which are not on the stack of open ones.
_VOID = {"meta", "link", "img", "br", "hr", "input", "source", "base"}
_LOADING = {
    "src", "srcset", "data", "poster", "action", "formaction", "background", "cite", "manifest",
}  # fmt: skip


class Page(HTMLParser):
    """A page as a browser takes it: text, tables, links, and what it would load."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text: list[str] = []
        self.styles = ""
        self.links: list[tuple[str, str]] = []
        self.loads: list[str] = []
        self.images: list[dict] = []
        self.ids: list[str] = []
        self.banners = 0
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.banners += attrs.get("class") == "banner"
        self.styles += attrs.get("style", "")
        assert not [name for name in attrs if name.startswith("on") or name == "http-equiv"]
        self.loads += [attrs[name] for name in _LOADING if name in attrs]
        if tag == "a":
            self.links.append((attrs["href"], ""))
        elif "href" in attrs:
            self.loads.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self._rows = self.tables.setdefault(attrs.get("class", ""), [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            self.styles += data
            return
        self.text.append(data)
        if "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data
        if "a" in self._open:
            href, said = self.links[-1]
            self.links[-1] = (href, said + data)

    @property
    def words(self) -> str:
        """The text of the page on one line."""
        return " ".join("".join(self.text).split())

    def column(self, table: str, name: str) -> dict[str, str]:
        """Return the first cell of each row to the cell in the column ``name``."""
        # What is folded away is a table of the same header.
        header, *rows = self.tables[table]
        return {row[0]: row[header.index(name)] for row in rows if row != header}


def shown(value: float) -> str:
    """Return a number as it should stand on the page: three decimals, a true minus sign."""
    text = f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("-", "\N{MINUS SIGN}")


def participant_scores(rng, names=NAMES, method="hyper") -> pd.DataFrame:
    """Return a summary table with random numbers in it, as the participant level makes it."""
    rows = []
    for metric, variant in names:
        base = {"method": method, "metric": metric, "variant": variant, "n": 36}
        value, se = rng.uniform(-1, 1), rng.uniform(0.01, 0.2)
        rows.append(
            base
            | {"control": None, "value": value, "se": se, "ci_low": value - 2 * se}
            | {"ci_high": value + 2 * se, "p": rng.uniform(0.001, 1)}
        )
        controls = ["training_mean", "mismatched"] + ["chance"] * (metric in WITH_CHANCE)
        rows += [base | {"control": c, "value": rng.uniform(-1, 1)} for c in controls]
    for variant in ("code", "printed"):
        rows.append(
            {"method": method, "metric": "feature_similarity", "variant": variant, "control": None}
        )
    return pd.DataFrame(rows)


def as_group(table: pd.DataFrame, n: int = 3) -> dict[str, pd.DataFrame]:
    """Return tables of the group whose means are the numbers of ``table``."""
    means = table.rename(columns={"value": "mean", "n": "n_participants"}).drop(columns="se")
    means["n_participants"] = n
    each = [table.assign(participant=f"{k + 1:02d}") for k in range(n)]
    return {"stats": means, "scores": pd.concat(each, ignore_index=True)}


def made(folder: Path, level="participant", tables=None, **changes) -> Page:
    """Write a page into ``folder`` and return it parsed."""
    given = {"title": "sub-01", "facts": [], "figures": {}, "notes": [], "about": None} | changes
    write_report(
        folder / "page.html", level, given["title"], given["facts"], given["figures"],
        tables or {}, given["notes"], given["about"],
    )  # fmt: skip
    return Page(folder / "page.html")


FIGURES = {
    "participant": (
        "recon",
        "pairs",
        "null",
        "dimensions",
        "curve",
        "voxels",
        "model",
        "encoding",
        "regions",
    ),
    "group": tuple(
        f"group_{m}"
        for m in ("two_way_identification", "latent_correlation", "structural_similarity")
    ),
}


def png(key: str) -> bytes:
    """Return bytes of all values: their base64 has every character that there is."""
    return f"PNG of {key}".encode() + bytes(range(256)) * 3


def full(folder: Path, rng, level="participant") -> Page:
    """Write a page with everything that a page of the level can have."""
    table = participant_scores(rng)
    provenance = {
        "SoftwareVersion": "9.8.7",
        "RandomSeed": 1412,
        "Settings": {"betas": to_dict(Settings().betas), "voxels": to_dict(Settings().voxels)},
        "Sources": ["bids:raw:sub-01/func/sub-01_bold.nii.gz"],
    }
    return made(
        folder,
        level,
        {"scores": table} if level == "participant" else as_group(table),
        facts=[("Runs", "7"), ("Seed", "1412")],
        figures={key: png(key) for key in FIGURES[level]},
        notes=["A note."],
        about=About(True, methods_text(settings_of(), {}), provenance),
    )


def settings_of(**changes) -> dict[str, dict]:
    """Return the stages' settings for the methods; ``stage__name`` changes one."""
    stages = ("betas", "voxels", "decoder", "images", "maps", "scores")
    found = {stage: to_dict(getattr(Settings(), stage)) for stage in stages}
    for key, value in changes.items():
        stage, name = key.split("__")
        assert name in found[stage]
        found[stage][name] = value
    return found


# Scores


def check_scores(table: pd.DataFrame, value: str, page: Page) -> None:
    known = table[table[value].notna()]
    header = {None: "value", "training_mean": "training mean"}
    for row in known.to_dict("records"):
        name = NAMES[row["metric"], row["variant"]]
        control = row["control"] if isinstance(row["control"], str) else None
        cell = page.column("scores", header.get(control, control))[name]
        assert cell.split(" ± ")[0] == shown(row[value])
        if control is None:
            low, high = shown(row["ci_low"]), shown(row["ci_high"])
            assert page.column("scores", "95 % interval")[name] == f"[{low}, {high}]"
            p = float(page.column("scores", "p")[name])
            assert p == pytest.approx(row["p"], rel=0.05)
    header = page.tables["scores"][0]
    lines = [row for row in page.tables["scores"] if row != header]
    assert len(lines) == known["control"].isna().sum()


def test_every_score_and_control_of_a_participant_stands_in_its_row_and_column(tmp_path, rng):
    table = participant_scores(rng)
    page = made(tmp_path, tables={"scores": table})
    check_scores(table, "value", page)
    main = table[table["control"].isna() & table["value"].notna()]
    for row in main.to_dict("records"):
        name = NAMES[row["metric"], row["variant"]]
        assert page.column("scores", "value")[name].split(" ± ")[1] == shown(row["se"])
    assert "Over 36 test stimuli" in page.words
    assert "n" not in page.tables["scores"][0]
    table.loc[table["metric"] == "latent_cosine", "n"] = 7
    page = made(tmp_path, tables={"scores": table})
    assert page.column("scores", "n")["Latent cosine"] == "7"


def test_every_mean_and_control_of_the_group_stands_in_its_row_and_column(tmp_path, rng):
    tables = as_group(participant_scores(rng), n=5)
    page = made(tmp_path, "group", tables)
    check_scores(tables["stats"], "mean", page)
    assert "Over 5 participants" in page.words


def test_rows_of_the_table_may_come_in_any_order(rng):
    table = participant_scores(rng)
    mixed = table.sample(frac=1, random_state=3)
    key = list(scores.KEY)
    one, other = scores.beside_controls(table), scores.beside_controls(mixed)
    pd.testing.assert_frame_equal(
        one.sort_values(key, ignore_index=True), other.sort_values(key, ignore_index=True)
    )


def test_a_control_that_no_one_knew_of_has_a_column(tmp_path, rng):
    table = participant_scores(rng)
    row = {"method": "hyper", "metric": "latent_cosine", "variant": "n/a", "value": 0.4321}
    table = pd.concat([table, pd.DataFrame([row | {"control": "shuffled_voxels"}])])
    page = made(tmp_path, tables={"scores": table})
    column = page.column("scores", "shuffled voxels")
    assert {name: cell for name, cell in column.items() if cell} == {"Latent cosine": "0.432"}


def test_a_score_without_a_value_is_called_not_computed_and_has_no_row_or_number(tmp_path, rng):
    table = participant_scores(rng, [key for key in NAMES if "feature" not in " ".join(key)])
    lost = {"method": "hyper", "metric": "feature_similarity", "variant": "code", "n": 36}
    table = pd.concat([table, pd.DataFrame([lost | {"control": "mismatched", "value": 0.98765}])])
    for level, tables in (("participant", {"scores": table}), ("group", as_group(table))):
        page = made(tmp_path, level, tables)
        assert re.search(r"Not computed: feature similarity\.", page.words)
        assert page.words.lower().count("feature similarity") == 1
        assert not [row for row in page.tables["scores"] if "feature" in row[0].lower()]
        assert "0.988" not in page.words
        assert "nan" not in page.words.lower().split()
        header = page.tables.get("participants", [[]])[0]
        assert "feature" not in " ".join(header).lower()


def test_a_score_that_is_there_in_one_form_is_not_called_not_computed(tmp_path, rng):
    table = participant_scores(rng)
    lost = (table["metric"] == "two_way_identification") & (table["variant"] == "images, SSIM")
    table.loc[lost, ["value", "se", "ci_low", "ci_high", "p"]] = np.nan
    page = made(tmp_path, tables={"scores": table})
    assert "Two-way identification (latents)" in page.column("scores", "value")
    assert "Two-way identification (images, SSIM)" not in page.column("scores", "value")
    told = re.search(r"Not computed: (.*?)\.", page.words)[1]
    assert "two-way identification (images, ssim)" in told.lower()


def test_no_score_is_called_not_computed_where_all_have_values(tmp_path, rng):
    table = participant_scores(rng)
    page = made(tmp_path, tables={"scores": table[table["metric"] != "feature_similarity"]})
    assert "not computed" not in page.words.lower()


def test_a_number_that_is_absent_leaves_an_empty_cell(tmp_path, rng):
    table = participant_scores(rng, [("latent_cosine", "n/a"), ("latent_correlation", "n/a")])
    alone = (table["metric"] == "latent_cosine") & table["control"].isna()
    table.loc[alone, ["se", "ci_low", "ci_high", "p"]] = np.nan
    table = table[(table["metric"] != "latent_cosine") | (table["control"] != "mismatched")]
    page = made(tmp_path, tables={"scores": table})
    for name in ("95 % interval", "p", "mismatched"):
        assert page.column("scores", name)["Latent cosine"] == ""
        assert page.column("scores", name)["Latent correlation"] != ""
    assert "±" not in page.column("scores", "value")["Latent cosine"]


def test_a_value_that_rounds_to_nought_has_no_minus_sign(tmp_path):
    row = {"method": "hyper", "metric": "latent_cosine", "variant": "n/a", "control": None}
    page = made(tmp_path, tables={"scores": pd.DataFrame([row | {"value": -0.0002}])})
    assert page.column("scores", "value") == {"Latent cosine": "0.000"}


@pytest.mark.parametrize("control", [None, "mismatched"])
def test_a_score_or_control_that_stands_twice_is_refused_and_no_page_is_written(
    tmp_path, rng, control
):
    table = participant_scores(rng)
    row = table[table["control"].isna() if control is None else table["control"] == control].iloc[0]
    table = pd.concat([table, row.to_frame().T])
    for level, tables in (
        ("participant", {"scores": table}),
        ("group", {"stats": table.rename(columns={"value": "mean"})}),
    ):
        with pytest.raises(ValueError, match=r"latent_similarity.*twice"):
            made(tmp_path, level, tables)
    assert list(tmp_path.iterdir()) == []


def test_scores_of_two_methods_are_told_apart(tmp_path, rng):
    one, two = participant_scores(rng), participant_scores(rng, method="other")
    view = scores.score_view(pd.concat([one, two]))
    assert view["columns"][:2] == ["method", "value"]
    mains = [t[t["control"].isna() & t["value"].notna()].to_dict("records") for t in (one, two)]
    rows = view["rows"] + view["more"]
    blocks = {rows[k][0]: rows[k + 1 : k + 3] for k in range(0, len(rows), 3)}
    assert len(mains[0]) == len(mains[1]) == len(blocks)
    for first, second in zip(*mains, strict=True):
        of_first, of_second = blocks[NAMES[first["metric"], first["variant"]]]
        for row, line, method in ((first, of_first, "HYPER"), (second, of_second, "other")):
            assert line[0] == method
            assert line[1].startswith(shown(row["value"]))
    text = scores.summary("participant", pd.concat([one, two]))
    assert "HYPER: two-way" in text
    page = made(tmp_path, tables={"scores": pd.concat([one, two])})
    assert "HYPER" in page.text


@pytest.mark.parametrize(("level", "unit"), [("participant", "test stimuli"), ("group", "partic")])
def test_the_summary_says_the_main_scores_their_controls_and_over_how_many(rng, level, unit):
    table = participant_scores(rng)
    given = table if level == "participant" else as_group(table, n=36)["stats"]
    text = scores.summary(level, given)
    for metric, variant, against, word in (
        ("two_way_identification", "latents", "chance", "chance"),
        ("latent_correlation", "n/a", "mismatched", "mismatched pairs"),
        ("structural_similarity", "reference", "mismatched", "mismatched pairs"),
    ):
        block = table[(table["metric"] == metric) & (table["variant"] == variant)]
        by_control = block.set_index(block["control"].fillna("main"))
        main, control = by_control.loc["main"], by_control.loc[against, "value"]
        told = f"{shown(main['value'])} ({word} {shown(control)}, p = {main['p']:.2g})"
        assert told in text
    assert f"Over 36 {unit}" in text


@pytest.mark.parametrize(
    ("p", "nothing"), [(1.0, True), (0.051, True), (0.05, False), (None, False)]
)
def test_the_summary_says_first_where_two_way_identification_shows_no_information(rng, p, nothing):
    table = participant_scores(rng)
    own = (table["metric"] == "two_way_identification") & (table["variant"] == "latents")
    table.loc[own & table["control"].isna(), "p"] = np.nan if p is None else p
    for level, given in (("participant", table), ("group", as_group(table)["stats"])):
        text = scores.summary(level, given)
        assert text.startswith("No information was found on which stimulus was shown.") == nothing


def test_the_papers_p_stands_beside_its_control_and_not_in_the_column_of_p(tmp_path, rng):
    table = participant_scores(rng)
    row = {"method": "hyper", "metric": "latent_cosine", "variant": "n/a", "n": 36}
    row |= {"control": "random_prior", "value": 0.4321, "p": 0.000999}
    mixed = pd.concat([pd.DataFrame([row]), table], ignore_index=True)
    page = made(tmp_path, tables={"scores": mixed})
    assert page.column("scores", "random latent")["Latent cosine"] == "0.432"
    column = page.column("scores", "p, paper's test")
    assert {name: cell for name, cell in column.items() if cell} == {"Latent cosine": "0.001"}
    own = table[(table["metric"] == "latent_cosine") & table["control"].isna()].iloc[0]
    assert page.column("scores", "p")["Latent cosine"] == f"{own['p']:.2g}"


def test_the_summary_does_not_claim_more_participants_than_a_score_has(rng):
    stats = as_group(participant_scores(rng), n=5)["stats"]
    stats.loc[stats["metric"] == "structural_similarity", "n_participants"] = 2
    text = scores.summary("group", stats)
    assert "structural similarity" in text
    assert "Over 5 participants" not in text or "2 participants" in text


def test_the_summary_has_no_empty_brackets_where_there_is_nothing_to_compare_with():
    row = {"method": "hyper", "metric": "latent_correlation", "variant": "n/a", "control": None}
    text = scores.summary("participant", pd.DataFrame([row | {"value": 0.25, "n": 36}]))
    assert "0.250" in text
    assert "()" not in text


def test_the_summary_is_empty_where_no_main_score_has_a_value(rng):
    table = participant_scores(rng)
    assert scores.summary("participant", table.assign(value=np.nan)) == ""
    assert scores.summary("participant", table[table["metric"] == "latent_cosine"]) == ""


# The page as a whole


@pytest.mark.parametrize("level", ["participant", "group"])
@pytest.mark.parametrize("simulated", [True, False])
def test_the_banner_stands_on_the_page_if_and_only_if_the_data_are_simulated(
    tmp_path, rng, level, simulated
):
    table = participant_scores(rng)
    tables = {"scores": table} if level == "participant" else as_group(table)
    page = made(tmp_path, level, tables, about=About(simulated=simulated))
    assert page.banners == int(simulated)
    assert ("Simulated data." in page.words) == simulated


def test_a_page_is_not_called_simulated_unless_told(tmp_path):
    assert made(tmp_path).banners == 0


@pytest.mark.parametrize("level", ["participant", "group"])
def test_the_page_loads_nothing_but_itself(tmp_path, rng, level):
    page = full(tmp_path, rng, level)
    assert set(page.tags) & {"script", "iframe", "object", "embed", "base", "link"} == set()
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert len(page.loads) == len(FIGURES[level])
    assert all(target.startswith("data:image/png;base64,") for target in page.loads)
    local = [href for href, said in page.links if not re.match("https?://", href)]
    for target in local:
        found = urlsplit(target)
        assert (found.scheme, found.netloc) == ("", ""), target
        assert not found.path.startswith("/")
        assert ".." not in found.path.split("/")
    # A link to somewhere else shows where it leads, and is followed only by hand.
    outside = [(href, said) for href, said in page.links if re.match("https?://", href)]
    assert outside
    assert all(href == said for href, said in outside)


@pytest.mark.parametrize("level", ["participant", "group"])
def test_each_section_is_reached_from_the_top_and_each_figure_has_a_text(tmp_path, rng, level):
    page = full(tmp_path, rng, level)
    anchors = [href.removeprefix("#") for href, _ in page.links if href.startswith("#")]
    assert len(set(page.ids)) == len(page.ids)
    assert anchors == page.ids
    assert set(FIGURES[level]) | {"scores", "methods", "provenance"} <= set(page.ids)
    assert all(image["alt"].strip() for image in page.images)


def test_a_section_without_material_is_left_out_and_absent_images_are_told(tmp_path, rng):
    page = made(tmp_path, tables={"scores": participant_scores(rng)}, figures={})
    assert page.images == []
    assert {"pairs", "null", "dimensions", "curve", "voxels", "model"} & set(page.ids) == set()
    assert "There are no images: this analysis stayed with the latents." in page.words
    with_images = made(tmp_path, figures={"recon": png("recon")})
    assert "There are no images" not in with_images.words
    assert "scores" not in with_images.ids


@pytest.mark.parametrize("level", ["participant", "group"])
def test_each_figure_stands_on_the_page_byte_by_byte_with_a_text_of_its_own(tmp_path, rng, level):
    page = full(tmp_path, rng, level)
    content = [image["src"].removeprefix("data:image/png;base64,") for image in page.images]
    shown = [base64.b64decode(text, validate=True) for text in content]
    order = [key for key in page.ids if key in FIGURES[level]]
    assert shown == [png(key) for key in order]
    assert len({image["alt"] for image in page.images}) == len(FIGURES[level])


def test_a_figure_that_no_section_names_is_not_shown(tmp_path):
    page = made(tmp_path, figures={"null": png("null"), "secret": png("secret")})
    (image,) = page.images
    assert base64.b64decode(image["src"].partition(",")[2]) == png("null")


def test_text_from_the_data_is_shown_as_it_is_and_never_becomes_markup(tmp_path, rng):
    plain = made(tmp_path, tables={"scores": participant_scores(rng)}).tags
    said = [f"{k} {HOSTILE}" for k in range(8)]
    table = participant_scores(rng, [("two_way_identification", said[0])], method=said[1])
    table = pd.concat([table, participant_scores(rng, [("metric " + said[2], "n/a")], "other")])
    extra = table.iloc[:1].assign(control=said[3], value=0.5)
    provenance = {"Sources": [said[7]], "Settings": {said[6]: {said[5]: (said[4], said[3])}}}
    page = made(
        tmp_path,
        tables={"scores": pd.concat([table, extra])},
        title=said[4],
        facts=[(said[5], said[6])],
        notes=[said[7]],
        about=About(methods=f"{said[0]}\n\n## {said[1]}\n\n- {said[2]}", provenance=provenance),
    )
    text = "".join(page.text)
    for line in said:
        assert line in text
    assert "script" not in page.tags
    assert set(page.tags) - set(plain) <= {"dl", "dt", "dd", "div", "ul", "li", "h3"}


def test_labels_of_participants_are_shown_as_they_are_and_never_become_markup(tmp_path, rng):
    table = participant_scores(rng).assign(participant='01"><script>alert(1)</script>')
    page = made(tmp_path, "group", {"scores": table})
    assert "script" not in page.tags
    assert list(page.column("participants", "participant")) == ['sub-01"><script>alert(1)</script>']
    (href,) = [href for href, said in page.links if said.startswith("sub-")]
    assert unquote(href) == 'sub-01"><script>alert(1)</script>.html'


def test_facts_and_notes_stand_on_the_page_in_their_order(tmp_path):
    page = made(
        tmp_path, title="A title", facts=[("Runs", "17"), ("Space", "T1w")],
        notes=["First note.", "Second note."],
    )  # fmt: skip
    assert re.search(r"A title .*Runs\s*17 .*Space\s*T1w .*First note\. Second note\.", page.words)


def test_provenance_says_version_seed_sources_and_every_setting(tmp_path):
    stages = {"betas": to_dict(Settings().betas), "voxels": to_dict(Settings().voxels)}
    provenance = {
        "SoftwareVersion": "9.8.7", "RandomSeed": 4711, "Settings": stages,
        "Sources": ["bids:raw:one.nii.gz", "bids:raw:two.nii.gz"], "Missing": ["03", "04"],
    }  # fmt: skip
    page = made(tmp_path, about=About(provenance=provenance))
    rows = dict(page.tables["provenance"])
    assert rows["Software"] == "hyper_bids 9.8.7"
    assert rows["Random seed"] == "4711"
    assert rows["Without scores"] == "sub-03sub-04"
    assert rows["Sources"] == "bids:raw:one.nii.gzbids:raw:two.nii.gz"
    for stage, settings in stages.items():
        for name in settings:
            assert f"{name} = " in rows[f"Settings: {stage}"]
    assert "confounds = motion6" in rows["Settings: betas"]
    assert "decoder_mask = none" in rows["Settings: voxels"]


def test_each_participant_has_a_row_with_main_scores_and_a_link_to_the_own_page(tmp_path, rng):
    tables = [
        participant_scores(rng).assign(participant=label) for label in ("01", "A2", "10", "03")
    ]
    page = made(tmp_path, "group", {"scores": pd.concat(tables, ignore_index=True)})
    assert list(page.column("participants", "participant")) == [
        "sub-01", "sub-A2", "sub-10", "sub-03",
    ]  # fmt: skip
    links = {said: href for href, said in page.links if said.startswith("sub-")}
    assert links == {f"sub-{label}": f"sub-{label}.html" for label in ("01", "A2", "10", "03")}
    main = [
        ("two_way_identification", "latents"), ("two_way_identification", "images, SSIM"),
        ("one_of_n_identification", "latents"), ("latent_correlation", "n/a"),
        ("structural_similarity", "reference"),
    ]  # fmt: skip
    for key in main:
        column = page.column("participants", NAMES[key])
        for table in tables:
            found = table[
                (table["metric"] == key[0]) & (table["variant"] == key[1]) & table["control"].isna()
            ].iloc[0]
            value, p = re.fullmatch(
                r"(\S+) \((\S+)\)", column["sub-" + found["participant"]]
            ).groups()
            assert value == shown(found["value"])
            assert float(p) == pytest.approx(found["p"], rel=0.05)
    assert len(page.tables["participants"][0]) == 1 + len(main)


def test_a_participant_without_a_score_that_others_have_has_an_empty_cell(tmp_path, rng):
    one = participant_scores(rng).assign(participant="01")
    two = participant_scores(rng, [("latent_correlation", "n/a")]).assign(participant="02")
    page = made(tmp_path, "group", {"scores": pd.concat([one, two], ignore_index=True)})
    name = NAMES["two_way_identification", "latents"]
    column = page.column("participants", name)
    assert column["sub-01"] != ""
    assert column["sub-02"] == ""


def test_the_same_material_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        full(tmp_path / name, np.random.default_rng(1))
    one, two = (tmp_path / name / "page.html" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_an_unknown_level_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"session.*participant, group"):
        made(tmp_path, "session")
    assert list(tmp_path.iterdir()) == []


class Broken(str):
    """Text that cannot be rendered."""

    __slots__ = ()

    def __html__(self):
        raise RuntimeError("cannot be rendered")


def test_an_error_while_the_page_is_rendered_leaves_the_old_page(tmp_path):
    made(tmp_path, title="Old")
    before = (tmp_path / "page.html").read_bytes()
    with pytest.raises(RuntimeError, match="cannot be rendered"):
        made(tmp_path, title="New", notes=[Broken("x")])
    assert (tmp_path / "page.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("method", ["write_text", "replace"])
def test_an_error_while_the_page_is_written_leaves_the_old_page_alone(
    tmp_path, monkeypatch, method
):
    made(tmp_path, title="Old")
    before = (tmp_path / "page.html").read_bytes()

    def full_disk(path, *_, **__):
        if method == "write_text":
            path.touch()
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, method, full_disk)
        with pytest.raises(OSError, match="No space left"):
            made(tmp_path, title="New")
    assert (tmp_path / "page.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# Methods


@pytest.mark.parametrize(
    ("name", "value", "only_then", "fixed"),
    [
        ("betas__hrf", "spm", "double-gamma response of SPM", {}),
        ("betas__hrf", "glover", "the canonical response of Glover", {}),
        ("betas__estimator", "lsa", "The order of drift was chosen", {}),
        ("betas__estimator", "lss", "a model for every trial", {}),
        ("betas__drift_order", "4", "drifts up to order 4", {}),
        ("betas__noise_model", "ols", "Noise was taken as white.", {}),
        ("betas__noise_model", "ar1", "AR(1), with one coefficient for all voxels.", {}),
        ("betas__noise_model", "ar1", "AR(1), each voxel by itself.", {"betas__estimator": "lsa"}),
        ("betas__noise_components", "3", "noise model, response functions and shrinkage were", {}),
        ("betas__shrinkage", "none", "noise components and response functions were chosen", {}),
        ("betas__confounds", ["none"], None, {}),
        ("betas__confounds", ["motion24"], "their derivatives and the squares of both", {}),
        ("betas__confounds", ["motion6", "csf", "white_matter"], "csf` and `white_matter", {}),
        ("betas__dummy_scans", 4, "The first 4 volumes of each run were left out", {}),
        ("betas__slice_time_ref", 0.25, "sampled at 0.25 of each volume", {}),
        ("voxels__n_voxels", 500, "the 500 voxels", {}),
        ("voxels__decoder_mask", "/data/rois/v1.nii.gz", "mask v1.nii.gz", {}),
        ("voxels__mask_labels", [3, 17], "labels 3 and 17", {"voxels__decoder_mask": "v1.nii"}),
        ("voxels__standardise", "train", "deviation of the training trials", {}),
        ("voxels__standardise", "none", "not standardised", {}),
        ("decoder__decoder", "dense", "one dense layer", {}),
        ("decoder__decoder", "ols", "ordinary least squares; with fewer", {}),
        ("decoder__decoder", "bayes", "by inverting a linear model of the responses", {}),
        ("decoder__decoder", "averaged", "by a weighted sum of ridge regressions", {}),
        ("decoder__decoder", "best", "by whichever of two decoders", {}),
        ("decoder__cv", "9", "chosen by 9-fold", {"decoder__decoder": "averaged"}),
        ("decoder__cv", "loo", "chosen by leave-one-trial-out", {}),
        ("decoder__cv", "runs", "chosen by leave-one-run-out cross-validation", {}),
        ("decoder__cv", "10", "10-fold", {}),
        ("decoder__epochs", 77, "77 epochs", {"decoder__decoder": "dense"}),
        ("decoder__learning_rate", 3e-4, "0.0003", {"decoder__decoder": "dense"}),
        ("decoder__weight_decay", 0.25, "decay 0.25", {"decoder__decoder": "dense"}),
        ("decoder__decoder_batch", 12, "batches of 12", {"decoder__decoder": "dense"}),
        ("images__generator", "none", "No image model was used", {}),
        ("images__generator", "demo", "the image model demo", {}),
        ("images__latent_norm", "none", None, {}),
        ("images__precision", "bf16", "computed in bfloat16", {}),
        ("images__precision", "auto", "bfloat16 where the machine computes in it itself", {}),
        ("maps__no_maps", True, None, {}),
        ("maps__atlas", "/data/areas.nii.gz", "by the regions of areas.nii.gz", {}),
        ("scores__n_permutations", 555, "555 random pairings", {}),
        ("scores__prior_samples", 77, "77 random latents", {}),
        (
            "decoder__refit_permutations",
            300,
            "fitted again, with its penalty chosen again, to 300",
            {},
        ),
    ],
)
def test_the_methods_tell_each_setting_that_changes(name, value, only_then, fixed):
    before = methods_text(settings_of(**fixed), {})
    after = methods_text(settings_of(**fixed, **{name: value}), {})
    assert before != after
    if only_then is not None:
        assert only_then in after
        assert only_then not in before


MODEL = {
    "drift_order": 3, "noise_model": "ar1", "n_components": 4, "hrf": "library",
    "shrinkage": True, "rho": 0.314,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "only_before", "only_after"),
    [
        ("drift_order", 5, "up to order 3", "up to order 5"),
        ("noise_model", "ols", "one coefficient for all voxels (0.31).", "taken as white."),
        ("n_components", 0, "The first 4 principal components of each run's voxels", None),
        ("n_components", 1, "The first 4 principal components", "The first 1 principal component "),
        ("hrf", "glover", "one of 22 response functions", "the canonical response of Glover"),
        ("shrinkage", False, "shrunken towards each voxel's mean response", None),
    ],
)
def test_the_methods_tell_the_model_that_was_chosen(name, value, only_before, only_after):
    before = methods_text(settings_of(), {"model": MODEL})
    after = methods_text(settings_of(), {"model": MODEL | {name: value}})
    assert only_before in before
    assert only_before not in after
    if only_after is not None:
        assert only_after in after
        assert only_after not in before
    # How it was chosen is the same whatever came of it.
    told = "The order of drift, noise model, number of noise components, response functions and"
    assert told in before
    assert told in after


def test_the_methods_leave_open_what_is_chosen_where_no_model_is_known():
    text = methods_text(settings_of(), {})
    assert "polynomial drifts;" in text
    assert "white or AR(1), as training trials suggested" in text
    assert "principal component" not in text.split("##")[0]
    assert "shrunken towards" not in text


def test_the_methods_say_that_nothing_was_chosen_where_all_is_fixed():
    fixed = {
        "betas__drift_order": "2", "betas__hrf": "spm", "betas__noise_model": "ols",
        "betas__noise_components": "0", "betas__shrinkage": "none",
    }  # fmt: skip
    for changes in (fixed, {"betas__estimator": "lsa", "betas__drift_order": "2"}):
        text = methods_text(settings_of(**changes), {})
        assert "chosen on training trials" not in text
        assert "up to order 2" in text
        assert "Noise was taken as white." in text
    # What only the default estimator chooses is not told of the others.
    text = methods_text(settings_of(betas__estimator="lss"), {})
    assert "The order of drift was chosen on training trials alone" in text
    assert "canonical response of Glover" in text


def test_the_methods_do_not_tell_what_was_not_done():
    usual = methods_text(settings_of(), {})
    assert "six motion parameters" in usual
    assert "The first" not in usual
    assert "motion" not in methods_text(settings_of(betas__confounds=["none"]), {}).split("##")[0]
    assert "rescaled" not in methods_text(settings_of(images__latent_norm="none"), {})
    for changes, facts in (({"maps__no_maps": True}, {}), ({}, {"maps": False})):
        assert "where in the brain" not in methods_text(settings_of(**changes), facts)
    masked = methods_text(settings_of(voxels__decoder_mask="v1.nii"), {})
    assert "highest z" not in masked
    dense = methods_text(settings_of(decoder__decoder="dense", maps__no_maps=True), {})
    assert "ridge" not in dense
    assert "cross-validation" not in dense
    latents_only = methods_text(settings_of(), {"generator": None})
    assert "rescaled" not in latents_only
    assert "No image model was used" in latents_only


def test_the_methods_tell_the_facts_that_they_are_given_and_no_others():
    facts = {
        "runs": 7, "training_trials": 1234, "test_trials": 56, "test_stimuli": 19,
        "n_latents": 512, "t_r": 1.75, "generator": "/weights/my_pggan.safetensors",
    }  # fmt: skip
    told = methods_text(settings_of(), facts)
    for words in (
        "7 runs", "1,234 training trials", "56 test trials", "19 test stimuli", "512 latents",
        "1.75 s", "my_pggan", "progressively grown GAN",
    ):  # fmt: skip
        assert words in told
    for text in (
        told,
        methods_text(settings_of(), {}),
        methods_text({}, {}),
        methods_text({}, facts),
    ):
        assert not re.search(r"\b(None|nan)\b", text)
    one = methods_text(settings_of(betas__dummy_scans=1), facts | {"runs": 1, "test_stimuli": 1})
    for words in ("The 1 run had", "1 test stimulus.", "The first 1 volume of"):
        assert words in one


@pytest.mark.parametrize("network", ["VGGFace2 X: the paper's", "dlib Y: a stand-in", "Z: mine"])
def test_the_methods_name_each_feature_network_by_its_full_name(network):
    plain = methods_text(settings_of(), {})
    assert "features" not in plain
    one = methods_text(settings_of(), {"networks": [network]})
    assert f"by the features of a network: {network}" in one
    two = methods_text(settings_of(), {"networks": [network, "a second"]})
    assert re.search(rf"by the features of these networks: {network}( \(.*?\))?; a second\.", two)


@pytest.mark.parametrize(
    ("source", "scores", "words"),
    [
        ("boundaries", "raw", "boundaries of InterFaceGAN (Shen et al., 2020) of the latents as"),
        ("labels", "raw", "fitted to labels of the training stimuli"),
        ("labels", "normalised", "of latents brought to the length of the root of their number"),
    ],
)
def test_the_methods_tell_where_attributes_came_from(source, scores, words):
    text = methods_text(settings_of(scores__attribute_scores=scores), {"attributes": source})
    assert words in text
    assert "ttributes" not in methods_text(settings_of(scores__attribute_scores=scores), {})


def citations(text: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return first author and year of what the text cites, and of what it lists."""
    body, listed = text.split("## References")
    cited = set()
    for group in re.findall(r"\(([^()]*\d{4})\)", body):
        for entry in group.split("; "):
            found = re.fullmatch(r"(.+?)(?: et al\.| & .+)?, (\d{4})", entry)
            assert found, entry
            cited.add(found.groups())
    names = [re.match(r"- (\S+) .*?\((\d{4})\)\. ", line) for line in listed.strip().splitlines()]
    return cited, {name.groups() for name in names}


COMBINATIONS = [
    {},
    {"betas__estimator": "lsa", "betas__confounds": ["acompcor"]},
    {"betas__hrf": "spm", "betas__confounds": ["motion24"]},
    {"decoder__decoder": "dense", "images__generator": "dcgan.safetensors"},
    {"decoder__decoder": "ols", "images__generator": "pggan.safetensors"},
    {"decoder__decoder": "best"},
    {"images__generator": "none", "betas__confounds": ["none"]},
]
# Without a model that was chosen, and with one.
NETWORKS = [
    "VGGFace2 ResNet50, pool5: the paper's",
    "VGG16 (ImageNet), fc7: a stand-in",
    "AlexNet 2 (ImageNet): a stand-in",
    "EfficientNet-Lite0 (ImageNet), pooled head: a stand-in",
    "dlib face ResNet v1, descriptor: a stand-in",
]
BASELINES = [["VAE-GAN", "/models/vaegan [1].safetensors"], ["Eigenface", None]]
FACTS = [
    {"baselines": BASELINES},
    {"model": MODEL},
    {"networks": NETWORKS, "attributes": "boundaries"},
    {"imported": {"files": ["a.mat"], "places_known": False, "runs_known": False}},
]


@pytest.mark.parametrize(
    "facts", FACTS, ids=["baselines", "a chosen model", "networks", "an import"]
)
@pytest.mark.parametrize("changes", COMBINATIONS)
def test_what_the_methods_cite_is_in_their_list_and_nothing_else_is(changes, facts):
    text = methods_text(settings_of(**changes), facts)
    cited, listed = citations(text)
    assert cited == listed
    assert len(cited) >= 6
    assert not re.search(r"\[[a-z]+\d{4}", text)
    lines = text.split("## References")[1].strip().splitlines()
    assert lines == sorted(lines, key=str.casefold)
    assert len(lines) == len(listed)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_what_the_groups_methods_cite_is_in_their_list_and_nothing_else_is(n):
    text = group_methods_text(n)
    cited, listed = citations(text)
    assert cited == listed
    assert {"Dado", "Phipson"} <= {name for name, _ in cited}


def test_every_reference_that_the_app_has_is_cited_somewhere():
    from hyper_bids.report.spec import specification

    texts = [methods_text(settings_of(**c), facts) for c in COMBINATIONS for facts in FACTS]
    done = {"n_stimuli": 9, "averaged": True, "by_others": True}
    aligned = [{"method": name, **done} for name in ("ridge-procrustes", "srm")]
    texts += [group_methods_text(2, 1, aligned[0]), group_methods_text(6, 1, aligned[1])]
    listed = "".join(texts)
    for entry in specification()["references"].values():
        assert entry in listed
        assert re.search(r"https://\S+$", entry)


def test_the_groups_methods_tell_the_number_of_participants_and_what_intervals_are_over():
    one, many = group_methods_text(1), group_methods_text(12)
    assert "1 participant " in one
    assert "over test stimuli, drawn at random for all participants at once" in one
    assert "t intervals" not in one
    assert "12 participants" in many
    assert "over test stimuli and participants, both drawn at random" in many
    assert "t intervals over participants" in many


def test_the_groups_methods_tell_of_the_comparison_where_there_are_several():
    assert "Methods were compared" not in group_methods_text(3)
    assert "Methods were compared" in group_methods_text(3, 2)


@pytest.mark.parametrize("name", ["v1[run2021].nii.gz", "v1[dado2022].nii.gz"])
def test_brackets_in_a_files_name_are_no_citation(name):
    usual = methods_text(settings_of(voxels__decoder_mask="plain.nii.gz"), {})
    text = methods_text(settings_of(voxels__decoder_mask=f"/data/{name}"), {})
    assert text == usual.replace("plain.nii.gz", name)


@pytest.mark.parametrize("changes", COMBINATIONS)
def test_the_methods_stand_on_the_page_word_for_word_with_links_to_the_references(
    tmp_path, changes
):
    text = methods_text(settings_of(**changes), {})
    page = made(tmp_path, about=About(methods=text))
    plain = re.sub(r"(?m)^(## |- )", "", text).replace("`", "")
    assert " ".join(plain.split()) in page.words
    listed = text.split("## References")[1]
    outside = {href for href, _ in page.links if href.startswith("http")}
    assert outside == set(re.findall(r"https://\S+", listed))


def test_names_of_confounds_are_shown_as_they_are_on_the_page(tmp_path):
    names = ["a_comp_cor_00", "<b>cosine</b>", "trans_x_derivative1"]
    text = methods_text(settings_of(betas__confounds=names), {})
    page = made(tmp_path, about=About(methods=text))
    for name in names:
        assert name in page.words
    assert "b" not in page.tags


def test_cosines_of_the_confounds_are_the_drift_and_no_order_was_chosen():
    text = methods_text({"betas": {"estimator": "lsa", "confounds": ["cosine*"]}}, {})
    assert "a constant and the cosines of the confounds as drift" in text
    assert "order of drift" not in text
    assert "polynomial" not in text


def test_the_methods_say_what_each_baseline_decodes_and_with_what():
    settings = settings_of()
    text = methods_text(settings, {"generator": "demo", "baselines": BASELINES})
    assert "Eigenface, scores of up to 512 principal components of the training stimuli" in text
    assert "VAE-GAN, the encoding by the image model vaegan [1]" in text
    assert "from the same voxels and by the same decoder" in text
    alone = methods_text(settings, {"generator": None, "known": False, "baselines": BASELINES})
    assert "known latents" not in alone.split("\n\n")[4]
    assert "For comparison" not in methods_text(settings, {"generator": "demo"})


def test_published_values_stand_beside_those_of_the_same_method_metric_and_form(rng):
    from hyper_bids.report.published import beside_published, published

    known = published()
    assert not known.duplicated(["source", "participant", *scores.KEY]).any()
    stats = as_group(participant_scores(rng), n=2)["stats"].fillna({"control": "n/a"})
    table = beside_published(stats).set_index(["method", "metric", "variant"])
    line = table.loc["hyper", "latent_similarity", "code"]
    own = stats[(stats["metric"] == "latent_similarity") & (stats["variant"] == "code")]
    assert line["mean"] == own[own["control"] == "n/a"]["mean"].iloc[0]
    assert (line["article 1"], line["poster 2"]) == (0.4722, 0.4447)
    assert ("hyper", "latent_cosine", "n/a") not in table.index
    # What another network gives is not beside the paper's VGGFace.
    other = stats.assign(metric="feature_similarity", variant="code, dlib-face").iloc[:1]
    assert not len(beside_published(other))

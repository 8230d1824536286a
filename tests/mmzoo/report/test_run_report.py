import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sample import full_report

from mmzoo.errors import InputError
from mmzoo.report.record import (
    CodebookUsage,
    Curve,
    CurvePanel,
    Measure,
    MeasureTable,
    Picture,
    PictureGrid,
    PictureRow,
    RunReport,
)
from mmzoo.report.run_report import render, write_report

BARE = RunReport("A title", "A summary.", "mmzoo demo")
VOID = {"meta", "link", "img"}
HOSTILE = "<script>alert(1)</script>\"'&</title></style>{{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def full():
    return render(full_report(size=48))


def cells(page):
    """The text of each row of each table, in order."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


def test_every_part_of_the_page_is_there_and_nests(full):
    page = Page(full)
    assert full.startswith("<!doctype html>")
    assert page.values("id") == ["pictures", "measures", "curves", "codebooks", "run", "limits"]
    assert [value for value in page.values("href") if value.startswith("#")] == [
        "#" + name for name in page.values("id")
    ]
    for text in (
        "Note well.",
        "mmzoo demo evotok --seed 0 --out runs/demo",
        "Reconstructions, coarse to fine",
        "Notes",
    ):
        assert text in page.texts


def test_an_empty_record_shows_no_empty_section():
    page = Page(render(BARE))
    assert not {"section", "table", "svg", "img", "dl", "li"} & set(page.tags)
    assert page.values("id") == []
    assert "Note well." not in page.texts


@pytest.mark.parametrize(
    ("part", "anchor"),
    [
        ({"grids": [PictureGrid("g", ["a"], [])]}, "pictures"),
        ({"tables": [MeasureTable("t", [])]}, "measures"),
        ({"curves": [CurvePanel("c", [])]}, "curves"),
        ({"codebooks": [CodebookUsage("b", 16, [], [], 0)]}, "codebooks"),
        ({"facts": {"a": "b"}}, "run"),
        ({"environment": {"a": "b"}}, "run"),
        ({"not_measured": ["rFID"]}, "limits"),
        ({"notes": ["a note"]}, "limits"),
    ],
)
def test_each_part_stands_alone_and_an_empty_one_says_so(part, anchor):
    page = Page(render(replace(BARE, **part)))
    assert page.values("id") == [anchor]
    assert "table" not in page.tags or anchor == "run"
    if anchor in {"pictures", "measures", "curves", "codebooks"}:
        assert page.texts[page.texts.index(next(iter(part.values()))[0].title) + 1].startswith(("No", "There is no"))


def test_measures_show_value_interval_level_and_basis(full):
    rows = cells(full)
    assert "PSNR, 8 levels 18.8 dB 17.9 to 19.6 (95 %) 6 images, 48 crops" in rows
    assert "gap to JPEG at equal bytes, container included −0.4 dB −1.2 to 0.3 (95 %) 6 images" in rows
    assert "parameters 3,214,592" in rows


def test_what_was_not_measured_is_said_in_table_and_headline(full):
    assert "LPIPS no VGG16 weights on this machine; see --lpips-weights not measured" in cells(full)
    assert '<span class="value absent">not measured</span>' in full
    only = Measure("LPIPS", None, "points")
    page = render(replace(BARE, headline=[only], tables=[MeasureTable("t", [only])]))
    assert page.count("not measured") == 2
    assert "points" not in page


def test_pictures_carry_captions_and_words_for_those_who_cannot_see_them(full):
    page = Page(full)
    alternatives = page.values("alt")
    assert alternatives[:2] == ["astronaut, held out, input", "astronaut, held out, 1 level"]
    assert alternatives[-2:] == ["colour", "grey"], "a row without a label"
    assert "12.0 dB" in page.texts
    large = PictureGrid("g", ["a"], [PictureRow("r", [Picture(np.zeros((97, 97), np.uint8))])])
    assert 'class="hard"' in full
    assert 'class="hard"' not in render(replace(BARE, grids=[large]))


def test_charts_say_what_is_special_about_them(full):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", full)
    assert "Faint: as logged; strong: moving mean. " in captions
    assert any(
        "Logarithmic." in line and "30 values are not shown: not finite, or not positive." in line for line in captions
    )
    one = render(replace(BARE, curves=[CurvePanel("c", [Curve("a", (1, 2, 3), (1.0, 2.0, float("nan")))])]))
    assert "1 value is not shown: not finite." in one
    plain = render(replace(BARE, curves=[CurvePanel("c", [Curve("a", (1, 2), (1.0, 2.0))])]))
    assert "<figcaption>" not in plain
    assert plain.count("<circle") == 2


def test_codebooks_are_drawn_level_by_level(full):
    rows = cells(full)
    assert "1 99.8 % 431" in rows
    assert "8 0.2 % 1" in rows
    assert '<rect class="used" width="99.8" height="10"/>' in full
    assert f'<rect class="perplexity" y="2.5" width="{100 * 431 / 512:.2f}" height="5"/>' in full
    assert "so at most 12.5 % could be used" in full


def test_hostile_text_stays_text():
    measure = Measure(HOSTILE, 1.0, HOSTILE, 0.5, 1.5, 0.95, 3, HOSTILE, HOSTILE)
    rows = [PictureRow(HOSTILE, [Picture(np.zeros((4, 4), np.uint8), HOSTILE)])]
    record = RunReport(
        title=HOSTILE,
        summary=HOSTILE,
        command=HOSTILE,
        headline=[measure],
        warnings=[HOSTILE],
        grids=[PictureGrid(HOSTILE, [HOSTILE], rows, HOSTILE)],
        tables=[MeasureTable(HOSTILE, [measure], HOSTILE)],
        curves=[CurvePanel(HOSTILE, [Curve(HOSTILE, (1, 2), (1.0, 2.0))], HOSTILE)],
        codebooks=[CodebookUsage(HOSTILE, 16, [0.5], [3.0], 9, HOSTILE)],
        facts={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        not_measured=[HOSTILE],
        notes=[HOSTILE],
    )
    text = render(record)
    page = Page(text)
    assert "script" not in page.tags
    assert page.texts.count(HOSTILE) >= 15, "also the braces stay as they are"
    assert (page.tags.count("title"), page.tags.count("style")) == (1, 1)
    assert {value for tag, name, value in page.attributes if name == "alt"} == {f"{HOSTILE}, {HOSTILE}"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_nothing_is_fetched_from_anywhere(full):
    page = Page(full)
    assert "http" not in full.lower().replace("http-equiv", "")
    assert "//" not in re.sub(r"data:image/\w+;base64,[\w+/=]+", "", full)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert all(value.startswith(("#", "data:")) for value in page.values("href"))
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import", full)


def test_a_policy_forbids_the_browser_to_fetch_or_run(full):
    page = Page(full)
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.values("content")
    assert page.tags.index("meta") < page.tags.index("style")


def test_the_same_record_gives_the_same_bytes_in_any_process(tmp_path, full):
    assert write_report(full_report(size=48), tmp_path / "a.html").read_bytes() == full.encode()
    code = "import sys; from sample import full_report; from mmzoo.report.run_report import render; "
    code += "sys.stdout.buffer.write(render(full_report(size=48)).encode())"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert other.stdout == full.encode()


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    out = write_report(BARE, tmp_path / "deep" / "er" / "report.html")
    write_report(BARE, out)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_a_page_over_the_limit_is_refused_and_the_old_one_stays(tmp_path):
    out = write_report(BARE, tmp_path / "report.html")
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"would be 5\.\d MB, the limit is 5 MB: show fewer pictures"):
        write_report(replace(BARE, grids=[PictureGrid("g", ["a"], [PictureRow("r", [Picture(noise)])])]), out)
    assert out.read_text() == render(BARE)


def test_ragged_grids_and_usages_are_refused():
    row = PictureRow("second", [Picture(np.zeros((4, 4), np.uint8))])
    with pytest.raises(ValueError, match="row 'second' of 'g' has 1 pictures for 2 columns"):
        render(replace(BARE, grids=[PictureGrid("g", ["a", "b"], [row])]))
    with pytest.raises(ValueError, match="'b' has 2 shares but 1 perplexities"):
        render(replace(BARE, codebooks=[CodebookUsage("b", 16, [0.5, 0.5], [3.0], 9)]))


def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "file" / "report.html", tmp_path / "folder", Path("/"), tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=r"cannot be written.*\.$") as caught:
            write_report(BARE, out)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failing_disk_leaves_no_half_page(tmp_path, monkeypatch):
    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left"):
        write_report(BARE, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_command_line_that_is_not_text_does_not_cost_the_report(tmp_path):
    out = write_report(replace(BARE, command="mmzoo demo \udcff"), tmp_path / "report.html")
    assert rb"mmzoo demo \udcff" in out.read_bytes()

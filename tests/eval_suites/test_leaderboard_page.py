"""The page in a real browser, without a network: it renders, it sorts, and its policy lets its own script run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest
from finished_evaluations import example

from mmzoo import cli

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=2000"),
)
#: Clicks the heads of the first table, and writes the order of its rows after each click into the page.
DRIVER = """
const seen = [];
const table = document.querySelector("table.board");
const look = (name) => seen.push([name, [...table.tBodies[0].rows].map((row) => row.cells[0].dataset.value),
  [...table.tHead.rows[0].cells].map((head) => head.getAttribute("aria-sort"))]);
look("start");
for (const column of [1, 1, 2, 2, 0, 3]) {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  look(column);
}
const frame = table.parentElement;
for (const width of ["200px", "3000px"]) {
  frame.style.width = width;
  dispatchEvent(new Event("resize"));
  seen.push(frame.previousElementSibling.hidden);
}
const place = document.createElement("pre");
place.id = "seen";
place.textContent = JSON.stringify(seen);
document.body.append(place);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    assert cli.main(["leaderboard", "build", str(example(folder / "runs")), "--out", str(folder / "board")]) == 0
    return folder / "board/leaderboard.html"


def test_the_policy_forbids_all_but_its_own_script(page):
    text = page.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_clicks_sort_the_table(page, tmp_path):
    digest = base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    text = page.read_text()
    driven = tmp_path / "driven.html"
    # The policy stays, with the driver added: sorting works only if the page's own script has the hash it claims.
    driven.write_text(
        text.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
            "</body>", f"<script>{DRIVER}</script></body>"
        )
    )
    dump = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path}/profile", "--dump-dom", driven.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', dump)
    *steps, narrow, wide = json.loads(seen)
    assert (narrow, wide) == (False, True)  # whether the hint at columns out of sight is hidden
    long, best = "owner/a-model-with-a-rather-long-name", {"best", "twin-of-best"}
    by_psnr = steps[0][1]
    assert set(by_psnr[:2]) == best
    assert by_psnr[2:] == ["middle", long, "low"]
    assert steps[0][2] == [None, "descending", None, None]
    assert (steps[1][1], steps[1][2][1]) == (by_psnr[::-1], "ascending")  # it was best first already
    assert (steps[2][1], steps[2][2][1]) == (by_psnr, "descending")
    by_lpips = steps[3][1]
    assert (set(by_lpips[:2]), by_lpips[2:]) == (best, ["middle", "low", long])  # lower is better; no value: last
    assert steps[3][2] == [None, None, "ascending", None]
    assert steps[4][1] == [*by_lpips[:4][::-1], long]
    assert steps[5][1] == ["best", "low", "middle", long, "twin-of-best"]
    assert steps[6][1] == ["low", "middle", "twin-of-best", "best", long]  # bits per pixel, from the highest

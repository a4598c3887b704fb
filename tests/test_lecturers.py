"""The lecturer's page quotes what the checks say, and the slides are one file without a network."""

import re
import sys
from pathlib import Path

import pytest

from gcl_core.course import check
from gcl_core.errors import GCLError

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "docs"), str(ROOT / "docs" / "slides")]

import make  # noqa: E402
from checks import Page, _is_remote  # noqa: E402

PAGE = (ROOT / "docs" / "lecturers.md").read_text()


def test_each_check_is_there_in_order_with_sentences_that_it_says():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+?) \| .+\? \|$", PAGE, re.MULTILINE)
    assert [name for _, name, _ in rows] == [one.name for one in check.CHECKS]
    by_name = {one.name: one for one in check.CHECKS}
    for _, name, quoted in rows:
        said = re.findall(r"\*(.+?)\*", quoted)
        assert said, name
        assert set(said) <= set(by_name[name].mistakes), name


@pytest.mark.parametrize(("plan", "minutes"), [("Two hours", 120), ("Six hours", 360)])
def test_a_plan_fills_its_time(plan, minutes):
    section = PAGE.split(f"## {plan}")[1].split("\n## ")[0]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", section, re.MULTILINE))) == minutes


def test_ten_slides_each_with_a_picture_of_the_lab_and_no_network(tmp_path):
    text = make.slides()
    sections = re.findall(r"<section>.*?</section>", text, re.DOTALL)
    assert len(sections) == 10
    for section in sections:
        (alt,) = re.findall(r'<img src="data:image/png;base64,[\w+/=]+" alt="([^"]+)"', section)
        assert alt.endswith(".")  # the whole text, not the beginning that names the picture
    assert "<td>photographs of clothes</td>" in sections[-1]
    (tmp_path / "slides.html").write_text(text)
    page = Page(tmp_path / "slides.html")
    assert not [target for target in page.loaded | page.links if _is_remote(target)]


def test_a_picture_that_is_not_there_is_refused():
    line = "![No such picture](notebooks/lab/1_see.ipynb)"
    with pytest.raises(GCLError, match="^0 pictures of notebooks/lab/1_see.ipynb begin with 'No"):
        make.IMAGE.sub(make._embedded, line)

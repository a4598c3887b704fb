"""The command line inside of a notebook."""

import pytest

from gcl_core.course.terminal import terminal
from gcl_core.errors import GCLError


def test_a_command_is_shown_with_its_lines_and_without_paths(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "dataset: digits\npreset: smoke\ncells: [{method: ce, seed: [0, 1]}]\n"
    )
    text = terminal("grid plan own.yaml --runs $RUNS", tmp_path, RUNS=tmp_path / "elsewhere").data
    first, second, *rest = text.splitlines()
    assert (first, second) == ("```", "$ python -m gcl_core grid plan own.yaml --runs $RUNS")
    assert "ce, seed 1  left" in rest
    assert "2 cells: 2 left" in rest
    assert rest[-1] == "```"
    assert str(tmp_path) not in text


def test_a_command_that_fails_says_why_and_names_no_place(tmp_path):
    grid = tmp_path / "elsewhere" / "own.yaml"
    with pytest.raises(GCLError, match=r"^gcl: cannot read \$GRID: ") as refusal:
        terminal("grid plan $GRID", tmp_path, GRID=grid)
    assert str(tmp_path) not in str(refusal.value)

"""The command line inside of a notebook: what a reader would type, and what it says."""

import os
import subprocess
import sys
from pathlib import Path
from string import Template

from IPython.display import Markdown

from gcl_core.errors import GCLError


def terminal(command: str, folder: Path, **places: Path) -> Markdown:
    """Run `python -m gcl_core COMMAND` in a folder; the command and its lines as a block of text.

    Args:
        command: words without quotes. `$NAME` stands for `places["NAME"]`.
        folder: the current folder of the command. What it says is shown without the paths of
            this machine: relative to this folder, and with the names of places.

    Raises:
        GCLError: the command fails; the last line that it wrote.
    """
    folder = folder.resolve()
    full = {name: str(place.absolute()) for name, place in places.items()}
    words = [Template(word).substitute(full) for word in command.split()]
    # No colours, no bars: the block is text.
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "gcl_core", *words],
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.rstrip()
    for name, place in full.items():
        said = said.replace(place, f"${name}")
    said = said.replace(f"{folder}{os.sep}", "")
    if done.returncode:
        raise GCLError(said.splitlines()[-1] if said else f"gcl_core {command} failed")
    return Markdown(f"```\n$ python -m gcl_core {command}\n{said}\n```")

"""Make a folder that trains on a bare GPU machine without network: packages, images, grid.

    python gpu/bundle.py --dataset cifar10:PATH --grid grids/cifar10-official.yaml

README.md in it says how it is used. The images are those that the grid's cells train on, and the
whole test set, as lossless WebP.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError
from gcl_core.files import atomic_folder
from gcl_core.grid.cells import Cell, cells_of

HERE = Path(__file__).parent
CARRIED = ("README.md", "carry.py", "check.py", "ready.py", "run.sh")
PYTHON = "3.12"  # there; what is compiled for it works, or is done without, in newer ones too
# What a machine with torch, torchvision, Lightning, pandas, pyarrow and scikit-learn may lack.
LACKING = (
    "click",
    "cloudpickle",
    "dask",
    "distributed",
    "lightning-fabric",
    "locket",
    "msgpack",
    "partd",
    "psutil",
    "sortedcontainers",
    "tblib",
    "toolz",
    "tornado",
    "zict",
)
KINDS = ("cifar10", "cifar100")  # of which any part that has a subset gives the same subset
LARGEST = 45 * 2**20  # bytes


def bundle(out: Path, dataset: str, grid: Path) -> int:
    """Write the folder whole, or not at all; returns its bytes.

    Raises:
        GCLError: it would be too large, or what is needed for it is not there.
        OSError: it cannot be written.
    """
    kind = dataset.partition(":")[0]
    if kind not in KINDS:
        raise GCLError(f"a bundle has images of {' or '.join(KINDS)} ({kind}:PATH), got {dataset}")
    place = f"dataset: {kind}:content/images"
    text, lines = re.subn(r"(?m)^dataset: .*", place, grid.read_text())
    if lines != 1:
        raise GCLError(f"{grid} must name its dataset in one line, such as `dataset: digits`")
    cells = [each for each in cells_of(grid, dataset=dataset) if isinstance(each, Cell)]
    if not cells:
        raise GCLError(f"{grid} has nothing to train: a bundle runs no notebooks")
    with atomic_folder(out) as folder:
        content = folder / "content"
        _images(content / "images", dict.fromkeys(cell.settings.data for cell in cells))
        _packages(content / "site")
        with tarfile.open(folder / "content.tar.xz", "w:xz") as archive:
            archive.add(content, ".")
        shutil.rmtree(content)
        (folder / "grid.yaml").write_text(text)
        for name in CARRIED:
            shutil.copy2(HERE / name, folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        if size > LARGEST:
            mib = f"{size / 2**20:.1f} MiB, more than {LARGEST >> 20}"
            raise GCLError(f"the bundle has {mib}; a grid of greater ratios has fewer images")
    return size


def _images(folder: Path, wanted: Iterable[DataSettings]) -> None:
    """Class folders of all training images that any of the settings take, and the test images."""
    parts: dict[str, Counter[tuple[str, bytes]]] = {"train": Counter(), "test": Counter()}
    for settings in wanted:
        data = load_dataset(settings)
        for part, split in (("train", data.train), ("test", data.test)):
            names = (data.class_names[label] for label in split.labels.tolist())
            pixels = (image.tobytes() for image in split.images.pixels.numpy())
            parts[part] |= Counter(zip(names, pixels, strict=True))  # equal ones as often as needed
    for part, images in parts.items():
        for number, (name, image) in enumerate(images.elements()):
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            array = np.frombuffer(image, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
            Image.fromarray(array).save(place / f"{number}.webp", lossless=True)


def _packages(folder: Path) -> None:
    """Ours, without the embedded photographs, and those of `LACKING`, installed in the folder."""
    root, source = HERE.parent, folder.with_name("source")
    unneeded = shutil.ignore_patterns("__pycache__", "embedded")
    shutil.copytree(root / "gcl_core", source / "gcl_core", ignore=unneeded)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(root / name, source)
    _pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={source}", str(source))
    lock = (root / "requirements.lock").read_text()
    pinned = [re.findall(rf"(?m)^{name}==[^ ;\\]+", lock)[0] for name in LACKING]
    there = [f"--platform=manylinux{glibc}_x86_64" for glibc in ("_2_28", "_2_17", "2014")]
    there += [f"--python-version={PYTHON}", "--only-binary=:all:", f"--target={folder}"]
    ours = map(str, source.glob("*.whl"))
    _pip("install", "--no-deps", "--no-compile", *there, *ours, *pinned)
    shutil.rmtree(source)


def _pip(*words: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GCLError(f"pip {words[0]} failed: {(done.stderr.splitlines() or ['?'])[-1]}")


def main() -> int:
    """Read the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", required=True, help="such as cifar10:PATH")
    parser.add_argument("--grid", type=Path, default=HERE.parent / "grids/cifar10-official.yaml")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-bundle"))
    given = parser.parse_args()
    try:
        size = bundle(given.out, given.dataset, given.grid)
    except (GCLError, OSError) as error:
        print(f"gpu-bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{given.out}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

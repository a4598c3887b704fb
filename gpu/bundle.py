"""Make a folder that trains on a bare GPU machine without network: package, wheels, images, grid.

    python gpu/bundle.py --dataset cifar10:PATH --grid grids/cifar10-official.yaml

`run.sh` in it says how it is used. The images are one long-tailed subset with the whole test set,
as lossless WebP; subsets of a greater ratio are drawn from it.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from PIL import Image

from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError
from gcl_core.files import atomic_folder

HERE = Path(__file__).parent
# What a machine with torch, Lightning, pandas, pyarrow and scikit-learn lacks.
LACKING = (
    "dask",
    "distributed",
    "lightning-fabric",
    "locket",
    "msgpack",
    "partd",
    "tblib",
    "toolz",
)
LACKING += ("tornado", "zict")
LARGEST = 45 * 2**20  # bytes


def bundle(out: Path, dataset: str, grid: Path, ratio: float, python: str) -> int:
    """Write the folder whole, or not at all; returns its bytes.

    Raises:
        GCLError: it would be too large, or what is needed for it is not there.
    """
    kind = dataset.partition(":")[0].replace("digits", "folder")  # which has no images in a folder
    text, lines = re.subn(r"(?m)^dataset: .*", f"dataset: {kind}:images", grid.read_text())
    if lines != 1:
        raise GCLError(f"{grid} must name its dataset in one line, such as `dataset: digits`")
    with atomic_folder(out) as folder:
        (folder / "grid.yaml").write_text(text)
        _images(folder / "images.tar", dataset, ratio)
        _wheels(folder / "wheels", python)
        for name in ("run.sh", "check.py"):
            shutil.copy2(HERE / name, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > LARGEST:
            mib = f"{size / 2**20:.1f} MiB, more than {LARGEST >> 20}"
            raise GCLError(f"the bundle has {mib}; a greater --imbalance-ratio has fewer images")
    return size


def _images(file: Path, dataset: str, ratio: float) -> None:
    data = load_dataset(DataSettings(dataset=dataset, imbalance_ratio=ratio))
    with tarfile.open(file, "w") as archive:
        for part, split in (("train", data.train), ("test", data.test)):
            pairs = zip(split.images.pixels.permute(0, 2, 3, 1), split.labels.tolist(), strict=True)
            for number, (pixels, label) in enumerate(pairs):
                buffer = io.BytesIO()
                Image.fromarray(pixels.numpy().squeeze()).save(
                    buffer, "webp", lossless=True, quality=100, method=4
                )
                place = f"images/{part}/{data.class_names[label]}/{number:05d}.webp"
                entry = tarfile.TarInfo(place)
                entry.size = buffer.tell()
                archive.addfile(entry, io.BytesIO(buffer.getvalue()))


def _wheels(folder: Path, python: str) -> None:
    root, pip = HERE.parent, [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = folder.with_name("source")  # a copy: what an earlier build has left would go in too
    shutil.copytree(root / "gcl_core", source / "gcl_core")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(root / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    target = ["--only-binary", ":all:", "--python-version", python]
    target += [f"--platform=manylinux{glibc}_x86_64" for glibc in ("_2_28", "_2_17", "2014")]
    fetch = ["download", "--no-deps", "--dest", str(folder), *target, *_pinned(root)]
    for words in (build, fetch):
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GCLError(f"pip {words[0]} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    shutil.rmtree(source)


def _pinned(root: Path) -> list[str]:
    lock = (root / "requirements.lock").read_text()
    return [re.findall(rf"(?m)^{name}==[^ ;\\]+", lock)[0] for name in LACKING]


def main() -> int:
    """Read the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", required=True, help="KIND:PATH, such as cifar10:PATH")
    parser.add_argument("--grid", type=Path, default=HERE.parent / "grids/cifar10-official.yaml")
    parser.add_argument("--imbalance-ratio", type=float, default=50, help="of the images (50)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-bundle"))
    parser.add_argument("--python", default="3.12", help="version there (3.12)")
    given = parser.parse_args()
    try:
        size = bundle(given.out, given.dataset, given.grid, given.imbalance_ratio, given.python)
    except (GCLError, OSError) as error:
        print(f"gpu-bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{given.out}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/bin/sh
# On a machine with a GPU and without network, in the folder that `make gpu-bundle` made:
#   ./run.sh check           every method on the GPU, equal bits, steps a second; 240 s at most
#   ./run.sh train MINUTES   the grid, most wanted cells first; again: it continues
# Figures, records and checkpoints come to stand in OUT (out). PYTHON (python3), ACCELERATOR (gpu)
# and PER_GPU (3 runs on each card) can be set.
set -eu
fail() { echo "run.sh: $1" >&2; exit 1; }
cd "$(dirname "$0")"
out=${OUT:-out} python=${PYTHON:-python3} accelerator=${ACCELERATOR:-gpu}
task=${1-} minutes=${2-}
case $task in
check) ;;
train) case $minutes in '' | *[!0-9]* | 0*) fail "train needs whole MINUTES, got '$minutes'" ;; esac ;;
*) fail "say check, or train MINUTES, not '$task'" ;;
esac
if [ ! -e site/.whole ]; then # an installation that was cut off starts from nothing
    rm -rf site images
    tar -xf images.tar || fail "images.tar cannot be unpacked here; is the disk full?"
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --target site wheels/*.whl || fail "the wheels cannot be installed into site/"
    touch site/.whole
fi
PYTHONPATH="$PWD/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
"$python" - <<'END' || exit 1
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

wanted = [Requirement(each) for each in requires("gcl-core")]
for each in wanted:
    if each.marker is not None and not each.marker.evaluate({"extra": "grid"}):
        continue
    try:
        found = version(each.name)
    except PackageNotFoundError:
        found = "none"
    if found == "none" or not each.specifier.contains(found, prereleases=True):
        sys.exit(f"run.sh: this bundle is for {each}, and here is {found}; make another one")
END
mkdir -p "$out"
if [ "$task" = check ]; then
    exec timeout 240 "$python" check.py grid.yaml "$out/check.json" "$accelerator"
fi
share=--per-gpu
[ "$accelerator" = gpu ] || share=--workers
status=0
"$python" -m gcl_core grid run grid.yaml --runs "$out/runs" --accelerator "$accelerator" \
    --minutes "$minutes" "$share" "${PER_GPU:-3}" || status=$?
"$python" -m gcl_core grid collect grid.yaml --runs "$out/runs" --accelerator "$accelerator" \
    --records "$out/records.json"
exit "$status"

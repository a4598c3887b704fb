#!/bin/sh
# In the folder that `make gpu-bundle` made, on a machine with a GPU; see README.md:
#   ./run.sh check [MINUTES]   every method on the GPU, equal bits, steps a second; 4 at most
#   ./run.sh train MINUTES     the grid, most wanted cells first; again: it continues
set -eu
fail() { echo "run.sh: $1" >&2; exit 1; }
whole() { case $2 in '' | *[!0-9]* | 0*) fail "$1 must be a whole number > 0, got '$2'" ;; esac; }
cd "$(dirname "$0")"
out=${OUT:-out} python=${PYTHON:-python3} accelerator=${ACCELERATOR:-gpu} per_gpu=${PER_GPU:-3}
task=${1-}
case $task in
check) minutes=${2-4} ;;
train) minutes=${2-} ;;
*) fail "say check, or train MINUTES, not '$task'" ;;
esac
whole MINUTES "$minutes"
whole PER_GPU "$per_gpu"
case $accelerator in cpu | gpu) ;; *) fail "ACCELERATOR must be cpu or gpu, got '$accelerator'" ;; esac
command -v "$python" >/dev/null || fail "there is no $python; PYTHON names another one"
unpack() { # FOLDER PIECES_OF_AN_ARCHIVE: the whole folder, or none
    folder=$1
    shift
    rm -rf "$folder.part"
    reason=$(cat "$@" | "$python" -c 'import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive:
    archive.extractall(sys.argv[1], filter="data")' "$folder.part" 2>&1) || {
        rm -rf "$folder.part"
        fail "$folder cannot be unpacked here: $(echo "$reason" | tail -n 1)"
    }
    mv "$folder.part" "$folder"
}
[ -d content ] || unpack content content.tar.xz
PYTHONPATH="$PWD/content/site${PYTHONPATH:+:$PYTHONPATH}" GCL_CACHE=${GCL_CACHE:-$PWD/cache}
export PYTHONPATH GCL_CACHE
"$python" ready.py "$accelerator" || exit 1
mkdir -p "$out"
status=0
if [ "$task" = check ]; then
    timeout "$((60 * minutes))" "$python" check.py grid.yaml "$out/check.json" "$accelerator" ||
        status=$?
    [ "$status" != 124 ] || fail "the time is over; what was known by then is in $out/check.json"
    exit "$status"
fi
if [ ! -d runs ] && [ -e out/runs/00 ]; then # of an earlier session, on another machine
    unpack runs out/runs/??
fi
share=--per-gpu
[ "$accelerator" = gpu ] || share=--workers
gather() { "$python" carry.py grid.yaml runs "$out" "$accelerator"; }
while sleep 120; do gather || :; done >/dev/null 2>&1 & # in case that the machine ends too early
gathering=$!
"$python" -m gcl_core grid run grid.yaml --retry-failed --runs runs --accelerator "$accelerator" \
    --minutes "$minutes" "$share" "$per_gpu" || status=$?
kill "$gathering"
gather
exit "$status"

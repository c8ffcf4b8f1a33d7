#!/bin/sh
# Runs tests with the oldest releases that pyproject.toml admits: scripts/check_lowest.sh [PYTHON [TESTS...]]
# Takes about twenty minutes, and several gigabytes where the oldest torch comes with CUDA.
set -eu

python=${1:-python3.11}
[ $# -eq 0 ] || shift
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/python" -m pip install --quiet --disable-pip-version-check uv
extras="--extra eval --extra fast --extra serve --extra export"
# shellcheck disable=SC2086 # the extras are several words
"$scratch/tools/bin/uv" pip compile "$root/pyproject.toml" $extras --resolution lowest-direct \
    --python "$python" --no-header --no-annotate --quiet > "$scratch/lowest.txt"

"$python" -m venv "$scratch/lowest"
pip="$scratch/lowest/bin/python -m pip install --quiet --disable-pip-version-check"
$pip -r "$scratch/lowest.txt"
$pip -c "$scratch/lowest.txt" pytest pytest-xdist hypothesis httpx psutil
$pip --no-deps -e "$root"
cd "$root"
"$scratch/lowest/bin/python" -m pytest -q -n auto --dist loadfile "${@:-tests}"

#!/bin/sh
# Builds wheel and sdist, checks their metadata, installs the wheel into a new environment and uses it there, then each
# extra in one of its own. Takes about twenty minutes and is run before a release: scripts/check_package.sh [PYTHON]
set -eu

python=${1:-python3.11}
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/python" -m pip install --quiet --disable-pip-version-check build twine
"$scratch/tools/bin/python" -m build --outdir "$scratch/dist" "$root"
"$scratch/tools/bin/twine" check --strict "$scratch"/dist/*

start=$(date +%s)
"$python" -m venv "$scratch/clean"
"$scratch/clean/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$scratch"/dist/*.whl
cd "$scratch" # not beside the sources: what is imported is what was installed
clean=$scratch/clean/bin
"$clean/rabtriever" --version
"$clean/rabtriever" --help > /dev/null
"$clean/rabtriever" info --json
"$clean/python" -c "import rabtriever; print(len(rabtriever.Dataset.example().corpus), 'documents of example data')"

# First steps, as the README has them: a model that comes with the package, on a folder of one's own.
mkdir my-skills
echo "pick up the mug" > my-skills/mug.txt
echo "turn on the desk lamp" > my-skills/lamp.txt
"$clean/rabtriever" index robot-skills my-skills -o skills
"$clean/rabtriever" search skills "Task: put a clean mug on the desk. Steps so far: 1. go to the coffee machine." -k 1 > found
cat found
grep -q "pick up the mug" found
"$clean/rabtriever" search skills "mug" --hybrid -k 1
seconds=$(($(date +%s) - start))
echo "from nothing installed to the first answer: $seconds s"
test "$seconds" -lt 300

# Without any extra: what needs one says which, in one sentence and with exit code 2.
for verb in "mcp $scratch" "serve $scratch"; do
    code=0
    # shellcheck disable=SC2086 # the verb and its argument are two words
    "$clean/rabtriever" $verb > said 2>&1 || code=$?
    cat said
    test "$code" -eq 2
    if grep -q Traceback said; then exit 1; fi
done
for module in langchain llama_index haystack rerankers mteb mcp; do
    "$clean/python" - "$module" <<'PYTHON'
import importlib, sys

try:
    importlib.import_module(f"rabtriever.integrations.{sys.argv[1]}")
except ModuleNotFoundError as error:
    print(error)
else:
    raise SystemExit(f"{sys.argv[1]} could be imported without its extra")
PYTHON
done
"$scratch/tools/bin/python" "$root/scripts/check_extras.py" "$scratch"/dist/*.whl "$scratch"
echo "the package is fit for a release"

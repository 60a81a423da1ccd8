#!/bin/sh
# benchmarks/install.sh [FOLDER]: an environment with this project as its users get it, then its
# peers. The order matters: the constraints pin PyTorch before anything can ask for another.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-.venv-bench}
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
install="$folder/bin/python -m pip install --quiet --constraint constraints.txt"
$install --editable .
$install --requirement benchmarks/requirements.txt
$install --no-deps --requirement benchmarks/peers.txt

# Every target makes the environment it needs; running it again is quick.
#
#   make demo          train a small Spikformer beside its ANN twin, write a report
#   make test          run the tests
#   make test-goldens  the same numbers as official code: RHEOBASE_GOLDENS=<folder> make test-goldens
#   make lint          style and types
#   make bench         compare with other libraries (an environment of its own)
#   make bench-quick   the same in a few rounds; saves nothing

PYTHON ?= python3
PINS := pyproject.toml constraints.txt
# As many processes as cores; their threads share those, so what waits sleeps.
PYTEST := OMP_WAIT_POLICY=passive .venv/bin/python -m pytest --numprocesses auto --dist worksteal
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-goldens lint bench bench-quick

demo: .venv/installed
	.venv/bin/rheobase demo

test: .venv/installed-dev
	$(PYTEST)

test-goldens: .venv/installed-dev
	$(PYTEST) -m golden -rs

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks

bench-quick: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks --quick

# A venv without pip is what a Python without python3-venv leaves behind.
%/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo 'rheobase needs Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $* || { rm -rf $*; \
	  echo 'Python cannot make a virtual environment; on Debian and Ubuntu: sudo apt-get install python3-venv' >&2; exit 1; }

.venv/installed: $(PINS) | .venv/bin/pip
	@echo 'Installing rheobase into .venv (PyTorch is large: minutes the first time) ...'
	.venv/bin/python $(INSTALL) --editable .
	@touch $@

.venv/installed-dev: $(PINS) | .venv/bin/pip
	@echo 'Installing rheobase and its development tools into .venv (minutes the first time) ...'
	.venv/bin/python $(INSTALL) --editable '.[dev]'
	@touch $@ .venv/installed

.venv-bench/installed: $(PINS) benchmarks/install.sh benchmarks/requirements.txt benchmarks/peers.txt \
    | .venv-bench/bin/pip
	@echo 'Installing rheobase and its peers into .venv-bench (minutes the first time) ...'
	sh benchmarks/install.sh .venv-bench
	@touch $@

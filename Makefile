# make demo  - set up .venv and write demo-report/report.html with the bundled model
# make test  - set up .venv and run the linter and the tests
# make lint  - the linter alone
# make figures DATA=FOLDER - measure the bundled model anew, into benchmarks/results; FOLDER holds librispeech.tsv
# make clean - remove what the other targets made, .venv included
#
# PYTHON names the interpreter that makes .venv (3.10 or newer).

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --disable-pip-version-check -q -c constraints.txt

DATA ?= data
RESULTS := benchmarks/results

.PHONY: demo test lint figures clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-demo
	$(VENV)/bin/speechtok demo -o demo-report

test: lint
	$(RUN) -m pytest -q

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check src tests $(wildcard benchmarks examples)

figures: $(VENV)/.installed-dev
	$(VENV)/bin/speechtok align $(DATA)/librispeech.tsv -o build/phones --split dev
	$(RUN) -m speechtok.bench.reconstruction --data $(DATA)/librispeech.tsv --split test --usage-split dev \
	  -o $(RESULTS)/reconstruction-speechtok-base.json
	$(RUN) -m speechtok.bench.phones --data $(DATA)/librispeech.tsv --split dev --phones build/phones/phones.tsv \
	  --level 0 1 7 -o $(RESULTS)/phones-speechtok-base.json
	$(RUN) benchmarks/speed.py --threads 2 -o $(RESULTS)/speed.json
	$(RUN) benchmarks/cost.py --minutes 0.2 1 10 --threads 2 -o $(RESULTS)/cost.json

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(v < (3, 10) and "speechtok needs Python 3.10 or newer, $(PYTHON) is %d.%d: make PYTHON=..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp per set of extras, touched last, so a failed installation is tried again and a finished one costs nothing.
$(VENV)/.installed-%: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) -e '.[$*]'
	@$(PIP) -e '.[pesq]' > $(VENV)/pesq.log 2>&1 || echo \
	  "note: the PESQ measure could not be built (it needs a C compiler; log in $(VENV)/pesq.log)." \
	  "Going on without it: PESQ will be reported as not measured."
	@touch $@

clean:
	rm -rf $(VENV) demo-report dist build .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +

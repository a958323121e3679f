# make repro   run the pipeline; PROFILE=smoke or photos runs another profile, STAGE=decoder@base a part of it
# make tour    a first picture, from shipped weights, of a packaged photograph or PHOTO=... MASK=...
# make test    unit and property tests, the smoke pipeline, and every notebook; at least 90 % of the branches are run
# make browser the painter and notebook 00 in Chromium, which has to be there (apt-get install chromium, or CHROMIUM=...)
# make nbval   the smoke pipeline and every notebook alone
# make lab     open the notebooks in JupyterLab, which serves the project's root: their pictures lie in results/
# make lint    check the format of code and notebooks, the workflows, and that dvc.yaml lists the code that a stage runs
# make format  put the code and the notebooks into that format
# make stages  write the code that each stage runs into dvc.yaml
# make wheel   build the package into dist/
# make ablations  the short runs of notebooks 08 and 09, three seeds each; what is done is kept when it is stopped
# make long_runs  longer ones on the photographs, in .profiles/photos: known pixels fitted first, heavier decoders; four hours
# make bench   time decoders, windows around the hole and finishers beside each other, into results/bench.csv
# make verify  compute the committed results again: LEVEL=tables (a minute), metrics (stored pictures), all (retrains)
# make readme  rewrite the numbers of README and docs from results/, and the data plan from params.yaml
# Each builds .venv when it is missing or when its requirements have changed.

PROFILE ?= default
STAGE ?=
LEVEL ?= tables
# The first that runs: a version manager may have a python3.11 that only says it is not installed.
PYTHON ?= $(or $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done),python3)

# The name of the stamp carries the requirements' checksum, so that a fresh clone's file times rebuild nothing.
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)
YAMLLINT := {extends: default, rules: {line-length: {max: 120}, document-start: disable, truthy: {check-keys: false}}}

export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test browser nbval lab lint format stages wheel verify ablations long_runs readme tour bench

repro: $(STAMP)
	python -m asymlib.study.profiles $(PROFILE) $(STAGE)

tour: $(STAMP)
	python -m asymlib.study.tour $(PHOTO) $(MASK)

test: $(STAMP)
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not nbval' --durations=12 --cov --cov-report=term

browser: $(STAMP)
	python -m pytest tests/browser

nbval: $(STAMP)
	python -m pytest tests/study/test_pipeline.py -k test_every_notebook_passes_nbval

lab: $(STAMP)
	jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

lint: $(STAMP)
	ruff check .
	ruff format --check .
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	yamllint --strict -d '$(YAMLLINT)' .github/workflows
	python -m asymlib.study.stages --check

format: $(STAMP)
	ruff check --fix .
	ruff format .

stages: $(STAMP)
	python -m asymlib.study.stages

wheel: $(STAMP)
	python -m build

bench: $(STAMP)
	python -m asymlib.study.bench

verify: $(STAMP)
	python -m asymlib.study.reporting.verify $(LEVEL) --profile $(PROFILE)

ablations: $(STAMP)
	python -m asymlib.study.profiles default inpainter
	python -m asymlib.study.ablations
	dvc commit --force ablations

long_runs: $(STAMP)
	python -m asymlib.study.profiles photos inpainter
	ASYMLIB_COMMIT=$$(python -c 'import asymlib.study.profiles as p; print(p.commit(p.project_root()))'); \
		export ASYMLIB_COMMIT; cd .profiles/photos && python -m asymlib.study.ablations long_runs --out $(CURDIR)/results/long_runs

readme: $(STAMP)
	python -m asymlib.study.reporting.report
	python -m asymlib.study.reporting.plan

$(STAMP):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("error: PYTHON: got Python %d.%d, expected 3.11 or newer" % v[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -r requirements.lock
	.venv/bin/python -m pip install --no-deps -e .
	rm -f .venv/.installed-*
	touch $@

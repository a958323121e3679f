# make repro   run the pipeline; PROFILE=smoke, extended or photos runs another profile, STAGE=decoder@base a part of it
# make test    unit and property tests, the smoke pipeline, and every notebook
# make lab     open the notebooks in JupyterLab
# make lint    check the code's and the notebooks' format
# make ablations  the short runs of notebooks 08 and 09, three seeds each; what is done is kept when it is stopped
# make verify  compute the committed results again: LEVEL=tables (seconds), metrics (stored pictures), all (retrains)
# make readme  rewrite the README's tables from results/ and its data plan from params.yaml
# Each builds .venv when it is missing or when its requirements have changed.

PROFILE ?= default
STAGE ?=
LEVEL ?= tables
PYTHON ?= $(shell command -v python3.11 || command -v python3)

# The name of the stamp carries the requirements' checksum, so that a fresh clone's file times rebuild nothing.
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)

export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test lab lint verify ablations readme

repro: $(STAMP)
	python -m asymlib.profiles $(PROFILE) $(STAGE)

test: $(STAMP)
	python -m pytest

lab: $(STAMP)
	jupyter lab notebooks

lint: $(STAMP)
	ruff check .
	ruff format --check .

verify: $(STAMP)
	python -m asymlib.evaluation.verify $(LEVEL) --profile $(PROFILE)

ablations: $(STAMP)
	python -m asymlib.profiles default inpainter
	python -m asymlib.ablations
	dvc commit --force ablations

readme: $(STAMP)
	python -m asymlib.evaluation.report
	python -m asymlib.evaluation.plan

$(STAMP):
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -r requirements.lock
	.venv/bin/python -m pip install --no-deps -e .
	rm -f .venv/.installed-*
	touch $@

# Two commands, each enough by itself on a fresh clone: make test, make demo.
# Everything they install or write stays inside the clone.
PYTHON ?= python3
VENV := .venv
SECONDS ?= 60
STAMP := $(VENV)/.installed

.PHONY: test demo lint types trial test-faults fuzz clean

test: lint types trial

demo: $(STAMP)
	rm -rf demo-run
	$(VENV)/bin/harp demo --folder=demo-run $(if $(filter-out 0,$(KEEP)),--keep)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

trial: $(STAMP)
	$(VENV)/bin/python -W error::ResourceWarning -m twisted.trial tests

# Faults that last as long as in earnest, for some minutes; what only root can do is skipped for others.
test-faults: $(STAMP)
	HARPCALLER_FAULTS_LONG=1 $(VENV)/bin/python -W error::ResourceWarning -m twisted.trial tests.faults

# Looks for inputs that break a property, a minute for each target (tests/fuzz).
fuzz: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --editable '.[fuzz]'
	for target in $$($(VENV)/bin/python -m tests.fuzz --list); do \
	    $(VENV)/bin/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; done

# setup.cfg names what is needed; the packages themselves are used from the checkout.
$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) _trial_temp* demo-run build dist *.egg-info

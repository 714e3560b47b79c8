# Each command is enough by itself on a fresh clone: make test, make demo, make docs.
# Everything they install or write stays inside the clone.
PYTHON ?= python3
# What the Debian package runs on, an interpreter of Debian's.
DEB_PYTHON ?= /usr/bin/python3
VENV := .venv
SECONDS ?= 60
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.installed

# The tests, in three parts that take about as long as each other.
daemons := tests.harpd tests.harpcaller
clients := tests.harp tests.simulation
others := $(filter-out $(daemons) $(clients),$(patsubst tests/%/__init__.py,tests.%,$(wildcard tests/*/__init__.py)))

.PHONY: test test-all demo docs lint types trial trial-daemons trial-clients trial-others test-faults fuzz deb test-deb clean

test: lint types trial

demo: $(RUNS)
	rm -rf demo-run
	$(VENV)/bin/harp demo --folder=demo-run $(if $(filter-out 0,$(KEEP)),--keep)

# HTML and manual pages, in build/docs.
docs: $(STAMP)
	$(VENV)/bin/sphinx-build -W --keep-going -n -q -b html docs build/docs/html
	$(VENV)/bin/sphinx-build -W --keep-going -n -q -b man docs build/docs/man

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	$(VENV)/bin/mypy

# In three processes at once, for most tests wait: for real daemons, or for what they did.
trial: $(STAMP)
	$(MAKE) --no-print-directory -j3 --output-sync=target trial-daemons trial-clients trial-others

trial-daemons trial-clients trial-others: $(STAMP)
	$(VENV)/bin/python -W error::ResourceWarning -m twisted.trial \
	    --temp-directory=_trial_temp_$(@:trial-%=%) $($(@:trial-%=%))

# Faults that last as long as in earnest, for some minutes; what only root can do is skipped for others.
test-faults: $(STAMP)
	HARPCALLER_FAULTS_LONG=1 $(VENV)/bin/python -W error::ResourceWarning -m twisted.trial tests.faults

# Looks for inputs that break a property, a minute for each target (tests/fuzz).
fuzz: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --editable '.[fuzz]'
	for target in $$($(VENV)/bin/python -m tests.fuzz --list); do \
	    $(VENV)/bin/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; done

# On every Python from 3.11 on that this machine has, each with an environment of its own (.venvs).
test-all:
	$(PYTHON) tests/every_python.py

# build/deb/harpcaller_VERSION_ARCHITECTURE.deb, for the release of Debian that this machine has.
deb: docs
	packaging/deb/build $(DEB_PYTHON) $(VENV)/bin/python build/deb

# Installs it in a systemd that is booted in namespaces of the kernel, as root; leaves nothing.
test-deb: deb
	HARPCALLER_DEB=$$(ls $(CURDIR)/build/deb/*.deb) $(VENV)/bin/python -m twisted.trial tests.acceptance.test_debian

# setup.cfg names what is needed; the packages themselves are used from the checkout.
$(RUNS): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

# With what tests and documentation need besides.
$(STAMP): $(RUNS)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venvs _trial_temp* demo-run build dist *.egg-info

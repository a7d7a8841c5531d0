# Two commands do everything on a fresh machine: `make demo` and `make test`. Both work a second time without network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUERY ?= a cup of coffee
PICTURE ?=
SEARCH = $(BIN)/plume-embed search examples/photographs --to .data/demo-index --top 5
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo space test test-fast test-slow lint audit libraries matrix format miniature photos train-tiny train-small paradigms steps \
	scene-hops scene-hops-base scene-hops-variants evaluate-tiny clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# The stamps hold what was installed for: a second run touches no network.
$(VENV)/.base: pyproject.toml hatch_build.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	@touch $@ $(VENV)/.space

demo: $(VENV)/.base  ## search a bundled folder of photographs with plume-small
	$(SEARCH) "$(QUERY)"
	$(SEARCH) $(if $(PICTURE),--image $(PICTURE),"snowy mountains") --no-update
	@echo 'Search it yourself: make demo QUERY=cat, or make demo PICTURE=some.png'

$(VENV)/.space: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable ".[space]"
	@touch $@

space: $(VENV)/.space  ## search in the browser, and look inside the rollout
	$(BIN)/python space/app.py

FAST_TESTS := $(addprefix tests/model/test_,adapter.py configuration.py inputs.py media.py modeling.py positions.py processing.py \
	resizing.py) tests/encode/test_batching.py tests/encode/test_encoder.py tests/packaging/test_hub_files.py

test: $(VENV)/.dev  ## the whole test suite, offline
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.dev  ## the model and the package alone, under a minute
	$(BIN)/python -m pytest -q -m "not slow" -n 2 $(FAST_TESTS)

test-slow: $(VENV)/.dev  ## what takes minutes each
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## ruff (format and rules), and pyright over the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev  ## ruff, in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.audit: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet "pip-audit>=2.9" "parameterized>=0.9"
	@touch $@

audit: $(VENV)/.audit  ## licences of all that is installed, and known holes in it (asks the package index)
	$(BIN)/python -m scripts.licences
	$(BIN)/pip-audit --strict --skip-editable --progress-spinner off

libraries: $(VENV)/.audit  ## the common tests of transformers and the made-up tasks of mteb, on PlumeModel
	$(BIN)/python -m scripts.transformers_tests
	$(BIN)/python -m scripts.mteb_mock_run

matrix: $(VENV)/.dev  ## core tests with the oldest and the newest torch, transformers and sentence-transformers
	$(BIN)/python -m scripts.matrix --keep .data/matrix

miniature: $(VENV)/.dev  ## fetch and render the miniature benchmark into .data/miniature (needs npm and apt-get)
	$(BIN)/python -m evaluation.miniature.build --out .data/miniature

photos: $(VENV)/.dev  ## fetch the benchmark of photographs into .data/photos, with the vectors of its peers (needs apt-get)
	$(BIN)/python -m evaluation.photos.build --out .data/photos
	$(BIN)/python -m evaluation.photos.peers --data .data/photos

RUNS := .data/runs
EVALUATE := $(BIN)/plume-embed evaluate miniature --keep .data/scores --batch-size 64 --max-new-tokens 256 --latency-rounds 0

TRAIN := $(BIN)/python -m torch.distributed.run --standalone --nproc-per-node 2 -m plume_embed train

# Once more by the same recipe, slower, and with more pairs of pictures in two styles.
LAST := $(addprefix --set ,model.path=$(RUNS)/tiny_more/model seed=2 curriculum.max_steps=500 \
	curriculum.learning_rates=[5e-4,5e-4,5e-4,5e-4,5e-4] data.repeat.I-RET-other-style=8)

.data/plume-tiny-base: | miniature
	$(BIN)/python -m training.plume_tiny.base checkpoints/plume-tiny-stills $@

$(RUNS)/tiny/full-0/results.json: export OMP_NUM_THREADS := 1
$(RUNS)/tiny/full-0/results.json: | .data/plume-tiny-base
	$(TRAIN) training/plume_tiny/tiny.yaml --resume --set output_dir=$(@D)

train-tiny: export OMP_NUM_THREADS := 1
train-tiny: $(RUNS)/tiny/full-0/results.json  ## train checkpoints/plume-tiny through the curriculum (64 CPU minutes on each of 2 cores)
	$(BIN)/python -m training.plume_tiny.base $(RUNS)/tiny/full-0/model .data/plume-tiny-frames --frame-side 84
	$(TRAIN) training/plume_tiny/tiny_more.yaml --resume --set output_dir=$(RUNS)/tiny_more
	$(TRAIN) training/plume_tiny/tiny_more.yaml --resume --set output_dir=$(RUNS)/tiny_last $(LAST)
	$(BIN)/python -m training.plume_tiny.publish $(RUNS)/tiny/full-0 $(RUNS)/tiny_more $(RUNS)/tiny_last

train-tiny-anytime: export OMP_NUM_THREADS := 1
train-tiny-anytime: | miniature  ## train checkpoints/plume-tiny-anytime from plume-tiny (15 CPU minutes), and read both after 0 to 8 steps
	$(BIN)/plume-embed train training/plume_tiny/tiny_anytime.yaml --resume --set output_dir=$(RUNS)/tiny_anytime
	$(BIN)/python -m training.plume_tiny.publish $(RUNS)/tiny_anytime --to checkpoints/plume-tiny-anytime
	$(foreach model,plume-tiny plume-tiny-anytime,$(BIN)/python -m training.steps.diagnose \
		--checkpoint checkpoints/$(model) --miniature .data/miniature --queries 300 --anew;)
	$(BIN)/python -m training.steps.curve training/steps/results/curve.svg --pictures evaluation/results/anytime.json

paradigms: .data/plume-tiny-base  ## plume-tiny by latent steps, explicit rationale, single pass, without curriculum; the table
	$(BIN)/python -m training.plume_tiny.paradigms --out $(RUNS) --jobs 2 --json training/plume_tiny/results/paradigms.json
	$(EVALUATE) $(foreach run,single_pass no_curriculum full,--model $(RUNS)/tiny/$(run)-0/model) \
		--model $(RUNS)/tiny/explicit_cot-0/model@cot --json evaluation/results/paradigms.json
	$(BIN)/plume-embed report $(RUNS)/tiny/full-0 --explicit $(RUNS)/tiny/explicit_cot-0 --to training/plume_tiny/results/report

GRID := $(BIN)/python -m training.ablations.grid --out .data/ablations
VARIANTS := full,full_distilled,anytime,distilled,stages_6_dealt,stages_6_decoded,k_4_decoded,k_6_dealt,parallel,pause,jacobi_1,jacobi_2,jacobi_3,jacobi_4,targets_with_steps

steps: export OMP_NUM_THREADS := 1
steps: $(VENV)/.dev  ## variants of the latent steps on hops and hops_mixed, trained, taken apart and drawn; goes on after a kill
	$(GRID) --task hops --json training/steps/results/hops_variants.json --rows $(VARIANTS)
	$(GRID) --task hops_mixed --json training/steps/results/mixed_variants.json --rows $(VARIANTS) --seeds 0,1,2
	$(BIN)/python -m training.steps.diagnose \
		$(foreach row,full full_distilled anytime distilled stages_6_dealt stages_6_decoded,--run .data/ablations/hops/$(row)-0)
	$(BIN)/python -m training.steps.cost --task hops
	$(BIN)/python -m docs.tables

ABLATIONS := training/ablations/results

.data/scene_hops_base/results.json: training/scene_hops/base.yaml | $(VENV)/.dev
	$(TRAIN) training/scene_hops/base.yaml --resume

scene-hops-base: export OMP_NUM_THREADS := 1
scene-hops-base: .data/scene_hops_base/results.json  ## train what every row of scene_hops begins with (19 CPU minutes on each of 2 cores)
	cp $(addprefix $(<D)/model/,config.json model.safetensors tokenizer.json tokenizer_config.json processor_config.json \
		chat_template.jinja) training/scene_hops/checkpoint/
	cp $< training/scene_hops/checkpoint/training.json
	rm -rf .data/ablations/scene_hops .data/held $(addprefix $(ABLATIONS)/scene_hops,.runs.jsonl _held.runs.jsonl) \
		training/steps/results/scene_diagnostics.json

# Every row begins with the committed model; what the archives beside the JSONs have is not trained again. scene_hops has
# the rows that begin without loss.distil, scene_hops_held those that all have it, as the recipe does.
SCENE_HOPS := $(GRID) --task scene_hops --json $(ABLATIONS)/scene_hops.json
SCENE_HELD := $(BIN)/python -m training.ablations.grid --out .data/held --task scene_hops --set loss.distil=1.0 \
	--json $(ABLATIONS)/scene_hops_held.json
HELD := full,explicit_cot_stage_0,no_curriculum,parallel,jacobi_1,jacobi_2,jacobi_3,jacobi_4,k_2,k_4,k_6,k_8,k_6_dealt
HELD := $(HELD),stages_2,stages_6,stages_8,stages_6_dealt,anytime,targets_with_steps
HELD := $(HELD),k_4_decoded,stages_6_decoded,single_mlp,single_mlp_matched,no_adapter,no_anchor,no_step_embedding,top_1,no_shared_expert
scene-hops scene-hops-variants: export OMP_NUM_THREADS := 1
SINGLE := single_pass,single_pass_tuned,single_pass_from_stage_0,no_latent_transition
scene-hops: $(VENV)/.dev  ## the picture task that is followed hop by hop: rows, causal tests, tables; goes on after a kill
	$(SCENE_HOPS) --rows full,full_distilled,full_rehearsed,distilled,parallel,$(SINGLE),explicit_cot_stage_0
	$(BIN)/python -m training.steps.diagnose --json training/steps/results/scene_diagnostics.json \
		$(foreach row,full full_distilled,--run .data/ablations/scene_hops/$(row)-0)
	$(BIN)/python -m training.steps.cost --task scene_hops
	$(BIN)/python -m docs.tables

scene-hops-variants: $(VENV)/.dev  ## the same for every variant and rival: 5 to 30 CPU minutes a seed, five seeds a row
	$(SCENE_HELD) --rows $(HELD)
	$(SCENE_HOPS) --rows pause,full_longer,single_pass_longer,full_held,full_steps_held,full_embedding_held
	$(MAKE) scene-hops

train-small: export OMP_NUM_THREADS := 1
train-small: $(VENV)/.dev  ## make checkpoints/plume-small from packages alone, on one core; run it again after a kill
	$(BIN)/python -m training.plume_small.tower
	$(BIN)/python -m training.plume_small.publish

evaluate-tiny: miniature  ## checkpoints/plume-tiny on the miniature's nine meta-tasks; writes evaluation/results/
	$(BIN)/plume-embed evaluate miniature --model checkpoints/plume-tiny --model checkpoints/plume-tiny-stills@8 \
		--steps 0,2,4,6,8 --keep .data/scores --json evaluation/results/miniature.json --plot evaluation/results/miniature.svg
	$(BIN)/python -m training.plume_tiny.examples --json evaluation/results/plume-tiny-examples.json

clean:  ## remove what was built
	rm -rf $(VENV) .data build dist

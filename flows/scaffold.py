"""`liftlock init DIR`: a starting spec, suite and small data set that run as they are, to be replaced by somebody's own.

It writes files and nothing else: no model, no stack, no network.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from string import Template

from tasks.spec import NAME

RESERVED = ("release", "prompt")  # their suite file would be release.yaml or prompt.yaml

PRAISE = {
    "train": (
        "The soup was hot, the bread was fresh and nobody rushed us.",
        "Lovely staff, they even found a high chair for our youngest.",
        "Best coffee on this street by a mile.",
        "Our table by the window was ready when we came.",
        "I will come back for the lemon cake alone.",
        "Everything was spotless, the kitchen included.",
        "Quick, friendly and cheaper than I expected.",
        "What a kind waiter; he remembered my order from last week.",
        "The garden is a delight on a warm evening.",
        "Generous portions and a very fair bill.",
        "They warmed the milk for my baby without being asked.",
        "A perfect lunch break, thank you all.",
    ),
    "test": (
        "Such a warm welcome, and the pancakes were wonderful.",
        "The chef came out to ask whether we had enjoyed it.",
        "Great value and a charming view of the river.",
        "My grandmother called it the nicest meal in years.",
        "Fast service, big smiles, delicious dumplings.",
        "The new menu is a real pleasure.",
    ),
}
COMPLAINT = {
    "train": (
        "We waited fifty minutes and then the food was cold.",
        "The waiter rolled his eyes at my question.",
        "My glass had lipstick on it when it arrived.",
        "They charged us twice and would not look at the receipt.",
        "The music was so loud that we had to shout.",
        "Stale bread, watery stew, never again.",
        "Our booking was lost and no one said sorry.",
        "The toilet was filthy and out of paper.",
        "Twelve euros for three small potatoes is a joke.",
        "I asked for no nuts and found two in the salad.",
        "The chairs are broken and one of them tore my coat.",
        "Nobody answered the phone for three days.",
    ),
    "test": (
        "The fish smelled bad and was raw in the middle.",
        "Rude service, and the manager laughed about it.",
        "A hair in my pasta, and they wanted full price for it.",
        "Our drinks came after the last plate was cleared.",
        "Dirty tablecloth, sticky cutlery, dead flies on the sill.",
        "I was sick all night because of the mussels.",
    ),
}

RELEASE = """\
# What one release of $name is. Paths are relative to this file; `liftlock schema` prints every key with its bounds.
name: "$name" # of the model: in MLflow, in the modelcar, and for clients of the gateway
base_model: SmolLM2-135M-Instruct # the small model that set-up brings, a folder, or a Hugging Face id

dataset: # JSON Lines: one item a line, with an id and the fields that prompt.yaml and $suite.yaml name
  train: data/train.jsonl # what the adapter learns from
  test: data/test.jsonl # what the gate scores; no training item may be among them
  # replay: data/replay.jsonl # dialogs (id, user, answer) mixed into training, so that other skills are kept
  answer: label # the field that holds the right answer
  slices: [label] # fields that the report breaks the score down by

training: # LoRA; the names are those of peft and transformers
  r: 8 # rank of the adapter
  lora_alpha: 16 # updates are multiplied by lora_alpha / r
  target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj] # what gets an adapter
  first_layer: 15 # layers below this one get none: cheaper; 0 trains all 30 of SmolLM2-135M
  learning_rate: 1.0e-3 # highest; it falls to 0 by the end
  num_train_epochs: 8 # 24 items need many rounds; 1 to 3 do for a thousand
  per_device_train_batch_size: 4 # items a step
  warmup_steps: 2 # steps in which the learning rate rises
  max_length: 512 # tokens of prompt and answer; a longer item is refused, not cut
  seed: 0 # same seed and same data give the same adapter
  timeout_seconds: 3600 # training is stopped after this long
  # where: kubernetes # as a Job in Kueue's queue, see docs/cluster.md; left out, on this machine
  # cluster: # what that Job asks for
  #   gpu: nvidia-l4 # one card; null for none
  #   cpu: "3" # cores; a g2-standard-4 has 3.92 to give
  #   memory: 11Gi # at most, too
  #   priority: low-priority # Kueue's; a higher one preempts this training, which goes on later

gate: # what the adapter must show before it may serve, item by item against the baseline
  baseline: champion # or base; without a champion it is the base model, and the adapter must be better than it
  task: $suite.yaml # how lm-eval asks and scores
  prompt: prompt.yaml # the text around an item: in training, evaluation and serving
  # cases: promptfoo.yaml # promptfoo cases that a score does not show: odd input, refusals, injection
  metric: exact_match,none # metric and filter of $suite.yaml
  rule: non_inferior # against a champion: not worse by more than margin; or superior
  margin: 0.3 # 12 items cannot show less; with 300 items use 0.05
  alpha: 0.05 # bound on the rate of false promotions
  floor: 0.0 # the lower bound of the adapter's own score must reach it; set what your users need
  min_items: 12 # fewer test items than this are inconclusive; use 300
  min_case_pass_rate: 0.0 # share of the promptfoo cases that must pass
  max_newly_failing_cases: 0 # cases that the baseline passes and the adapter may fail
  block: 0 # items between two looks, 32 with 300 items; the gate then stops as soon as it is sure. 0 asks all at once
  seed: 0 # of the random order of the blocks
  # repeats: 3 # answers of each item, where the task samples (do_sample: true)
  # cluster: document # a slice of $suite.yaml whose items belong together
  # slices: # rules for parts of the items; all rules share alpha
  #   -
  #     column: label # one of the task's slices
  #     value: complaint # the items' value in it
  #     rule: non_inferior # or superior, or floor
  #     bound: 0.3 # the margin, or the floor

serving: # vLLM's words; the preflight checks that it fits
  gpu: nvidia-l4 # the card it must fit, by its name in serving/fit/gpus.yaml
  max_model_len: 2048 # tokens of a request and its answer
  gpu_memory_utilization: 0.92 # share of the card's memory that vLLM may take
  max_num_seqs: 64 # requests at a time
  max_loras: 4 # adapters at a time
  max_lora_rank: 8 # at least training.r
  # engine_version: 0.32.0 # vLLM's; left out, of the engine that serves

modelcar: # the signed image that the model is shipped in
  licences: [] # licences that the base may have, as its model card names them; empty: any
  # shell: true # the shell that KServe's oci:// needs; left out, in for every target but local

delivery: # how the new version takes over the traffic
  target: local # vLLM and Envoy on this machine
  strategy: adapter # one engine, two adapters; the gateway splits by weight; or pool, swap, mirror, auto
  # cluster: # of the targets gitops (commits) and kubernetes (server-side apply); see deploy/serving/platform.yaml too
  #   namespace: serving # where the model is served
  #   form: inferenceservice # or deployment, llminferenceservice
  #   replicas: 1 # engines of each version
  #   cpu: "2" # what an engine asks for; the limits are its most
  #   cpu_limit: "4" # cores
  #   memory: 8Gi # what an engine asks for
  #   memory_limit: 12Gi # /dev/shm counts against it
  #   shm: 2Gi # shared memory
  #   request_seconds: 240 # the route's limit on one request; pods drain as long
  #   startup_seconds: 600 # budget of a cold start; left out, from the weights and earlier starts
  #   alias: # the model's entry in LiteLLM's list; left out, the list stays as it is
  #     name: $name # what clients call it there
  #     input_cost_per_token: 0.0000002 # dollars; without a cost budgets never bind
  #     output_cost_per_token: 0.0000006 # dollars
  #     info: {owner: my-team} # what the catalogue shows
  steps: [10, 50, 100] # weight of the canary in percent; the last is 100
  min_requests: 8 # requests the canary must have answered in each step
  max_error_rate: 0.0 # highest share of failed canary requests
  max_first_token_ratio: 4.0 # tolerated of each time, against the stable version at the same time
  # sticky: x-session-id # a request header whose value always gets the same version; left out, each request is drawn
  # slo: # absolute limits in seconds; at most 5 % of the new version's requests may pass one
  #   first_token_p95: 0.25 # until the first token
  #   inter_token_p95: 0.02 # mean time between two tokens
  #   end_to_end_p95: 1.5 # until the last token
  warmup_requests: 4 # answers in a row that the new version must give before it gets any weight
  warmup_first_token_seconds: 10 # the time that each of them has for its first token
  hold_seconds: 300 # a step without a decision is held this long, then undone
  drain_seconds: 30 # an undone version's running answers may take this long

approval: # who must say yes before an alias moves; who asked for it does not count
  staging: none # none, one or two people, before the image is built
  champion: none # the same, before the canary
  expires_hours: 72 # after this long without them the answer is no

# sample: # questions that the served model answers from documents at the end
#   documents: [README.md] # Markdown or text files, or folders of them
#   questions: [What is replaced first?] # asked of the model under its own name
"""

PROMPT = """\
# The text around an item; lm-eval, promptfoo, training and serving all use this one. {{field}} stands for a field of the item.
system: "Answer with one word: praise or complaint." # or null
user: "{{text}}"
"""

TASK = """\
# The lm-eval task. The prompt is in prompt.yaml and the data in release.yaml; a task with a prompt of its own is refused.
task: "$suite"
test_split: test
output_type: generate_until # the model writes, and what it writes is compared
doc_to_target: "{{label}}" # the right answer
num_fewshot: 0
generation_kwargs:
  until: ["\\n"] # where the answer ends
  max_gen_toks: 8 # longer than any answer
  do_sample: false
  temperature: 0
filter_list:
  - name: none # gives the metric exact_match,none; only blanks around the answer are forgiven
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0 # raise it when the task changes: scores of two versions are not compared
  slices: [label] # fields that the report breaks the score down by, as in release.yaml
"""

README = """\
# $name

A starting point for your own model: guests' comments on a small café, each praise or complaint. It runs as it is:

    liftlock release $folder/release.yaml

Replace, in this order:

1. `data/train.jsonl` and `data/test.jsonl`: your items, one JSON object a line, with an `id` of its own, the fields that
   you ask about and the field with the right answer. Write test items apart from training items: one that stands in both
   is refused. The 24 and 12 here only show the form; an adapter wants hundreds, and a gate that can tell 0.05 wants 300.
2. `prompt.yaml`: what you ask, with your fields as `{{field}}`.
3. `$suite.yaml`: `doc_to_target`, and `max_gen_toks` if your answers are longer.
4. `release.yaml`: `answer` and `slices` of the dataset, then `margin`, `floor` and `min_items` of the gate.
   The sample's figures suit 12 items: they refuse only an adapter that is clearly bad.
5. Cases that a score does not show (odd input, refusals, injection): a promptfoo file, named under `gate.cases`.
   `evals/ticket_router` in Liftlock's checkout is a complete suite to look at.
"""


class FolderTaken(Exception):
    """The folder cannot be filled: it is not empty, a file, or cannot be written."""


class NameRefused(Exception):
    """No model can be called after the folder."""


def scaffold(folder: Path) -> tuple[Path, ...]:
    """Fill a new or empty folder; returns the files, release.yaml first. A new folder appears whole or not at all.

    The model is called after the folder. Raises FolderTaken, NameRefused.
    """
    try:
        files = _files(_name(folder), folder)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            observed = "a file" if folder.is_file() else "not empty"
            raise FolderTaken(f"{folder} is {observed}; give a new or empty folder")
        _write(folder, files)
    except RuntimeError:  # of Path.resolve before Python 3.13
        raise FolderTaken(f"{folder} is a loop of links; give another folder") from None
    except OSError as error:
        raise FolderTaken(f"{folder} cannot be made: {error.strerror}; give another folder") from None
    return tuple(folder / file for file in files)


def _name(folder: Path) -> str:
    """The folder's name in lower case, with dashes for blanks, dots and underscores."""
    name = re.sub(r"[\s._-]+", "-", folder.resolve().name.lower()).strip("-")
    if not re.fullmatch(NAME, name) or name in RESERVED:
        raise NameRefused(
            f"{folder} would call the model {name!r}; a name has 2 to 40 of a-z, 0-9 and -, begins with a letter "
            f"and is not {' or '.join(RESERVED)}. Give a folder with such a name"
        )
    return name


def _files(name: str, folder: Path) -> dict[str, str]:
    suite = name.replace("-", "_")
    texts = {"release.yaml": RELEASE, "prompt.yaml": PROMPT, f"{suite}.yaml": TASK, "README.md": README}
    filled = {file: Template(text).substitute(name=name, suite=suite, folder=folder) for file, text in texts.items()}
    return {**filled, **{f"data/{split}.jsonl": _items(split) for split in ("train", "test")}}


def _items(split: str) -> str:
    """The two labels by turns, so that no batch sees only one."""
    pairs = zip(PRAISE[split], COMPLAINT[split], strict=True)
    labelled = [(text, label) for pair in pairs for text, label in zip(pair, ("praise", "complaint"), strict=True)]
    items = ({"id": f"{split}-{i:02}", "text": text, "label": label} for i, (text, label) in enumerate(labelled, 1))
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def _write(folder: Path, files: dict[str, str]) -> None:
    is_new = not folder.is_dir()
    beside = folder.absolute().parent if is_new else folder
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".liftlock-init-") as temporary:
        made = Path(temporary) / "made"
        for file, text in files.items():
            (made / file).parent.mkdir(parents=True, exist_ok=True)
            (made / file).write_text(text, encoding="utf-8")
        if is_new:
            made.rename(folder)
            return
        # Somebody's shell may stand in it, so the folder stays and is filled; what makes it a release comes last.
        for part in sorted(made.iterdir(), key=lambda part: part.name == "release.yaml"):
            part.rename(folder / part.name)

"""The whole benchmark: every task on every tokenizer, what failed beside what was measured, one report.

The folder gets ``rows.jsonl`` (one row per utterance and figure), ``summary.json`` (its schema is
``assets/bench.schema.json``), ``report.html``, ``audio/`` (examples) and ``cache/`` (facts: what is there is not
measured again, so an interrupted run goes on, and another tokenizer costs only itself).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from speechtok.bench.facts import ORIGINAL
from speechtok.bench.probes.questions import columns_of
from speechtok.bench.probes.recipe import ProbeRecipe
from speechtok.bench.reconstruction import versions
from speechtok.bench.suite.differences import differences
from speechtok.bench.suite.examples import write_examples, write_originals
from speechtok.bench.suite.sharing import Model, Work, prepare_together
from speechtok.bench.suite.speech import Choice, choose_speech, described, speech_of
from speechtok.bench.tasks import TASKS, About, Options, Speech, does_not_apply, load_task, overrides_of, rows_path
from speechtok.config import with_overrides
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.files import make_folder, write_text_atomic
from speechtok.report.benchmark import benchmark_page
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.registry import models
from speechtok.train.log import read_log

FORMAT, VERSION = "speechtok.bench", 1
LOADING, EXAMPLES, DIFFERENCES = "loading", "examples", "differences"
"""What else than a task can fail."""
QUICK_LEVELS = (1,)


@dataclass
class Plan(Work):
    """What is measured, on what, where the results go, and how."""

    processes: int = 1
    """How many measure beside each other what tasks can divide, with one thread each."""
    reference: str | None = None
    """Name of the tokenizer that differences are taken from; None for the first one that loads."""
    command: str = ""
    """How to run it again, for the report."""


@dataclass
class Found:
    """What has come out so far."""

    tokenizers: list[dict[str, Any]] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)
    not_applicable: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Path] = field(default_factory=list)
    """Files with the rows of utterances."""

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Summary rows of a task, those without a figure apart."""
        for row in rows:
            reason = row.get("does_not_apply")
            if reason is None:
                self.summary.append(row)
            else:
                who = {name: row[name] for name in ("tokenizer", "fingerprint", "task", "measure", "role")}
                self.not_applicable.append(who | {"reason": reason})

    def fail(self, tokenizer: str, stage: str, error: Exception) -> None:
        """Count what could not be done, in one line."""
        reason = " ".join(str(error).split()) or type(error).__name__
        self.failures.append({"tokenizer": tokenizer, "stage": stage, "reason": reason})
        print(f"{tokenizer}: {stage} failed: {reason}", flush=True)


def run_benchmark(plan: Plan, load: Callable[..., Tokenizer]) -> dict[str, Any]:
    """Measure what is missing, write the results and return the summary.

    Args:
        plan: all that is wanted.
        load: as ``speechtok.load``.

    Raises:
        ConfigError: a task or reference that is not there, a manifest that cannot be read, or nothing that could be
            measured.
        OutputError: the folder cannot be written.
    """
    modules = {name: load_task(name) for name in plan.tasks}
    _check(plan)
    _check_probes(plan, modules)
    speech, found = choose_speech(plan.choice), Found()
    make_folder(plan.folder)
    if plan.processes > 1:
        prepare_together(plan, plan.processes)
    for name, module in modules.items():
        if TASKS[name].originals:
            _measure(plan, found, name, module, None, speech, plan.options)
    for model in plan.models:
        tokenizer = _loaded(model, load, plan.options.device, found)
        if tokenizer is not None:
            _all_tasks(plan, found, modules, tokenizer, speech, replace(plan.options, model=model.place))
    if not any(row["tokenizer"] != ORIGINAL for row in found.summary):
        reasons = [f"{one['tokenizer']}: {one['reason']}" for one in found.failures + found.not_applicable]
        raise ConfigError(f"nothing could be measured; {'; '.join(dict.fromkeys(reasons))}")
    return _write(plan, found, speech)


def quick(choice: Choice, options: Options) -> tuple[Choice, Options]:
    """The small run: few recordings, the first level and all levels."""
    return choice.in_brief(), replace(options, quick=True, levels=QUICK_LEVELS)


def default_models() -> list[Model]:
    """All that work here without a network."""
    return [Model("", entry.name) for entry in models() if entry.bundled]


def parse_model(text: str) -> Model:
    """``PLACE``, or ``NAME=PLACE`` for another name in the report."""
    name, equals, place = text.partition("=")
    return Model(name, place) if equals and name and not Path(text).exists() else Model("", text)


def _check(plan: Plan) -> None:
    if plan.processes < 1:
        raise ConfigError(f"--processes is {plan.processes}; give a number of at least 1")
    for name in plan.also:
        if name not in TASKS or not TASKS[name].trains:
            known = ", ".join(name for name, entry in TASKS.items() if entry.trains)
            raise ConfigError(f"--also {name}: only tasks that train have a manifest of their own: {known}")
        columns_of(plan.also[name])  # one that cannot be read is no reason to begin
    names = [model.name or model.place for model in plan.models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two tokenizers are called {name}; write --models NAME=PLACE for one of them")
    registered = {entry.name for entry in models()}
    if all(model.name or model.place in registered for model in plan.models):  # what others are called is seen later
        _require_reference(plan.reference or names[0], names)


def _check_probes(plan: Plan, modules: dict[str, Any]) -> None:
    """Changes of the probes' recipes are read before hours of measuring, not when a probe's turn comes."""
    trained = {name: module.TASK for name, module in modules.items() if hasattr(module, "TASK")}
    if plan.options.probe and not trained:
        raise ConfigError("--probe changes what probes train by, and no task that trains is among --tasks")
    for name, task in trained.items():
        with_overrides(ProbeRecipe.small(task.goal), overrides_of(name, plan.options), "--probe")


def _require_reference(reference: str, names: Sequence[str]) -> None:
    if reference not in names:
        raise ConfigError(f"no tokenizer is called {reference}; differences can be taken from {', '.join(names)}")


def _loaded(model: Model, load: Callable[..., Tokenizer], device: str, found: Found) -> Tokenizer | None:
    try:
        tokenizer = model.loaded(load, device)
    except Exception as error:  # a model of somebody's own may raise anything, and the others still count
        found.fail(model.name or model.place, LOADING, error)
        return None
    if tokenizer.name in [one["name"] for one in found.tokenizers]:
        clash = ConfigError(f"another tokenizer is called {tokenizer.name}, too; write --models NAME={model.place}")
        found.fail(model.place, LOADING, clash)
        return None
    found.tokenizers.append(tokenizer.describe())
    return tokenizer


def _all_tasks(
    plan: Plan, found: Found, modules: dict[str, Any], tokenizer: Tokenizer, speech: Speech, options: Options
) -> None:
    for name, module in modules.items():
        _measure(plan, found, name, module, tokenizer, speech, options)
    try:
        found.examples += write_examples(tokenizer, speech, plan.folder / "audio")
    except Exception as error:  # see above
        found.fail(tokenizer.name, EXAMPLES, error)


def _measure(
    plan: Plan,
    found: Found,
    name: str,
    module: Any,
    tokenizer: Tokenizer | None,
    speech: Speech,
    options: Options,
) -> None:
    """One task on one tokenizer; that it fails, or does not apply, is counted."""
    label = tokenizer.name if tokenizer else ORIGINAL
    fingerprint = tokenizer.fingerprint if tokenizer else ORIGINAL
    folder, speech = plan.cache(name), speech_of(speech, plan.also.get(name))
    print(f"{label}: {name}", flush=True)
    try:
        found.add(module.measure(tokenizer, speech, folder, options))
    except NotSupportedError as error:
        found.add([does_not_apply(About(label, fingerprint, task=name), str(error))])
        return
    except Exception as error:  # see above
        found.fail(label, name, error)
        return
    found.rows.append(rows_path(folder, fingerprint))


def _write(plan: Plan, found: Found, speech: Speech) -> dict[str, Any]:
    rows = list(_utterance_rows(found.rows))
    names = [one["name"] for one in found.tokenizers]
    reference = plan.reference or names[0]
    try:
        _require_reference(reference, names)
    except ConfigError as error:  # not loaded; hours of figures are not thrown away for that
        found.fail(reference, DIFFERENCES, error)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "command": plan.command,
        "settings": _settings(plan, speech, reference),
        "versions": versions(),
        "tokenizers": found.tokenizers,
        "summary": found.summary,
        "differences": differences(rows, reference),
        "not_applicable": found.not_applicable,
        "failures": found.failures,
        "examples": write_originals(speech, plan.folder / "audio") + found.examples,
    }
    write_text_atomic(plan.folder / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text_atomic(plan.folder / "summary.json", json.dumps(document, indent=1) + "\n")
    write_text_atomic(plan.folder / "report.html", benchmark_page(document, plan.folder / "audio"))
    return document


def _utterance_rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        if path.exists():  # a task without figures of single utterances leaves none
            yield from read_log(path)


def _settings(plan: Plan, speech: Speech, reference: str) -> dict[str, Any]:
    options = {name: value for name, value in asdict(plan.options).items() if name != "model"}
    counted = {"recordings": len(speech.items), "counted_recordings": len(speech.counted)}
    also = {name: path.name for name, path in plan.also.items()}
    rest = {"also": also, "tasks": list(plan.tasks), "reference": reference, "confidence": 0.95}
    return described(plan.choice) | counted | options | rest

"""``speechtok bench``: every task on several tokenizers, as one report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from speechtok.errors import ConfigError

ALL = "all"
HELP = "measure tokenizers on every task and write one report"
NOTE = """Tasks: reconstruction, conversion, codes, robustness, cost, invariance; where a manifest has what they need,
sequence and the probes asr, mutual_information, phones, intent, emotion, keyword, speaker. What the folder already
holds is not measured again. Example: speechtok bench --data corpus.tsv --phones phones.tsv -o report/"""
DEFAULTS = {
    "data": None, "split": "test", "phones": None, "also": [], "utterances": 40, "longest": 10.0,
    "judge": "pocketsphinx", "voice": "resemblyzer", "with": [], "predictor": [], "models": None, "tasks": None,
    "probe": [], "probe_levels": ["1", ALL], "reference": None, "device": "cpu",
}  # fmt: skip
"""Of the options that decide a result."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the report")
    parser.add_argument(
        "--models", metavar="MODEL", nargs="+", action="extend",
        help="names, folders or Hub ids, or NAME=FOLDER (default: all that work offline)",
    )  # fmt: skip
    parser.add_argument("--tasks", metavar="TASK", nargs="+", action="extend", help="only these (default: all)")
    parser.add_argument(
        "--data", metavar="MANIFEST", type=Path,
        help="tab-separated, columns path, split, speaker, text (default: the bundled clips)",
    )  # fmt: skip
    parser.add_argument("--split", help="of the manifest (default: test)")
    parser.add_argument("--phones", metavar="TSV", type=Path, help="phones.tsv of speechtok align, of that split")
    parser.add_argument(
        "--also", metavar="TASK=MANIFEST", nargs="+", action="extend",
        help="other manifests for tasks that train, such as intent=barista.tsv emotion=emodb.tsv",
    )  # fmt: skip
    parser.add_argument("--utterances", type=int, metavar="N", help="to decode and judge (default: 40)")
    parser.add_argument("--longest", type=float, metavar="S", help="seconds of these (default: 10)")
    parser.add_argument("--judge", help="pocketsphinx, a recogniser of transformers, or none")
    parser.add_argument("--voice", help="resemblyzer, an ECAPA-TDNN, or none")
    parser.add_argument(
        "--with", metavar="METRIC", nargs="+", action="extend", choices=("visqol",),
        help="slow metrics that are measured when asked for: visqol",
    )  # fmt: skip
    parser.add_argument(
        "--predictor", metavar="NAME", nargs="+", action="extend", choices=("dnsmos",),
        help="networks that predict listening scores: dnsmos",
    )  # fmt: skip
    parser.add_argument("--reference", metavar="MODEL", help="differences are taken from it (default: the first)")
    parser.add_argument(
        "--probe", metavar="NAME=VALUE", nargs="+", action="extend",
        help="settings of the probes, such as steps=600 data.limit=800, or asr.steps=600 for one task",
    )  # fmt: skip
    parser.add_argument(
        "--probe-levels", metavar="N", nargs="+", help="numbers of levels that probes read (default: 1 all)"
    )
    parser.add_argument("--device", help="where the models run, such as cuda (default: cpu)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="processes of one thread that measure (default: 1)"
    )
    parser.add_argument("--quick", action="store_true", help="a few recordings: to see whether everything works")
    parser.set_defaults(**DEFAULTS)


def run(args: argparse.Namespace) -> int:
    """Measure, write and say where the report is."""
    from speechtok.bench.suite.speech import Choice
    from speechtok.bench.tasks import TASKS, Options
    from speechtok.benchmark import Plan, default_models, parse_model, quick, run_benchmark
    from speechtok.report.benchmark import count_failures

    choice = Choice(args.data, args.split, args.utterances, args.longest, args.phones)
    options = Options(
        judge=_named(args.judge),
        voice=_named(args.voice),
        device=args.device,
        asked=tuple(dict.fromkeys(getattr(args, "with"))),
        predictors=tuple(dict.fromkeys(args.predictor)),
        probe=tuple(args.probe),
        probe_levels=_levels(args.probe_levels),
    )
    if args.quick:
        choice, options = quick(choice, options)
    plan = Plan(
        models=[parse_model(text) for text in args.models] if args.models else default_models(),
        tasks=list(dict.fromkeys(args.tasks or TASKS)),
        choice=choice,
        options=options,
        folder=args.output,
        also=_manifests(args.also),
        processes=args.processes,
        reference=args.reference,
        command=_command(args),
    )
    document = run_benchmark(plan, args.load)
    figures, failures = len(document["summary"]), count_failures(document)
    print(f"{figures} figures, {failures} values missing; report: {args.output / 'report.html'}")
    return 0


def _named(name: str) -> str | None:
    return None if name == "none" else name


def _manifests(pairs: list[str]) -> dict[str, Path]:
    """``TASK=MANIFEST`` as a mapping.

    Raises:
        ConfigError: one has no ``=``, or a task is named twice.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        task, equals, path = pair.partition("=")
        if not (task and equals and path) or task in found:
            raise ConfigError(f"--also {pair}: write TASK=MANIFEST, such as intent=barista.tsv, once for a task")
        found[task] = Path(path)
    return found


def _levels(texts: list[str]) -> tuple[int, ...]:
    """Numbers of levels, 0 for ``all``.

    Raises:
        ConfigError: something else.
    """
    wrong = [text for text in texts if text != ALL and not (text.isdecimal() and int(text))]
    if wrong:
        raise ConfigError(f"--probe-levels {wrong[0]}: write numbers of levels from 1, or {ALL}")
    return tuple(0 if text == ALL else int(text) for text in texts)


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same report, with what differs from the defaults."""
    parts = ["speechtok", "bench", *(["--quick"] if args.quick else [])]
    for name, default in DEFAULTS.items():
        value = getattr(args, name)
        if value != default:
            parts += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join([*parts, "-o", str(args.output)])

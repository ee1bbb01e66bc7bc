"""``speechtok bench``: every task on several tokenizers, as one report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

HELP = "measure tokenizers on every task and write one report"
NOTE = """Tasks: reconstruction, conversion, codes, robustness, cost, invariance; where a manifest has what they need,
the probes asr, mutual_information, phones, intent, emotion, keyword, speaker. What the folder already holds is not
measured again. Example: speechtok bench --data corpus.tsv --phones phones.tsv -o report/"""


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
    parser.add_argument("--split", default="test", help="of the manifest (default: test)")
    parser.add_argument("--phones", metavar="TSV", type=Path, help="phones.tsv of speechtok align, of that split")
    parser.add_argument("--utterances", type=int, default=40, metavar="N", help="to decode and judge (default: 40)")
    parser.add_argument("--longest", type=float, default=10.0, metavar="S", help="seconds of these (default: 10)")
    parser.add_argument("--judge", default="pocketsphinx", help="pocketsphinx, a recogniser of transformers, or none")
    parser.add_argument("--voice", default="resemblyzer", help="resemblyzer, an ECAPA-TDNN, or none")
    parser.add_argument("--reference", metavar="MODEL", help="differences are taken from it (default: the first)")
    parser.add_argument("--device", default="cpu", help="where the models run, such as cuda (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="a few recordings: to see whether everything works")


def run(args: argparse.Namespace) -> int:
    """Measure, write and say where the report is."""
    from speechtok.bench.suite.speech import Choice
    from speechtok.bench.tasks import TASKS, Options
    from speechtok.benchmark import Plan, default_models, parse_model, quick, run_benchmark
    from speechtok.report.benchmark import count_failures

    choice = Choice(args.data, args.split, args.utterances, args.longest, args.phones)
    options = Options(judge=_named(args.judge), voice=_named(args.voice), device=args.device)
    if args.quick:
        choice, options = quick(choice, options)
    plan = Plan(
        models=[parse_model(text) for text in args.models] if args.models else default_models(),
        tasks=list(dict.fromkeys(args.tasks or TASKS)),
        choice=choice,
        options=options,
        folder=args.output,
        reference=args.reference,
        command=_command(args),
    )
    document = run_benchmark(plan, args.load)
    figures, failures = len(document["summary"]), count_failures(document)
    print(f"{figures} figures, {failures} failures; report: {args.output / 'report.html'}")
    return 0


def _named(name: str) -> str | None:
    return None if name == "none" else name


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same report, with what differs from the defaults."""
    parts = ["speechtok", "bench", *(["--quick"] if args.quick else [])]
    defaults = {"split": "test", "utterances": 40, "longest": 10.0, "judge": "pocketsphinx", "voice": "resemblyzer"}
    defaults |= {"device": "cpu", "data": None, "phones": None, "reference": None, "models": None, "tasks": None}
    for name, default in defaults.items():
        value = getattr(args, name)
        if value != default:
            parts += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join([*parts, "-o", str(args.output)])

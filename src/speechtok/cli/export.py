"""``speechtok export``: a codec as graphs for other runtimes."""

from __future__ import annotations

import argparse

from speechtok.cli.common import MODEL_HELP, print_fields, print_json

HELP = "write a codec as graphs for ONNX Runtime or OpenVINO, and check that they agree with it"
NOTE = "Exit code 1 where the graphs disagree. Example: speechtok export speechtok-base -o base-onnx/"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the graphs")
    parser.add_argument("--format", choices=("onnx", "openvino"), default="onnx", help="of the graphs (default: onnx)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Export and compare."""
    from speechtok.export import export

    report = export(args.load(args.model), args.output, args.format)
    if args.json:
        print_json(report)
    else:
        shown = {key: report[key] for key in ("model", "format", "min_samples")}
        shown["codes that agree"] = f"{report['agreement']:.3%}"
        shown["largest error of decoded samples"] = f"{report['max_decode_error']:.1e} of the loudest"
        shown["verdict"] = "ok" if report["passed"] else "the graphs disagree with the model; do not use them"
        print_fields(shown)
    return 0 if report["passed"] else 1

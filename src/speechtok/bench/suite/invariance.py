"""The promises of the tokenizer contract as counted results: each kept, broken, or not made by this kind of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtok.audio import Audio, read
from speechtok.bench.facts import Fact, Facts, Item
from speechtok.bench.statistics import Estimate
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import About, Options, Speech, does_not_apply, summary_row
from speechtok.errors import AudioError, NotSupportedError
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.data import Utterance
from speechtok.verify import verify

NAME = "invariance"
HELP = "What speechtok verify checks: 1 where a promise is kept, 0 where it is broken; no number where there is none."
MEASURES = {"kept": Shown("promise kept", True, 0), "broken": Shown("promises broken", False, 0)}
COLUMNS = "role"
"""What makes the columns of its table: the promises."""
RECORDINGS, QUICK_SECONDS = 4, 2.0


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``; on the first four recordings that can be read, in brief on two seconds of one.

    Raises:
        NotSupportedError: no recording can be read.
    """
    about, facts = About.of(tokenizer, NAME), Facts(folder, tokenizer.fingerprint)
    audios, key = _recordings(speech, options)
    item, what = Item(NAME, key, Utterance(Path(), "", "")), "quick checks" if options.quick else "checks"
    if facts.missing(item, [what]):
        facts.add(item, {what: Fact([check.to_dict() for check in verify(tokenizer, audios)])})
    checks = facts[item, what].value
    broken = sum(check["passed"] is False for check in checks)
    judged = sum(check["passed"] is not None for check in checks)
    total = summary_row(about, "broken", "broken", Estimate(float(broken), None, None, judged))
    return [total, *(_row(about, check) for check in checks)]


def _recordings(speech: Speech, options: Options) -> tuple[list[Audio], str]:
    """Some recordings, and a key that changes with their content."""
    audios, keys = [], []
    for item in speech.items:
        if len(audios) == (1 if options.quick else RECORDINGS):
            break
        try:
            audio = read(item.utterance.path)
        except AudioError:
            continue
        end = round(QUICK_SECONDS * audio.rate) if options.quick else len(audio)
        audios.append(Audio(audio.samples[:end], audio.rate))
        keys.append(item.key)
    if not audios:
        raise NotSupportedError("none of the recordings can be read")
    return audios, ", ".join(keys)


def _row(about: About, check: dict[str, Any]) -> dict[str, Any]:
    if check["passed"] is None:
        reason = check["promise"].removeprefix("does not apply: ")
        measured = f" ({check['measured']})" if check["numbers"] else ""
        return does_not_apply(about, reason + measured, "kept", check["name"])
    estimate = Estimate(float(check["passed"]), None, None, 1)
    return summary_row(about, "kept", check["name"], estimate, detail=check["measured"])

"""From a recogniser's outputs to text: best paths and beams, of CTC, of attention, and of both together.

Sources: Graves et al. 2006 (CTC, best path), Hannun et al. 2014 (prefix beam search), Watanabe et al. 2017 (one-pass
search with CTC prefix scores, Algorithm 2). Probabilities are natural logarithms throughout; class 0 is the blank.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechtok.chain.recogniser import EOS, PAD, Heard, Recogniser
from speechtok.config import require_whole
from speechtok.errors import ConfigError

NEVER = -float("inf")


class Hypothesis(NamedTuple):
    """A text and its score; larger is better."""

    ids: tuple[int, ...]
    score: float


@dataclass
class SearchConfig:
    """How texts are searched for; the defaults are those of ESPnet's recipes for discrete LibriSpeech tokens."""

    beam: int = 20
    """Hypotheses that go on at every step; 1 is greedy."""
    ctc_weight: float = 0.3
    """Share of the CTC prefix score, from 0 (attention alone) to 1 (CTC alone)."""
    bonus: float = 0.0
    """Added for every symbol, against texts that end too early."""
    candidates: int = 0
    """Symbols by which each hypothesis may go on, the likeliest by attention; 0 makes them 1.5 times the beam."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "beam", section="search.")
        require_whole(self, 0, "candidates", section="search.")
        if not 0 <= self.ctc_weight <= 1:
            raise ConfigError(f"search.ctc_weight is {self.ctc_weight}; give a number from 0 to 1")


# -- CTC alone ------------------------------------------------------------------------------------------------------


def best_paths(logits: Tensor, lengths: Tensor) -> list[list[int]]:
    """Likeliest class of every output of ``logits[B, M, C]``, runs merged, blanks left out."""
    found = []
    for path, length in zip(logits.argmax(-1).cpu().numpy(), lengths.tolist(), strict=True):
        path = path[:length]
        runs = path[np.diff(path, prepend=-1) != 0]
        found.append(runs[runs != PAD].tolist())
    return found


def ctc_prefix_beam(log_probs: Tensor, beam: int, candidates: int = 0) -> list[Hypothesis]:
    """Texts by their probability over all alignments, the likeliest first.

    Args:
        log_probs: of one utterance, ``[M, C]``.
        beam: texts that go on from frame to frame.
        candidates: likeliest classes of a frame by which they may; 0 takes all.

    Returns:
        at most ``beam`` texts. A beam that holds every text gives their exact probabilities.
    """
    rows = log_probs.double().cpu().numpy()
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}  # ending in a blank, or in a symbol
    for row in rows:
        symbols = _likeliest(row, candidates)
        follow: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, symbol) in beams.items():
            both, last = np.logaddexp(blank, symbol), prefix[-1] if prefix else PAD
            _add(follow, prefix, 0, both + row[PAD])
            if prefix:
                _add(follow, prefix, 1, symbol + row[last])
            for one in symbols:
                _add(follow, (*prefix, one), 1, (blank if one == last else both) + row[one])
        kept = heapq.nlargest(beam, follow.items(), key=lambda item: np.logaddexp(*item[1]))
        beams = {prefix: (pair[0], pair[1]) for prefix, pair in kept}
    ended = [Hypothesis(prefix, float(np.logaddexp(*pair))) for prefix, pair in beams.items()]
    return sorted(ended, key=lambda one: -one.score)


def _likeliest(row: np.ndarray, count: int) -> list[int]:
    """Symbols of a frame, without the blank."""
    order = np.argsort(-row)[:count] if count else np.arange(len(row))
    return [one for one in order.tolist() if one != PAD]


def _add(table: dict[tuple[int, ...], list[float]], prefix: tuple[int, ...], place: int, value: float) -> None:
    if value == NEVER:  # no way at all, such as a symbol twice without a blank between
        return
    pair = table.setdefault(prefix, [NEVER, NEVER])
    pair[place] = float(np.logaddexp(pair[place], value))


class PrefixScores:
    """Probability by CTC of all texts that begin with a prefix, for a beam of prefixes.

    The recursion over frames is solved in closed form: a sum of products of consecutive probabilities is a difference
    of cumulative sums, in float64 and logarithms. ``forward[H, 2, M + 1]`` are the probabilities that the first so many
    frames spell the prefix and end in a symbol or a blank.

    Args:
        log_probs: of one utterance, ``[M, C]``.
    """

    def __init__(self, log_probs: Tensor):
        self.rows = log_probs.double().T.contiguous()  # [C, M]
        self.sums = _with_zero(self.rows.cumsum(1))  # [C, M + 1]
        start = torch.stack([torch.full_like(self.sums[PAD], NEVER), self.sums[PAD]])
        self.forward = start[None]
        self.last = torch.full((1,), PAD)

    def extended(self, symbols: Tensor) -> Tensor:
        """Log-probabilities ``[H, K]`` of the prefixes when each is followed by ``symbols[H, K]``."""
        return torch.logsumexp(self._entering(symbols) + self.rows[symbols], -1)

    def ended(self) -> Tensor:
        """Log-probabilities ``[H]`` of the prefixes as whole texts."""
        return torch.logsumexp(self.forward[:, :, -1], 1)

    def select(self, parents: Tensor, symbols: Tensor) -> None:
        """Go on with the prefixes ``parents[H']``, each followed by one of ``symbols[H']``."""
        entering = self._entering(symbols[:, None], parents)[:, 0]
        symbol = self._staying(entering, self.sums[symbols])
        blank = self._staying(symbol[:, :-1], self.sums[PAD].expand(len(symbols), -1))
        self.forward, self.last = torch.stack([symbol, blank], 1), symbols

    def _entering(self, symbols: Tensor, parents: Tensor | None = None) -> Tensor:
        """Probability ``[H, K, M]`` that the frames before each one spell the prefix, so that the symbol may begin."""
        forward, last = (self.forward, self.last) if parents is None else (self.forward[parents], self.last[parents])
        symbol, blank = forward[:, None, 0, :-1], forward[:, None, 1, :-1]
        # the same symbol again needs a blank between
        symbol = symbol.masked_fill((symbols == last[:, None])[..., None], NEVER)
        return torch.logaddexp(symbol, blank)

    @staticmethod
    def _staying(entering: Tensor, sums: Tensor) -> Tensor:
        """Of ``entering[H, M]`` and cumulative sums ``[H, M + 1]``: all ways to have entered, ``[H, M + 1]``."""
        inside = sums[:, 1:] + torch.logcumsumexp(entering - sums[:, :-1], 1)
        return torch.cat([torch.full_like(inside[:, :1], NEVER), inside], 1)


def _with_zero(sums: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)


# -- attention ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def attention_greedy(model: Recogniser, heard: Heard) -> list[list[int]]:
    """The decoder's likeliest symbol at every step, of a batch at once.

    A text ends with its end symbol, or when it has as many symbols as there are states.
    """
    spoken = model.decoder.start(heard.states, heard.mask)
    symbols = torch.full((len(heard.states),), EOS, device=heard.states.device)
    texts: list[list[int]] = [[] for _ in symbols]
    going = [True] * len(texts)
    for step in range(int(heard.lengths.max())):
        logits, spoken = model.decoder.step(symbols, spoken)
        logits[:, PAD] = NEVER
        symbols = logits.argmax(-1)
        for row, symbol in enumerate(symbols.tolist()):
            going[row] = going[row] and symbol != EOS and step < int(heard.lengths[row])
            if going[row]:
                texts[row].append(symbol)
        if not any(going):
            break
    return texts


@torch.no_grad()
def joint_beam(model: Recogniser, heard: Heard, search: SearchConfig) -> list[Hypothesis]:
    """Texts of one utterance by ``(1 - w) log p_attention + w log p_ctc + bonus * symbols``, the best first.

    Hypotheses compete symbol by symbol with CTC's probability of all texts that begin as they do. The search ends when
    no open one can overtake the best that has ended. Scores cover the end of the text.

    Args:
        heard: of a batch of one.

    Returns:
        at least one, at most ``beam``.
    """
    return _Search(model, heard, search).run()


class _Search:
    """One run of ``joint_beam``."""

    def __init__(self, model: Recogniser, heard: Heard, search: SearchConfig):
        self.model, self.search, self.weight = model, search, search.ctc_weight
        states = heard.states[:, : int(heard.lengths[0])]
        self.longest, self.device = states.shape[1], states.device
        self.scores = None
        if self.weight:
            self.scores = PrefixScores(model.ctc(states[0]).float().log_softmax(-1).cpu())
        self.spoken = model.decoder.start(states) if self.weight < 1 else None
        pieces = model.config.symbols - 2
        wanted = search.candidates or -(-3 * search.beam // 2)
        self.candidates = pieces if self.weight == 1 else min(pieces, wanted)
        self.texts: list[tuple[int, ...]] = [()]
        self.attention = torch.zeros(1, dtype=torch.float64)
        self.ended: list[Hypothesis] = []

    def run(self) -> list[Hypothesis]:
        for step in range(self.longest + 1):
            steps = self._attention_steps()
            ends = self._ended(steps[:, EOS], step)
            symbols, totals, attention = self._continued(steps, step)
            every = torch.cat([ends, totals.flatten()]) if step < self.longest else ends
            best = every.topk(min(self.search.beam, int((every > NEVER).sum())))
            over = best.indices < len(ends)
            self._keep(best.indices[over].tolist(), best.values[over].tolist())
            places = best.indices[~over] - len(ends)
            # what longer texts may still win
            hope = max(0.0, self.search.bonus) * (self.longest - step)
            if not len(places) or (self.ended and self.ended[0].score >= float(best.values[~over][0]) + hope):
                break
            self._go_on(places // symbols.shape[1], symbols.flatten()[places], attention.flatten()[places])
        return self.ended

    def _keep(self, rows: list[int], scores: list[float]) -> None:
        """Hypotheses that are ended here."""
        ended = [Hypothesis(self.texts[row], score) for row, score in zip(rows, scores, strict=True)]
        self.ended = sorted(self.ended + ended, key=lambda one: -one.score)[: self.search.beam]

    def _attention_steps(self) -> Tensor:
        """``[H, symbols]``, float64 on the CPU; nothing is known where attention does not count."""
        if self.spoken is None:
            return torch.zeros(len(self.texts), self.model.config.symbols, dtype=torch.float64)
        last = torch.tensor([text[-1] if text else EOS for text in self.texts], device=self.device)
        logits, self.spoken = self.model.decoder.step(last, self.spoken)
        return logits.float().log_softmax(-1).double().cpu()

    def _ended(self, steps: Tensor, length: int) -> Tensor:
        """Total scores ``[H]`` of the hypotheses if they end here."""
        totals = (1 - self.weight) * (self.attention + steps) + self.search.bonus * length
        return totals if self.scores is None else totals + self.weight * self.scores.ended()

    def _continued(self, steps: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols by which each hypothesis may go on, total scores, and those of attention, ``[H, K]`` each."""
        allowed = steps.clone()
        allowed[:, [PAD, EOS]] = NEVER
        symbols = allowed.topk(self.candidates).indices
        attention = self.attention[:, None] + allowed.gather(1, symbols)
        totals = (1 - self.weight) * attention if self.weight < 1 else torch.zeros_like(attention)
        if self.scores is not None:
            totals = totals + self.weight * self.scores.extended(symbols)
        return symbols, totals + self.search.bonus * (step + 1), attention

    def _go_on(self, parents: Tensor, symbols: Tensor, attention: Tensor) -> None:
        self.texts = [
            (*self.texts[one], symbol) for one, symbol in zip(parents.tolist(), symbols.tolist(), strict=True)
        ]
        self.attention = attention
        if self.scores is not None:
            self.scores.select(parents, symbols)
        if self.spoken is not None:
            self.spoken = self.spoken.select(parents.to(self.device))


def recognise(model: Recogniser, codes: np.ndarray, search: SearchConfig) -> Sequence[int]:
    """Best text of ``codes[Q, N]``; a beam of 1 with no CTC is the decoder's greedy one."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        heard = model.hear(torch.from_numpy(codes.astype(np.int64))[None].to(device), torch.tensor([codes.shape[1]]))
        return joint_beam(model, heard, search)[0].ids

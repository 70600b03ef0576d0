"""Greedy and beam search: one `lax.while_loop` over any incremental decode step.

A decode step is `step_fn(cache, tokens, position) -> (logits, cache)`:
  cache:    any pytree (row b * beams + k belongs to beam k of source b)
  tokens:   [rows] int32, the token at `position` of every row (position 0 = the start token)
  position: [] int32
  logits:   [rows, vocab] float32, for the token at `position + 1`
Nothing here knows about models. Call it inside `jax.jit`; every shape is fixed, and the loop ends
as soon as no hypothesis can change. Rules and scores follow `generate` of Hugging Face transformers 5.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

StepFn = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]
ReorderFn = Callable[[Any, jax.Array], Any]

# Scores no hypothesis can have, as in transformers: below every real score, above -inf.
EMPTY = -1.0e9
# Vocabularies from this size on are searched group by group instead of sorted whole.
GROUPED_VOCABULARY = 8192
GROUPS = 256


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """How to search. Lengths count the decoder start token, as in transformers.

    beams:          hypotheses kept per source
    length_penalty: a score is the sum of log-probabilities / (generated tokens ** length_penalty)
    early_stopping: True ends a source at `beams` finished hypotheses; False when the best running
                    one cannot overtake at its present length; "never" when it cannot at any length
    min_length:     the end token is impossible before this length
    max_length:     every hypothesis ends at this length
    n_best:         hypotheses returned per source, best first
    start, eos, pad: token ids (defaults: T5's)
    """

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    min_length: int = 0
    max_length: int = 20
    n_best: int = 1
    start: int = 0
    eos: int = 1
    pad: int = 0

    def __post_init__(self):
        if not 1 <= self.n_best <= self.beams:
            raise ValueError(f"n_best={self.n_best} must lie between 1 and beams={self.beams}")
        if self.early_stopping not in (False, True, "never"):
            raise ValueError(
                f'early_stopping={self.early_stopping!r} must be False, True or "never"'
            )
        _check_lengths(self.min_length, self.max_length)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """What a search returns.

    tokens:  [batch, n_best, max_length] int32, start token first, `pad` after the end
    scores:  [batch, n_best] float32
    lengths: [batch, n_best] int32, tokens up to the end, start and end token included
    """

    tokens: jax.Array
    scores: jax.Array
    lengths: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GreedyState:
    """position: [] int32, tokens decided so far; tokens: [batch, max_length] int32;
    scores: [batch] float32, summed log-probabilities; finished: [batch] bool; cache: the model's."""

    position: jax.Array
    tokens: jax.Array
    scores: jax.Array
    finished: jax.Array
    cache: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamState:
    """position: [] int32, tokens decided so far in every running hypothesis.

    live_tokens: [batch, beams, max_length] int32   running hypotheses, best first
    live_scores: [batch, beams] float32             summed log-probabilities
    done_tokens: [batch, beams, max_length] int32   finished hypotheses, best first
    done_scores: [batch, beams] float32             with length penalty; EMPTY where there is none
    done:        [batch, beams] bool                whether the slot holds a finished hypothesis
    improvable:  [batch] bool                       whether a running one may still enter `done`
    cache:       the model's, rows in the order of live_tokens
    """

    position: jax.Array
    live_tokens: jax.Array
    live_scores: jax.Array
    done_tokens: jax.Array
    done_scores: jax.Array
    done: jax.Array
    improvable: jax.Array
    cache: Any


def greedy(
    step_fn: StepFn,
    cache: Any,
    *,
    batch: int,
    max_length: int,
    min_length: int = 0,
    start: int = 0,
    eos: int = 1,
    pad: int = 0,
    allowed_tokens: jax.Array | None = None,
) -> Generated:
    """Takes the most probable token at every step.

    cache: the model's, one row per source. allowed_tokens: [vocab] or [batch, vocab] bool, tokens
    that may be generated (let `eos` be among them, or every answer runs to max_length).
    Returns Generated with n_best = 1; a score is the sum of the tokens' log-probabilities.
    Raises ValueError for impossible lengths.
    """
    _check_lengths(min_length, max_length)

    def advance(state: GreedyState) -> GreedyState:
        last = lax.dynamic_index_in_dim(state.tokens, state.position - 1, 1, keepdims=False)
        logits, new_cache = step_fn(state.cache, last, state.position - 1)
        too_early = state.position < min_length if min_length else None
        banned = _banned(logits, allowed_tokens, eos, too_early)
        log_probs, ids = best_continuations(logits, 1, banned)
        token = jnp.where(state.finished, pad, ids[:, 0])
        return GreedyState(
            position=state.position + 1,
            tokens=lax.dynamic_update_index_in_dim(state.tokens, token, state.position, 1),
            scores=state.scores + jnp.where(state.finished, 0.0, log_probs[:, 0]),
            finished=state.finished | (token == eos),
            cache=new_cache,
        )

    tokens = jnp.full((batch, max_length), pad, jnp.int32).at[:, 0].set(start)
    state = GreedyState(jnp.int32(1), tokens, jnp.zeros(batch), jnp.zeros(batch, bool), cache)
    unfinished = lambda s: (s.position < max_length) & ~jnp.all(s.finished)  # noqa: E731
    state = lax.while_loop(unfinished, advance, state)
    tokens = state.tokens[:, None]
    return Generated(tokens, state.scores[:, None], _lengths(tokens, eos))


def beam_search(
    step_fn: StepFn,
    cache: Any,
    config: BeamConfig,
    *,
    batch: int,
    reorder: ReorderFn,
    allowed_tokens: jax.Array | None = None,
) -> Generated:
    """Keeps the `config.beams` best hypotheses per source at every step.

    cache:   the model's, batch * beams rows.
    reorder: (cache, parents) -> cache whose row i continues old row parents[i]; parents
             [batch * beams] int32 never leaves its source, so what is shared by the beams of a
             source (cross attention) stays where it is.
    allowed_tokens: [vocab] or [batch, vocab] bool, tokens that may be generated, `eos` among them;
             probabilities stay those of the whole vocabulary.
    Returns Generated, best hypothesis first.
    """

    def advance(state: BeamState) -> BeamState:
        last = lax.dynamic_index_in_dim(state.live_tokens, state.position - 1, 2, keepdims=False)
        logits, new_cache = step_fn(state.cache, last.reshape(-1), state.position - 1)
        tokens, scores, parents = _candidates(state, logits, config, allowed_tokens)
        newest = lax.dynamic_index_in_dim(tokens, state.position, 2, keepdims=False)
        ended = (newest == config.eos) | (state.position + 1 == config.max_length)
        live_scores, keep = lax.top_k(scores + jnp.where(ended, EMPTY, 0.0), config.beams)
        first_row = jnp.arange(batch)[:, None] * config.beams
        rows = first_row + jnp.take_along_axis(parents, keep, axis=1)
        done_tokens, done_scores, done = _merge_finished(state, tokens, scores, ended, config)
        state = dataclasses.replace(
            state,
            position=state.position + 1,
            live_tokens=jnp.take_along_axis(tokens, keep[..., None], axis=1),
            live_scores=live_scores,
            done_tokens=done_tokens,
            done_scores=done_scores,
            done=done,
            cache=reorder(new_cache, rows.reshape(-1)),
        )
        return dataclasses.replace(state, improvable=_improvable(state, config))

    start = _start_state(cache, config, batch)
    state = lax.while_loop(lambda s: _unfinished(s, config), advance, start)
    tokens, scores = state.done_tokens[:, : config.n_best], state.done_scores[:, : config.n_best]
    return Generated(tokens, scores, _lengths(tokens, config.eos))


def best_continuations(
    logits: jax.Array, count: int, banned: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The `count` most probable tokens of every row, with one pass over a large vocabulary.

    logits: [rows, vocab] float32; banned: [rows or 1, vocab] bool, tokens that must not be chosen
    (they keep their share of the probability). Returns (log-probabilities [rows, count], best
    first; ids [rows, count] int32).
    """
    normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    if banned is not None:
        logits = jnp.where(banned, -jnp.inf, logits)
    values, ids = _top_k(logits, min(count, logits.shape[-1]))
    return values - normalizer, ids


def _top_k(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` over the last axis of [rows, vocab]; large vocabularies in two stages.

    The `count` best tokens lie in the `count` groups with the largest maxima, so one vectorised
    maximum over the vocabulary replaces its sorting. Group g holds tokens g, g + GROUPS, ...
    """
    rows, vocabulary = logits.shape
    if vocabulary < GROUPED_VOCABULARY or count > GROUPS // 8:
        return lax.top_k(logits, count)
    main = vocabulary - vocabulary % GROUPS
    grouped = logits[:, :main].reshape(rows, -1, GROUPS)
    _, groups = lax.top_k(grouped.max(axis=1), count)
    # -> [rows, members, count], flattened so that ids stay ascending within a group
    candidates = jnp.take_along_axis(grouped, groups[:, None, :], axis=2).reshape(rows, -1)
    members = jnp.arange(grouped.shape[1], dtype=jnp.int32)[None, :, None]
    ids = (members * GROUPS + groups[:, None, :]).reshape(rows, -1)
    tail = jnp.broadcast_to(
        jnp.arange(main, vocabulary, dtype=jnp.int32), (rows, vocabulary - main)
    )
    candidates = jnp.concatenate([candidates, logits[:, main:]], axis=1)
    values, chosen = lax.top_k(candidates, count)
    return values, jnp.take_along_axis(jnp.concatenate([ids, tail], axis=1), chosen, axis=1)


def _banned(
    logits: jax.Array, allowed: jax.Array | None, eos: int, too_early: jax.Array | None
) -> jax.Array | None:
    """[rows or 1, vocab] bool: tokens that must not come next; None when every token may.

    allowed: [vocab] or [batch, vocab] bool or None, too_early: [] bool or None (no minimum).
    """
    banned = None
    if allowed is not None:
        allowed = jnp.atleast_2d(allowed)
        beams = logits.shape[0] // allowed.shape[0] if allowed.shape[0] > 1 else 1
        banned = ~jnp.repeat(allowed, beams, axis=0)
    if too_early is not None:
        is_end = (jnp.arange(logits.shape[-1]) == eos)[None] & too_early
        banned = is_end if banned is None else banned | is_end
    return banned


def _candidates(
    state: BeamState, logits: jax.Array, config: BeamConfig, allowed: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The 2 * beams best one-token continuations of every source, best first.

    Twice the beams, because at most `beams` of them end: enough stay to run on.
    Returns tokens [batch, 2 * beams, max_length], summed log-probabilities and parent beams
    [batch, 2 * beams].
    """
    batch, beams, _ = state.live_tokens.shape
    too_early = state.position < config.min_length if config.min_length else None
    banned = _banned(logits, allowed, config.eos, too_early)
    log_probs, ids = best_continuations(logits, 2 * beams, banned)
    per_beam = ids.shape[-1]
    totals = state.live_scores[..., None] + log_probs.reshape(batch, beams, per_beam)
    scores, chosen = lax.top_k(totals.reshape(batch, -1), 2 * beams)
    parents = chosen // per_beam
    next_ids = jnp.take_along_axis(ids.reshape(batch, -1), chosen, axis=1)
    tokens = jnp.take_along_axis(state.live_tokens, parents[..., None], axis=1)
    tokens = lax.dynamic_update_index_in_dim(tokens, next_ids, state.position, 2)
    return tokens, scores, parents


def _merge_finished(
    state: BeamState, tokens: jax.Array, scores: jax.Array, ended: jax.Array, config: BeamConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best `beams` of the finished hypotheses and those that end now.

    Only the first half of the candidates may finish; the rest are there to run on.
    tokens, scores, ended: [batch, 2 * beams, ...]. Returns done_tokens, done_scores, done.
    """
    beams = config.beams
    ends = ended & (jnp.arange(2 * beams) < beams)
    open_source = state.improvable
    if config.early_stopping is True:
        open_source &= ~jnp.all(state.done, axis=1)
    # `position` tokens follow the start token once this step is counted
    penalized = scores / _length_norm(state.position, config.length_penalty)
    penalized = jnp.where(ends & open_source[:, None], penalized, penalized + EMPTY)
    all_scores = jnp.concatenate([state.done_scores, penalized], axis=1)
    done_scores, keep = lax.top_k(all_scores, beams)
    all_tokens = jnp.concatenate([state.done_tokens, tokens], axis=1)
    all_done = jnp.concatenate([state.done, ends], axis=1)
    done_tokens = jnp.take_along_axis(all_tokens, keep[..., None], axis=1)
    return done_tokens, done_scores, jnp.take_along_axis(all_done, keep, axis=1)


def _improvable(state: BeamState, config: BeamConfig) -> jax.Array:
    """[batch] bool: whether the best running hypothesis may still beat a finished one."""
    length = state.position - 1
    if config.early_stopping == "never" and config.length_penalty > 0:
        length = jnp.int32(config.max_length - 1)
    best_possible = state.live_scores[:, 0] / _length_norm(length, config.length_penalty)
    worst = jnp.min(jnp.where(state.done, state.done_scores[:, -1:], EMPTY), axis=1)
    return state.improvable & (best_possible > worst)


def _unfinished(state: BeamState, config: BeamConfig) -> jax.Array:
    """[] bool: whether another step can change the result."""
    running = (state.position < config.max_length) & jnp.any(state.improvable)
    if config.early_stopping is True:
        running &= ~jnp.all(state.done)
    return running


def _start_state(cache: Any, config: BeamConfig, batch: int) -> BeamState:
    """One running hypothesis per source (the others EMPTY, or all beams would be the same)."""
    shape = (batch, config.beams)
    blank = (
        jnp.full((*shape, config.max_length), config.pad, jnp.int32).at[..., 0].set(config.start)
    )
    return BeamState(
        position=jnp.int32(1),
        live_tokens=blank,
        live_scores=jnp.full(shape, EMPTY, jnp.float32).at[:, 0].set(0.0),
        done_tokens=blank,
        done_scores=jnp.full(shape, EMPTY, jnp.float32),
        done=jnp.zeros(shape, bool),
        improvable=jnp.ones(batch, bool),
        cache=cache,
    )


def _length_norm(length: jax.Array, penalty: float) -> jax.Array:
    return length.astype(jnp.float32) ** penalty


def _lengths(tokens: jax.Array, eos: int) -> jax.Array:
    """[..., max_length] -> [...]: tokens up to the first end token behind the start token."""
    ends = tokens[..., 1:] == eos
    first = jnp.argmax(ends, axis=-1).astype(jnp.int32) + 2
    return jnp.where(jnp.any(ends, axis=-1), first, tokens.shape[-1])


def _check_lengths(min_length: int, max_length: int) -> None:
    if max_length < 2 or min_length > max_length:
        raise ValueError(
            f"max_length={max_length} must be at least 2 (it counts the start token) "
            f"and min_length={min_length} at most max_length"
        )

"""Ranges of settings: an error names the key and what it takes, before any work.

The messages begin with the field's name, so that `pipelines.settings.build` can put the rest of its
config key in front.
"""

from collections.abc import Iterable

from clmrc_jax.files import InputError


def at_least(settings, low: float, *names: str, prefix: str = "") -> None:
    """Raises InputError for a field below `low`. prefix: before the names in messages."""
    for name in names:
        if getattr(settings, name) < low:
            raise InputError(
                f"{prefix}{name} is {getattr(settings, name)}; it must be at least {low}"
            )


def share(settings, *names: str, whole: bool = True) -> None:
    """Raises InputError for a field outside 0 to 1; `whole`: whether 1 itself is allowed."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1 or (value == 1 and not whole):
            limit = "0 to 1" if whole else "0 to below 1"
            raise InputError(f"{name} is {value}; it is a share, {limit}")


def positive(settings, *names: str) -> None:
    """Raises InputError for a field that is not above 0."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise InputError(f"{name} is {getattr(settings, name)}; it must be above 0")


def choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises InputError for a value that is not among the known ones."""
    if value not in known:
        raise InputError(f"{name} {value!r}: choose one of {', '.join(known)}")


def counts(settings, *names: str) -> None:
    """Raises InputError for a field that is no tuple of one or more positive integers."""
    for name in names:
        values = getattr(settings, name)
        if not values or not all(_is_count(value) for value in values):
            raise InputError(f"{name} is {values}; give one positive integer or more, e.g. (100,)")


def buckets(settings, *names: str) -> None:
    """Raises InputError for padded lengths that are not positive integers in ascending order."""
    for name in names:
        values = getattr(settings, name)
        rising = bool(values) and all(a < b for a, b in zip(values, values[1:]))
        if not rising or not all(_is_count(value) for value in values):
            raise InputError(
                f"{name} is {values}; give one padded length or more, ascending, e.g. (64, 128)"
            )


def validation(training) -> None:
    """Raises InputError where a training's `best` has nothing to choose by.

    training: settings with `validate_every`, `validation_rows` and `best`.
    """
    if training.validate_every < 0:
        raise InputError(
            f"validate_every is {training.validate_every}; 0 validates at the end only"
        )
    if training.best and not (training.validate_every and training.validation_rows):
        raise InputError(
            "best=True keeps the best of several validations: set validate_every and "
            f"validation_rows (now {training.validate_every} and {training.validation_rows})"
        )


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""The task table."""

import pytest

from clmrc_jax.evaluate.tasks import TASKS, Request, evaluate
from clmrc_jax.files import InputError


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("squads", Request("legacy", "p.json"), "unknown task 'squads'; known tasks: xor_full"),
        ("xor_full", Request("new", "p.json", "d"), "no mode 'new'; it has: legacy, fixed"),
        ("xor_full", Request("legacy", "p.json"), "needs --data"),
    ],
)
def test_wrong_request_says_what_is_known(task, request_, message):
    with pytest.raises(InputError, match=message):
        evaluate(task, request_)


def test_every_row_has_a_default_mode_and_help():
    assert all(row.modes and row.help for row in TASKS.values())

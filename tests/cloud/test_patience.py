"""Errors that may pass are borne, and only these, and only so long."""

import pytest

from clmrc_jax.cloud.gcloud import CloudError
from clmrc_jax.cloud.patience import Patience, patiently


class Action:
    """Fails with these kinds of errors, then returns 7."""

    def __init__(self, *kinds):
        self.kinds, self.calls = list(kinds), 0

    def __call__(self):
        self.calls += 1
        if self.kinds:
            raise CloudError(self.kinds.pop(0), "no luck")
        return 7


def test_patiently_bears_what_may_pass_and_says_so(capsys):
    action = Action("ssh", "outage", "other")
    assert patiently(action, Patience(60, poll=0.01)) == 7
    assert action.calls == 4
    said = capsys.readouterr().err
    assert said.count("no luck\n  trying again every 0.01 s, for 60 s more") == 3


@pytest.mark.parametrize(
    "kind", ["quota", "permission", "login", "project", "api", "type", "usage", "script", "absent"]
)
def test_patiently_raises_the_others_at_once(kind):
    action = Action(kind)
    with pytest.raises(CloudError):
        patiently(action, Patience(60, poll=0.01))
    assert action.calls == 1


def test_patience_ends_and_begins_anew_after_success():
    error, patience = CloudError("ssh", "x"), Patience(0.1, poll=0.15)
    patience.bear(error)
    patience.over()
    patience.bear(error)
    with pytest.raises(CloudError):
        patience.bear(error)

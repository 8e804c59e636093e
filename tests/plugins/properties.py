"""
Hypothesis as a gate: the same examples on every run, and no clock on a machine that is shared.

What is green stays green until the code changes. To look for what nobody has found yet:
`make test PYTEST_ARGS=--hypothesis-profile=explore`.
"""

from hypothesis import HealthCheck, Phase, settings

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("gate", _PATIENT, derandomize=True, database=None, print_blob=True)
settings.register_profile("explore", _PATIENT, max_examples=1000)
# For `make mutate`: that something is found is enough, nobody reads the smallest example.
settings.register_profile(
    "mutate",
    _PATIENT,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    max_examples=40,
    stateful_step_count=20,
)
settings.load_profile("gate")

"""The policy in force and the plan derived from it: loaded whole, or not at all (P11)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskmint.model.clocks import ClassClocks
from taskmint.policy.load import Policy, load_policy
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.policy.planning import plan_policy

from .files import read_policy_files
from .policy_watch import Fingerprint, fingerprint


@dataclass(frozen=True, slots=True)
class InForce:
    """One policy and its plan."""

    policy: Policy
    plan: Plan


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where the policy comes from; both methods block, so they run in a thread."""

    files: Sequence[str]
    classes: Mapping[str, ClassClocks]
    settings: PlanSettings

    def fingerprint(self) -> Fingerprint:
        """What tells these files from others, taken before they are read."""
        return fingerprint(self.files)

    def load(self) -> InForce:
        """Read, parse, plan. Raises ConfigError(policy_invalid) with every finding."""
        policy = load_policy(read_policy_files(self.files), self.classes)
        return InForce(policy, plan_policy(policy, self.settings))

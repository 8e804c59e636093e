"""The policy in force and the plan derived from it: loaded whole, or not at all (P11)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from taskmint.config import Config
from taskmint.errors import Code, ConfigError, Finding
from taskmint.model.clocks import ClassClocks
from taskmint.policy.load import Policy, load_policy
from taskmint.policy.plan_objects import Plan, PlanSettings
from taskmint.policy.planning import plan_policy
from taskmint.yaml_model import duration_text

from .files import Owners, read_policy_files
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
    emergencies: timedelta | None = None  # how long one may last; None serves none
    owners: Owners = frozenset()

    def fingerprint(self) -> Fingerprint:
        """What tells these files from others, taken before they are read."""
        return fingerprint(self.files)

    def load(self) -> InForce:
        """Read, parse, plan. Raises ConfigError(policy_invalid) with every finding."""
        return self.accept(load_policy(read_policy_files(self.files, self.owners), self.classes))

    def accept(self, policy: Policy) -> InForce:
        """Plan a policy that loads. Raises ConfigError for what this daemon may not serve."""
        if misplaced := tuple(self._misplaced(policy)):
            raise ConfigError(Code.POLICY_INVALID, misplaced)
        return InForce(policy, plan_policy(policy, self.settings))

    def _misplaced(self, policy: Policy) -> Iterator[Finding]:
        """Find what belongs to another daemon: emergencies have a door of their own."""
        for name, definition in sorted(policy.definitions.items()):
            at, key = (definition.file, definition.line, 1), f"tasks.{name}"
            if definition.break_glass and self.emergencies is None:
                problem = "is for emergencies, and this daemon is not their door"
                fix = "load it in a daemon of its own, with break_glass: in its config"
                yield Finding(*at, key, problem, fix)
            elif not definition.break_glass and self.emergencies is not None:
                problem = "is not for emergencies, and this daemon is their door alone"
                yield Finding(*at, key, problem, "load it in the other daemon")
            elif self.emergencies is not None and definition.deadline_max > self.emergencies:
                longest = duration_text(self.emergencies)
                problem = f"may last longer than break_glass.max, {longest}"
                yield Finding(*at, key, problem, f"set deadline.max to at most {longest}")


def plan_settings(config: Config) -> PlanSettings:
    """How the daemon logs in, for the plan."""
    auth = config.vault.auth
    return PlanSettings(
        audience=auth.audience,
        method=auth.method,
        mount=auth.mount or auth.method,
        role=auth.role,
        spiffe_id=auth.spiffe_id,
        namespace=config.vault.namespace,
    )


def policy_source(config: Config, owners: Owners = frozenset()) -> PolicySource:
    """Where the policy comes from, and whether this daemon is the door for emergencies."""
    return PolicySource(
        config.policy.files,
        config.class_clocks(),
        plan_settings(config),
        config.break_glass.max if config.break_glass else None,
        owners,
    )

"""
Approvers, notices and tickets of the config, with the files and programs that they name, to what
the parts take.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from taskmint.config import ApprovalSettings, BreakGlassSettings, NoticeSettings
from taskmint.errors import Code, ConfigError, Finding
from taskmint.identity.approvers import ApproverRecord, Directory, directory_of
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Tickets
from taskmint.tasks.outside import NoTickets
from taskmint.telemetry.notices import Channels, Webhook
from taskmint.telemetry.ticket_hook import TicketHook

from .files import Owners, check_program, read_small_file

_SHORTEST_KEY: Final = 16
_TICKET_AT_MOST: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ApproverSource:
    """Where approvers come from; `load` blocks, so it runs in a thread."""

    settings: ApprovalSettings
    owners: Owners = frozenset()

    def load(self) -> Directory:
        """Read every key file. Raises ConfigError(config_invalid) with every finding."""
        records: list[ApproverRecord] = []
        findings: list[Finding] = []
        for principal, given in self.settings.approvers.items():
            try:
                keys = None if given.keys is None else read_small_file(given.keys, self.owners)
            except ConfigError as error:
                findings.extend(error.findings)
                continue
            records.append(
                ApproverRecord(
                    principal=principal,
                    key_file=given.keys or "",
                    key_set=keys,
                    groups=frozenset(given.groups),
                    uids=frozenset(given.uids),
                    spiffe_ids=frozenset(map(SpiffeId.parse, given.spiffe_ids)),
                )
            )
        if findings:
            raise ConfigError(Code.CONFIG_INVALID, tuple(findings))
        return directory_of(records, "the daemon's config")


def channels(settings: NoticeSettings, owners: Owners = frozenset()) -> Channels:
    """To whom notices go. Blocks; raises ConfigError(config_invalid)."""
    if settings.command:
        check_program("notices.command", settings.command[0], owners)
    webhook = None
    if settings.webhook is not None and settings.webhook_key_file is not None:
        key = read_small_file(settings.webhook_key_file, owners).strip()
        if len(key) < _SHORTEST_KEY:
            problem = f"has fewer than {_SHORTEST_KEY} bytes"
            fix = "make one with openssl rand -hex 32"
            finding = Finding(settings.webhook_key_file, 1, 1, "", problem, fix)
            raise ConfigError(Code.CONFIG_INVALID, (finding,))
        webhook = Webhook(settings.webhook, Secret(key))
    return Channels(webhook, settings.command, settings.timeout)


def tickets(
    settings: BreakGlassSettings | None, node: str, owners: Owners = frozenset()
) -> Tickets:
    """Who knows which ticket is open. Blocks; raises ConfigError(config_invalid)."""
    if settings is None:
        return NoTickets()
    check_program("break_glass.ticket_hook", settings.ticket_hook[0], owners)
    return TicketHook(settings.ticket_hook, node, _TICKET_AT_MOST)

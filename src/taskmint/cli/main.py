"""The `taskmint` command: one tree of subcommands, each imported only when it is called."""

import importlib
from typing import Final

import click

# `taskmint run` wraps other people's programs: what it does not use, it does not import.
_COMMANDS: Final = {
    "serve": ("taskmint.cli.serve", "Run the daemon."),
    "run": ("taskmint.cli.run", "Run a command inside a task."),
    "status": ("taskmint.cli.admin", "Show whether the daemon can do its work."),
    "tasks": ("taskmint.cli.tasks", "List live tasks."),
    "show": ("taskmint.cli.tasks", "Tell everything about one task."),
    "top": ("taskmint.cli.top", "Watch the daemon and its tasks, live."),
    "end": ("taskmint.cli.admin", "End a task as operator."),
    "revoke": ("taskmint.cli.revoke", "The kill switch: end many tasks, wait for the proof."),
    "approvals": ("taskmint.cli.approvals", "See what waits for an approval; approve or deny it."),
    "explain": ("taskmint.cli.explain", "Say what a caller would be answered now, and why."),
    "reload": ("taskmint.cli.admin", "Load the policy files again."),
    "audit": ("taskmint.cli.audit", "Verify and read the ledger."),
    "policy": ("taskmint.cli.policy", "Check and question policy files."),
    "vault": ("taskmint.cli.vault", "Plan, apply and check what Vault must hold."),
    "doctor": ("taskmint.cli.doctor", "Find what is wrong, and how to mend it."),
    "config": ("taskmint.cli.config", "Check and show the daemon's configuration."),
    "dev": ("taskmint.cli.dev", "Run the embedded development stack."),
    "demo": ("taskmint.cli.demo", "Tell the whole story on real servers, in a minute."),
    "completion": ("taskmint.cli.completion", "Print what completes commands in a shell."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every subcommand, in the order of the table."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one module that holds the subcommand; its function bears the same name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table itself, so that --help imports nothing."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup)
@click.version_option(package_name="taskmint")
def main() -> None:
    """Vault credentials that exist only while the task that needs them runs."""

"""
`taskmint run`: a command that has credentials exactly as long as it runs.

    1. signals are ours from here on; one that asks for an end before 4 is obeyed without a command
    2. the task is started; no daemon, no identity, a refusal: 125. Where it needs an approval, who
       may give it is told and waited for; a signal that asks for an end cancels the request
    3. variables and files are filled; files on tmpfs, mode 0600, never over an existing one
    4. the command runs; heartbeats go out meanwhile; signals are passed on; when the daemon says
       that the task is over, the command is told to terminate
    5. files are removed and the task is ended, whatever happened in 3 and 4
    6. the exit code is the command's, or 128 + the signal that ended it
"""

import gc
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from taskmint.client.blocking import BlockingClient, BlockingRequest, BlockingTask
from taskmint.client.calls import Outcome
from taskmint.client.errors import ClientError, Refused
from taskmint.model.printable import printable

from .run_delivery import Delivery, DeliveryError
from .run_options import OURS, Options, parse
from .run_signals import CalledOff, GivenUp, Signals, sent_by_terminal

if TYPE_CHECKING:
    from .run_child import Child

BY_SIGNAL: Final = 128


def main(arguments: Sequence[str]) -> int:
    """Run with the arguments that follow `taskmint run`; returns the exit code."""
    options = parse(arguments)
    signals = Signals()
    with signals.caught() as signalled:  # step 1
        try:
            asked = BlockingClient().start(options.body, meanwhile=_get_ready)  # step 2
            task = asked if isinstance(asked, BlockingTask) else _approved(asked, signals)
            return _inside(task, options, signals, signalled)
        except ClientError as error:
            _complain(error)
            return OURS
        except CalledOff:
            return BY_SIGNAL + (signals.asked_to_end or signal.SIGTERM)
        except GivenUp:
            _say("given up; a task that was started nevertheless ends with this process")
            return BY_SIGNAL + (signals.asked_to_end or signal.SIGTERM)


def _get_ready() -> None:
    """Import what the command needs while the daemon mints: 7 ms that nobody waits for."""
    importlib.import_module("taskmint.cli.run_child")


def _approved(request: BlockingRequest, signals: Signals) -> BlockingTask:
    """Tell what is needed, and wait for it; raises ClientError, CalledOff."""
    view = request.view
    _say(f"this needs an approval: {view.quorum} of {', '.join(view.approvers)}")
    _say(f"by {view.until.isoformat(timespec='seconds')}; on this node: taskmint approvals show")
    _say(f"{view.id}, then taskmint approvals approve {view.id} --key …")
    _say("waiting; Ctrl-C cancels the request")
    asked: BlockingTask | BlockingRequest = request
    while isinstance(asked, BlockingRequest):
        try:
            with signals.calling_off():
                asked.wait()
        except CalledOff:
            _call_off(asked)
            raise
        asked = asked.collect()
    return asked


def _call_off(request: BlockingRequest) -> None:
    try:
        request.cancel()
    except ClientError as error:
        _complain(error, f"request {request.view.id} waits on, it could not be cancelled: ")
        return
    _say(f"request {request.view.id} is cancelled")


def _inside(task: BlockingTask, options: Options, signals: Signals, signalled: int) -> int:
    """Steps 3 to 6."""
    from .run_child import Child, CommandNotStarted  # noqa: PLC0415 - see _get_ready

    delivery = Delivery(options.variables, options.files)
    code = OURS
    try:
        delivery.write(task.credentials)
        environment = delivery.environment(task.credentials)
        if signals.asked_to_end is not None:
            code = BY_SIGNAL + signals.asked_to_end
        else:
            with Child.start(options.command, environment) as child:
                code = _watch(task, child, signals, signalled)
    except CommandNotStarted as error:
        code = error.exit_code
        _say(str(error))
    except DeliveryError as error:
        _say(str(error))
    finally:
        try:
            delivery.remove()
        finally:
            _end(task, _outcome(code, signals))
    return code


def _watch(task: BlockingTask, child: "Child", signals: Signals, signalled: int) -> int:
    """Step 4; returns the command's exit code."""

    def pass_on(number: int) -> None:
        if not sent_by_terminal(number):
            child.send(number)

    def terminate() -> None:
        _say("the task is over; terminating the command")
        child.send(signal.SIGTERM)

    gc.enable()  # entry.py switched it off for the start
    with signals.passed_to(pass_on):
        task.keep(terminate)
        return child.wait(signalled)


def _outcome(code: int, signals: Signals) -> Outcome:
    if signals.asked_to_end is not None:
        return "cancelled"
    return "failed" if code else "succeeded"


def _end(task: BlockingTask, outcome: Outcome) -> None:
    try:
        ended = task.end(outcome)
    except ClientError as error:
        _complain(error, "the end could not be told to the daemon: ")
        return
    if ended.state == "revoking":
        _say("revocation is not proven yet; the daemon goes on")


def _complain(error: ClientError, before: str = "") -> None:
    code = f" ({error.code})" if isinstance(error, Refused) else ""
    fix = f"; {error.fix}" if error.fix else ""
    _say(f"{before}{error.detail}{code}{fix}")


def _say(text: str) -> None:
    print(f"taskmint run: {printable(text)}", file=sys.stderr, flush=True)  # noqa: T201 - click costs 30 ms

"""Explain Slurm's pending reasons. An unknown reason is returned unchanged."""

from __future__ import annotations

import re

HELD = "held; `alphagrid retry` or `scontrol release` frees it"
REASONS = {
    "priority": "other jobs come first",
    "resources": "waits for free resources",
    "begintime": "may not start before a certain time; after a requeue that is about two minutes",
    "jobarraytasklimit": "waits for its array's throttle",
    "dependency": "waits for another job",
    "dependencyneversatisfied": "waits for a job that will never come to the end it waits for",
    "licenses": "waits for a licence",
    "reservation": "waits for its reservation to begin",
    "reservationdeleted": "its reservation was deleted",
    "prolog": "the node's prolog is running",
    "cleaning": "the last attempt is still being cleaned up",
    "scheddefer": "the scheduler is busy and puts it off",
    "jobheldadmin": "held by an administrator, who has to release it",
    "jobhelduser": HELD,
    "jobholdmaxrequeue": f"requeued as often as the cluster allows, then {HELD}",
    "launch failed requeued held": f"could not be started on its node, then {HELD}",
    "job requeued in held state": HELD,
    "partitiontimelimit": "asks for more hours than the partition allows: it will not start",
    "partitionnodelimit": "asks for more nodes than the partition has: it will not start",
    "partitionconfig": "asks for more than a node of the partition has: it will not start",
    "partitiondown": "the partition is down",
    "partitioninactive": "the partition takes no jobs now",
    "badconstraints": "no node has what it asks for: it will not start",
    "reqnodenotavail": "the nodes that it asks for are down, drained or reserved",
    "nodedown": "the node that it asks for is down",
    "frontenddown": "the front end is down",
    "invalidaccount": "the account is not known: it will not start",
    "invalidqos": "the QOS is not known: it will not start",
    "accountnotallowed": "the account may not use the partition: it will not start",
    "qosnotallowed": "the QOS may not be used there: it will not start",
    "qosusagethreshold": "the QOS has used up its share",
    "deadline": "cannot end before its deadline",
    "systemfailure": "the system failed",
    "joblaunchfailure": "could not be started on its node",
    "burstbufferresources": "waits for the burst buffer",
    "burstbufferstagein": "waits for the burst buffer",
    "powernotavail": "waits for nodes to be powered up",
}
RELEASED_BY_HAND = frozenset(
    {
        "jobheldadmin",
        "jobhelduser",
        "jobholdmaxrequeue",
        "launch failed requeued held",
        "job requeued in held state",
    }
)
FAMILIES = (
    (re.compile(r"QOS\w*PerUser\w*"), "waits for a limit of the QOS on each user"),
    (re.compile(r"(QOSMax|QOSMin)\w*"), "asks for more or less than the QOS allows a job"),
    (re.compile(r"QOS(Grp|Job|Resource|Time)\w*"), "waits for a limit of the QOS on all who use it"),
    (re.compile(r"Assoc(iation)?Max\w*"), "waits for a limit on your account's jobs"),
    (re.compile(r"(AssocGrp|Association)\w*"), "waits for a limit on all jobs of your account"),
    (re.compile(r"Max\w*PerAccount"), "waits for a limit of the QOS on each account"),
)
"""Reasons of one kind. The reason itself is shown too, because it names what is limited."""


def in_words(reason: str) -> str | None:
    """Return the explanation of squeue's `reason`, with the detail after a comma, or None for no reason."""
    word, comma, detail = reason.partition(",")
    key = _reason_key(word)
    if key in ("none", ""):
        return None
    if (explanation := REASONS.get(key)) is not None:
        return f"{explanation} ({detail.strip()})" if comma else explanation
    for family, meaning in FAMILIES:
        if family.fullmatch(reason):
            return f"{meaning} ({reason})"
    return reason


def is_held(reason: str) -> bool:
    """Return whether a job waits until a user or an administrator releases it."""
    return _reason_key(reason) in RELEASED_BY_HAND


def _reason_key(word: str) -> str:
    return word.replace("_", " ").strip(" ()").lower()

"""`liftlock --help` on one screen: every command in the order of the path that a model takes, with a few words each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Stack": {
        "up": "start what is not running, and wait for it",
        "status": "each part's health; what is served; what is under way",
        "logs": "the end of a part's log",
        "down": "stop every part",
    },
    "Release": {
        "init": "a starting spec with a small data set",
        "schema": "the JSON Schema of release.yaml, for editors",
        "release": "dataset to served champion, or the reason why not",
        "gate": "judge a change, or two models' results, item by item",
        "fit": "does a model fit a GPU, and with which flags",
        "modelcar": "build, push, pull, sign and verify images of models",
        "keys": "key pairs that sign images",
        "rollout": "look at a canary; pause, resume or abort it",
        "drill": "bad releases on purpose: is each one undone?",
        "serve": "champions of many models on one engine",
    },
    "Promotion": {
        "show": "a model's aliases, and what is served",
        "promote": "move an alias, on evidence",
        "approve": "say yes to a move that waits for people",
        "approvals": "the moves that wait",
        "rollback": "all traffic and the alias back to the champion before",
        "history": "every move of a model's aliases",
        "diff": "what differs between two versions",
        "export": "everything about a model as plain files",
        "import": "bring an exported model back",
        "ledger": "verify the record of moves",
        "reconcile": "settle aliases that were moved by hand",
        "deploy": "schedules, triggers and forms, registered in Prefect",
    },
    "Gateway": {
        "apikey": "keys of the gateway's clients, with limits",
        "trace": "find one request at every hop",
        "coherence": "do time limits and retries nest, client to engine?",
    },
    "Cluster": {
        "doctor": "what a cluster lacks, each with its fix",
        "render": "the manifests of a registered model",
        "deliver": "a registered version onto the cluster, step by step",
    },
    "Documents": {
        "index": "make the index hold exactly these documents",
        "ask": "one answer from the documents, with its sources",
        "chat": "one question after another",
        "page": "the page and its HTTP API",
        "recall": "measure retrieval on questions with gold passages",
    },
}
EXIT_CODES = "Exit codes: 0 done or yes, 1 something broke, 2 bad input, 3 no, 4 not yet."


class OneScreen(TyperGroup):
    """The command group whose help is the table above. Commands keep their own help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(f"Usage: {ctx.command_path} COMMAND [ARGS]...    Each command has --help with an example.\n")
        formatter.write(f"{self.help}\n\n")
        for title, commands in GROUPS.items():
            for place, (name, words) in enumerate(commands.items()):
                formatter.write(f"{title if place == 0 else '':<10}  {name:<10} {words}\n")
        formatter.write(f"\n{EXIT_CODES}\n")

"""`liftlock gate` on changes of documents, embedder and the code that cuts: real Git, real Postgres, each commit's own rag/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from evals.gated import GatedChange
from tasks.asked import Endpoint
from tasks.documents_suite import DocumentsSuiteInvalid
from tasks.pull_request import Asked, gate_change
from tasks.settings import Settings
from tests.fix_change import Repo
from tests.fix_http import serving_app
from tests.fix_rag import MODEL, WordEmbedder
from tests.fix_stack import ROOT

DOCUMENTS = 64  # with fewer than 59, no change at all could be shown to lose less than the margin
FIRST_ONLY = ("for line, text in _pack(blocks", "for line, text in list(_pack(blocks", "limits):\n", "limits))[:1]:\n")

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason=f"no {MODEL.name}: make setup puts it there")


def two_embedders() -> Starlette:
    """OpenAI's embeddings API: `words` tells texts apart by their words, `lengths` by the number of their characters alone."""
    words = WordEmbedder()

    def vector(model: str, text: str) -> list[float]:
        return words.embed([text if model == "words" else str(len(text) % 7)])[0].tolist()

    async def embeddings(request: Request) -> JSONResponse:
        body = await request.json()
        rows = [{"index": i, "embedding": vector(body["model"], text)} for i, text in enumerate(body["input"])]
        return JSONResponse({"data": rows})

    async def models(request: Request) -> JSONResponse:
        listed = [{"id": name, "revision": "1", "dimension": words.dimension} for name in ("words", "lengths")]
        return JSONResponse({"data": listed})

    return Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/v1/models", models)])


@dataclass
class Team:
    """A repository with documents, questions and its own rag/."""

    repo: Repo
    settings: Settings

    def gate(self, head: str, *, fork: bool = False) -> GatedChange:
        nowhere = Endpoint("http://127.0.0.1:9/v1", None, self.settings, Console(quiet=True))
        return gate_change(Asked(self.repo.folder, "main", head, fork, nowhere))

    @contextmanager
    def branch(self, name: str) -> Iterator[Path]:
        """The work tree, to be changed; committed on a branch from main."""
        self.repo.git("checkout", "-q", "-B", name, "main")
        yield self.repo.folder
        self.repo.git("add", "-A")
        self.repo.git("commit", "-q", "-m", name)
        self.repo.git("checkout", "-q", "main")


def write_suite(folder: Path) -> None:
    """Each document's answer stands in its last paragraph, in a passage of its own; that of the first paragraph asks for nothing."""
    corpus = folder / "corpora" / "handbook"
    corpus.mkdir(parents=True)
    filler = "Ships wait before the gate until the water on both sides is level. " * 20
    for i in range(DOCUMENTS):
        (corpus / f"{i}.md").write_text(f"# Page\n\n{filler}\n\nThe keyword{i} opens gate{i}.\n")
    rows = [
        {"id": f"q{i}", "corpus": "handbook", "kind": "keyword", "question": f"keyword{i} gate{i}?", "source": f"{i}.md",
         "holds": f"keyword{i} opens"}
        for i in range(DOCUMENTS)
    ]  # fmt: skip
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "retrieval.yaml").write_text("embedder: words\n")


@pytest.fixture(scope="module")
def team(postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    write_suite(folder / "repo" / "suites" / "handbook")
    shutil.copytree(ROOT / "rag", folder / "repo" / "rag", ignore=shutil.ignore_patterns("__pycache__"))
    repo = Repo(folder / "repo", "suites/handbook")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        repo.git(*arguments)
    toolchain = folder / "toolchain"
    for name in ("words", "lengths"):
        (toolchain / "models" / name).mkdir(parents=True)
        shutil.copy(MODEL / "tokenizer.json", toolchain / "models" / name)
    with serving_app(two_embedders()) as url:
        dsn = SecretStr(postgres_dsn.rpartition("/")[0])
        yield Team(repo, Settings(state=folder / "state", toolchain=toolchain, postgres_dsn=dsn, embeddings_url=url))


def break_chunker(tree: Path) -> None:
    """Of a section whose text needs several passages, only the first one is kept."""
    file = tree / "rag" / "chunk.py"
    before, after, end, new_end = FIRST_ONLY
    start, _, rest = file.read_text().partition(before)
    assert rest.startswith(", headings, count_tokens, " + end)
    file.write_text(start + after + rest.replace(end, new_end, 1))


def test_a_chunker_that_loses_passages_is_rejected_by_the_command(team: Team, tmp_path: Path) -> None:
    with team.branch("chunker") as tree:
        break_chunker(tree)
    settings = team.settings
    assert settings.postgres_dsn is not None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFTLOCK_")} | {
        "LIFTLOCK_STATE": str(settings.state),
        "LIFTLOCK_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "LIFTLOCK_EMBEDDINGS_URL": str(settings.embeddings_url),
        "LIFTLOCK_TOOLCHAIN": str(settings.toolchain),
        "PYTHONPATH": str(ROOT),
    }
    argv = [
        str(ROOT / ".venv" / "bin" / "python"),
        "-P",
        "-m",
        "flows.cli",
        "gate",
        "--base",
        "main",
        "--head",
        "chunker",
    ]
    argv += ["--repo", str(team.repo.folder), "--endpoint", "http://127.0.0.1:9/v1", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 3, done.stderr
    answer = json.loads(done.stdout)
    assert [(one["suite"], one["metric"], one["verdict"]) for one in answer["suites"]] == [
        ("suites/handbook", "recall@10", "rejected"),
        ("suites/handbook", "nDCG@10", "rejected"),
    ]
    assert answer["suites"][0]["touched"] == ["retrieval"]
    assert answer["suites"][0]["difference"] == -1.0  # every answer stands in a second passage
    assert len(answer["suites"][0]["newly_failing"]) == DOCUMENTS
    assert "holds the answer of 64 questions (q0, q1" in answer["suites"][0]["notes"][0]


def test_a_worse_embedder_is_rejected(team: Team) -> None:
    with team.branch("embedder") as tree:
        (tree / team.repo.suite / "retrieval.yaml").write_text("embedder: lengths\nmargin: 0.9\n")
        for file in (
            "search.sql",
            "nearest.sql",
        ):  # the words find the passages all the same, so they are left out here
            sql = tree / "rag" / "sql" / file
            sql.write_text(sql.read_text().replace("%(by_text)s", "%(by_text)s and false"))
    gated = team.gate("embedder")
    assert gated.exit_code == 3
    recall, ndcg = gated.suites
    assert recall.touched == ("embedder", "retrieval")
    assert [rule.required for one in (recall, ndcg) for rule in one.decision.rules] == [
        -0.05,
        -0.05,
    ]  # the base's margin
    assert "lengths" in recall.decision.candidate and "words" in recall.decision.baseline


def test_of_a_fork_documents_are_taken_and_code_is_not_run(team: Team) -> None:
    with team.branch("fork") as tree:
        (tree / team.repo.suite / "corpora" / "handbook" / "new.md").write_text("# New\n\nQuite another page.\n")
        (tree / "rag" / "rank.py").write_text("raise SystemExit('the fork was run')\n")
    gated = team.gate("fork", fork=True)
    assert gated.verdict == "inconclusive"
    for one in gated.suites:
        assert one.touched == ("corpus", "retrieval")
        assert one.decision.rules[0].verdict == "passed"
        assert one.decision.reasons[0].startswith("The fork changes retrieval, and the base's was used instead")


def test_what_finds_no_passage_is_not_evaluated(team: Team) -> None:
    with team.branch("page") as tree:
        for name in ("rag/page.html", "rag/answer.py", "README.md"):
            (tree / name).write_text("another")
    gated = team.gate("page")
    assert (gated.verdict, gated.suites) == ("passed", ())


def test_a_commit_that_cannot_be_searched_and_a_suite_that_cannot_be_read_are_named(team: Team) -> None:
    from tasks.gate_documents import RetrievalFailed

    with team.branch("broken") as tree:
        (tree / "rag" / "vectors.py").write_text("1 / 0\n")
    with pytest.raises(RetrievalFailed, match=r"suites/handbook .*as the head [0-9a-f]{12} .*ZeroDivisionError"):
        team.gate("broken")
    with team.branch("unread") as tree:
        (tree / team.repo.suite / "questions.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DocumentsSuiteInvalid, match=r"^suites/handbook/questions\.jsonl:1: corpus: Field required"):
        team.gate("unread")

"""The platform's repository over a real git daemon: only the model's folder changes, races are settled, nothing half done is left."""

import subprocess
import threading
from pathlib import Path

import pytest

from serving.delivery.change import Change
from serving.delivery.effect import DeliveryFailed
from serving.delivery.foreign import ForeignEdit
from serving.delivery.push import Push
from serving.delivery.record import RECORD, Record, files_of, from_text
from serving.delivery.repository import PushRejected, Remote, RemoteRefused, Repository
from tests.fix_platform import PlatformRepository, git
from tests.fix_rendered import desired, member

FOLDER = "models/ticket-router"


@pytest.fixture
def repository(platform_repository: PlatformRepository, tmp_path: Path) -> Repository:
    return Repository(tmp_path / "clone", Remote(platform_repository.url))


def change(weight: int = 10, subject: str = "") -> Change:
    record = Record(desired(weight=weight), member("2"))
    return Change("ticket-router", record, subject or f"candidate at {weight} %", ("at 0 %: 40 requests, 0 failed",))


def test_a_step_is_one_commit_that_touches_the_models_folder_alone_and_names_the_evidence(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    platform_repository.push_file("clusters/other.yaml", "a: 1\n")
    commit = Push().land(repository, FOLDER, change())
    assert platform_repository.subjects()[-1] == "ticket-router: candidate at 10 %"
    assert platform_repository.paths(commit) == {f"{FOLDER}/{path}" for path in files_of(change().record)}
    message = platform_repository.message(commit)
    assert f"sha256:{'4' * 64}" in message and f"sha256:{'e' * 64}" in message  # the candidate's modelcar, its report
    assert "at 0 %: 40 requests, 0 failed" in message
    assert "Liftlock-Weight: 10" in message


def test_what_is_written_is_what_is_read(repository: Repository, platform_repository: PlatformRepository) -> None:
    Push().land(repository, FOLDER, change())
    assert from_text(platform_repository.show(f"{FOLDER}/{RECORD}")) == change().record


def test_the_same_step_again_makes_no_second_commit(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    first = Push().land(repository, FOLDER, change())
    platform_repository.push_file("README.md", "Longer.\n")
    assert Push().land(repository, FOLDER, change()) == first
    assert platform_repository.subjects()[-1] == "Something else"


def test_a_file_that_is_not_wanted_any_more_goes(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    Push().land(repository, FOLDER, change())
    alone = Record(desired(candidate=None, weight=0))
    commit = Push().land(repository, FOLDER, Change("ticket-router", alone, "undo"))
    assert f"{FOLDER}/ticket-router-v4/workload.yaml" in platform_repository.paths(commit)
    held = repository.files(commit, FOLDER)
    assert held == files_of(alone) and not any("v4" in path for path in held)
    gone = Push().land(repository, FOLDER, Change("ticket-router", None, "gone"))
    assert list(repository.files(gone, "models")) == ["ticket-router/.gitkeep"]


def test_two_who_push_at_once_both_get_in_and_history_stays_linear(
    repository: Repository, platform_repository: PlatformRepository, tmp_path: Path
) -> None:
    def others() -> None:
        for number in range(5):
            try:
                platform_repository.push_file(f"other/{number}.txt", "x\n", f"Other {number}")
            except subprocess.CalledProcessError:  # the other one lost the race; it does not try again
                continue

    second = threading.Thread(target=others)
    second.start()
    for weight in (0, 10, 50, 90):
        Push().land(repository, FOLDER, change(weight))
    second.join()
    mine = [subject for subject in platform_repository.subjects() if subject.startswith("ticket-router")]
    assert mine == [f"ticket-router: candidate at {weight} %" for weight in (0, 10, 50, 90)]
    assert platform_repository.merges() == ""
    assert any(subject.startswith("Other") for subject in platform_repository.subjects())


def test_another_hands_edit_stops_with_the_diff_and_a_revert_lets_it_go_on(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    Push().land(repository, FOLDER, change())
    path = f"{FOLDER}/route.yaml"
    edited = platform_repository.show(path).replace("240s", "30s") + "\n"
    assert "30s" in edited
    commit = platform_repository.push_file(path, edited, "Shorter timeouts")
    with pytest.raises(ForeignEdit) as refused:
        Push().land(repository, FOLDER, change(50))
    assert "Shorter timeouts" in str(refused.value) and "Somebody" in str(refused.value)
    assert "+        request: 30s" in str(refused.value) and "-        request: 240s" in str(refused.value)
    assert git(platform_repository.bare, "rev-parse", "main") == commit
    platform_repository.revert_last()
    Push().land(repository, FOLDER, change(50))
    assert platform_repository.subjects()[-1] == "ticket-router: candidate at 50 %"


def test_a_folder_that_another_hand_made_is_not_taken(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    platform_repository.push_file(f"{FOLDER}/deployment.yaml", "kind: Deployment\n")
    with pytest.raises(ForeignEdit, match=r"deployment\.yaml"):
        Push().land(repository, FOLDER, change())


def test_what_an_older_version_rendered_otherwise_is_no_foreign_edit(
    repository: Repository, platform_repository: PlatformRepository
) -> None:
    """Its last commit in the folder carries the trailer, and nobody changed a file since."""
    files = {**files_of(change().record), "route.yaml": "# an older form\n"}
    commit = repository.commit(repository.fetch(), FOLDER, files, change().message)
    repository.push(commit, "main")
    Push().land(repository, FOLDER, change(50))
    assert platform_repository.subjects()[-1] == "ticket-router: candidate at 50 %"


def test_a_protected_branch_says_what_to_set(repository: Repository, platform_repository: PlatformRepository) -> None:
    hook = platform_repository.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected branch >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(DeliveryFailed, match="LIFTLOCK_PLATFORM_LANDING=pull_request"):
        Push(attempts=2).land(repository, FOLDER, change())


def test_a_stale_push_is_rejected_not_forced(repository: Repository, platform_repository: PlatformRepository) -> None:
    stale = repository.commit(repository.fetch(), FOLDER, files_of(change().record), "late")
    platform_repository.push_file("README.md", "Longer.\n")
    with pytest.raises(PushRejected):
        repository.push(stale, "main")


def test_commits_are_signed_where_a_key_is_set(platform_repository: PlatformRepository, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "liftlock", "-f", str(key)], check=True)
    signers = tmp_path / "allowed"
    signers.write_text(f"liftlock@localhost {key.with_suffix('.pub').read_text()}")
    signed = Repository(tmp_path / "clone", Remote(platform_repository.url, signing_key=key))
    commit = Push().land(signed, FOLDER, change())
    checked = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", commit)
    git(platform_repository.bare, *checked)
    unsigned = Repository(tmp_path / "clone", Remote(platform_repository.url))
    other = Push().land(unsigned, FOLDER, change(50))
    with pytest.raises(subprocess.CalledProcessError):
        git(platform_repository.bare, *checked[:-1], other)


def test_a_path_and_a_file_address_work_too(platform_repository: PlatformRepository, tmp_path: Path) -> None:
    for number, url in enumerate((str(platform_repository.bare), platform_repository.bare.as_uri())):
        Push().land(Repository(tmp_path / f"clone-{number}", Remote(url)), FOLDER, change(number))
    assert platform_repository.subjects()[-2:] == [f"ticket-router: candidate at {number} %" for number in (0, 1)]


@pytest.mark.parametrize(
    ("url", "token", "said"),
    [
        ("https://user:secret@example.com/x.git", "", "LIFTLOCK_PLATFORM_TOKEN"),
        ("http://example.com/x.git", "secret", "https alone"),
        ("--upload-pack=touch", "", "no address"),
    ],
)
def test_an_address_that_would_leak_or_run_something_is_refused(url: str, token: str, said: str) -> None:
    with pytest.raises(RemoteRefused, match=said) as refused:
        Remote(url, token=token)
    assert "secret" not in str(refused.value)


def test_an_absent_branch_or_server_is_one_sentence(platform_repository: PlatformRepository, tmp_path: Path) -> None:
    with pytest.raises(RemoteRefused, match=r"branch nope of git://.*LIFTLOCK_PLATFORM_REPOSITORY"):
        Repository(tmp_path / "clone", Remote(platform_repository.url, "nope")).fetch()

"""`liftlock keys init`, `modelcar sign` and `modelcar verify` as processes: what they print, leave behind, and exit with."""

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fix_canaries import Search
from tests.fix_guarded_registry import PASSWORD, USER, Certificate
from tests.fix_modelcar import build
from tests.fix_signing import PREDICATES

ROOT = Path(__file__).parent.parent
SECRET = "a passphrase never printed"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def liftlock(tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFTLOCK_", "PREFECT_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "LIFTLOCK_STATE": str(tmp_path / "state"), "MY_SECRET": SECRET}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", *arguments],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def image(tmp_path: Path) -> str:
    layout, _ = build(tmp_path, tag="router-1")
    return f"oci:{layout}:router-1"


def test_a_key_signs_and_its_public_half_verifies(liftlock: Run, image: str, tmp_path: Path) -> None:
    made = liftlock("keys", "init", "--prefix", "models", "--passphrase-env", "MY_SECRET", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["public"] == "models.pub"
    assert stat.S_IMODE((tmp_path / "models.key").stat().st_mode) == 0o600
    for name, predicate in zip(("provenance", "verdict"), PREDICATES.values(), strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(predicate))
    evidence = ("--provenance", "provenance.json", "--verdict", "verdict.json")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    signed = liftlock(
        "modelcar", "sign", image, "--key", "models.key", "--passphrase-file", "secret", *evidence, "--json"
    )
    assert signed.returncode == 0, signed.stderr
    require = ("--require", "provenance", "--require", "verdict")
    verified = liftlock("modelcar", "verify", image, "--key", "models.pub", *require, "--json")
    assert verified.returncode == 0, verified.stderr
    told = json.loads(verified.stdout)
    assert told["digest"] == json.loads(signed.stdout)["digest"]
    assert (told["verdict"], told["identity"]) == ("PASSED", "layout")


def test_a_registrys_password_and_a_given_key_are_in_nothing_that_is_kept(
    liftlock: Run, image: str, tmp_path: Path, basic_registry: str, certificate: Certificate
) -> None:
    """Good and bad credentials, a push, a signature and a check; all files but those that hold the secrets are searched."""
    kept = tmp_path / "kept"
    kept.mkdir()
    given = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (kept / "config.json").write_text(json.dumps({"auths": {basic_registry: {"auth": given}}}))
    wrong = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    (kept / "wrong.json").write_text(json.dumps({"auths": {basic_registry: {"auth": wrong}}}))
    made = liftlock("keys", "init", "--prefix", "kept/models", "--passphrase-env", "MY_SECRET")
    assert made.returncode == 0, made.stderr
    there, ca = f"{basic_registry}/secrets/router:v1", ("--ca-file", certificate.certificate_file)
    refused = liftlock("modelcar", "push", image, there, "--auth-file", "kept/wrong.json", *ca)
    assert refused.returncode != 0
    output = f"{refused.stdout}{refused.stderr}"
    for words in (
        ("push", image, there),
        ("sign", there, "--key", "kept/models.key", "--passphrase-env", "MY_SECRET"),
        ("verify", there, "--key", "kept/models.pub"),
        ("inspect", there),
    ):
        done = liftlock("modelcar", *words, "--auth-file", "kept/config.json", *ca)
        assert done.returncode == 0, done.stderr
        output += f"{done.stdout}{done.stderr}"
    key = (kept / "models.key").read_text().splitlines()[1]
    search = Search({"password": PASSWORD, "wrong password": SECRET, "credentials": given, "wrong": wrong, "key": key})
    search.look("output", output.encode())
    kept.rename(tmp_path.parent / f"{tmp_path.name}-kept")
    search.folder(tmp_path)
    assert not search.found
    assert search.looked > 5


def test_the_local_key_needs_no_words(liftlock: Run, image: str, tmp_path: Path) -> None:
    assert liftlock("modelcar", "verify", image).returncode == 2  # no key was made yet
    assert liftlock("modelcar", "sign", image).returncode == 0
    assert stat.S_IMODE((tmp_path / "state" / "keys" / "liftlock.key").stat().st_mode) == 0o600
    done = liftlock("modelcar", "verify", image)
    assert (done.returncode, "verified" in done.stdout) == (0, True)


def test_a_no_is_exit_code_3_and_says_what(liftlock: Run, image: str, tmp_path: Path) -> None:
    liftlock("keys", "init", "--prefix", "models", "--no-passphrase")
    unsigned = liftlock("modelcar", "verify", image, "--key", "models.pub")
    assert (unsigned.returncode, "is not signed" in unsigned.stderr) == (3, True)
    liftlock("modelcar", "sign", image)
    foreign = liftlock("modelcar", "verify", image, "--key", "models.pub")
    assert (foreign.returncode, "none is by the key" in foreign.stderr) == (3, True)
    lacking = liftlock("modelcar", "verify", image, "--require", "verdict")
    assert (lacking.returncode, "lacks" in lacking.stderr) == (3, True)
    tampered = liftlock("modelcar", "verify", image, "--folder", str(tmp_path / "base"))
    assert (tampered.returncode, "adapters/router" in tampered.stderr) == (3, True)


def test_a_pulled_folder_is_checked(liftlock: Run, image: str, tmp_path: Path) -> None:
    liftlock("modelcar", "sign", image)
    assert liftlock("modelcar", "pull", image, "pulled").returncode == 0
    assert liftlock("modelcar", "verify", image, "--folder", "pulled").returncode == 0
    shutil.copy(tmp_path / "pulled" / "README.md", tmp_path / "pulled" / "extra.md")
    done = liftlock("modelcar", "verify", image, "--folder", "pulled")
    assert (done.returncode, "extra.md" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "init"),
        ("keys", "init", "--passphrase-env", "NOT_SET"),
        ("keys", "init", "--passphrase-env", "MY_SECRET", "--passphrase-file", "x"),
        ("keys", "init", "--passphrase-file", "absent"),
        ("modelcar", "sign", "IMAGE", "--key", "absent.key"),
        ("modelcar", "sign", "IMAGE", "--verdict", "absent.json"),
        ("modelcar", "sign", "IMAGE", "--verdict", "empty.json"),
        ("modelcar", "sign", "no reference"),
        ("modelcar", "sign", "oci:absent:v1"),
        ("modelcar", "verify", "IMAGE", "--key", "empty.json"),
        ("modelcar", "verify", "IMAGE", "--require", "everything"),
    ],
)
def test_bad_input_is_exit_code_2(liftlock: Run, image: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "empty.json").write_text("{}")
    done = liftlock(*(image if word == "IMAGE" else word for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") <= 3
    assert not (tmp_path / "liftlock.key").exists()


def test_every_help_has_an_example(liftlock: Run) -> None:
    for words in (("keys", "init"), ("modelcar", "sign"), ("modelcar", "verify")):
        assert "Example: liftlock" in liftlock(*words, "--help").stdout

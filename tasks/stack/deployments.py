"""Work pools and deployments in Prefect: what `liftlock up` and `liftlock deploy` register from prefect.yaml."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import httpx

from tasks.settings import ROOT, Settings
from tasks.stack.addresses import Addresses

Pool = Literal["liftlock", "kubernetes"]
TYPES: dict[Pool, str] = {"liftlock": "process", "kubernetes": "kubernetes"}
TRIES = 4
TEMPLATE = ROOT / "deploy" / "prefect" / "job-template.json"


class DeployFailed(Exception):
    """Prefect did not take the deployments."""


class ImageUnpinned(ValueError):
    """The Jobs of the work pool would run an image that no digest names."""


def check_image(template: str) -> None:
    """`template`: the work pool's, as JSON. Raises ImageUnpinned."""
    image = json.loads(template)["variables"]["properties"]["image"]["default"]
    if not re.search(r"@sha256:[0-9a-f]{64}$", image):
        raise ImageUnpinned(
            f"the image of a flow's Job is {image[:120]}, required HOST/REPOSITORY@sha256:…; build deploy/images/training and set "
            "`image` in deploy/prefect/job-template.json"
        )


def ensure_work_pool(prefect_api: str, pool: Pool) -> None:
    """Idempotent; the kubernetes pool gets the job template of deploy/prefect anew. Raises httpx.HTTPError."""
    body: dict[str, Any] = {"name": pool, "type": TYPES[pool], "description": "Runs Liftlock's flows."}
    if pool == "kubernetes":
        body["base_job_template"] = json.loads(TEMPLATE.read_text())
    with httpx.Client(base_url=prefect_api, timeout=30) as client:
        answer = _send(client, "POST", "/work_pools/", body)
        if answer.status_code == 409 and "base_job_template" in body:  # it is there, perhaps with an older template
            answer = _send(client, "PATCH", f"/work_pools/{pool}", {"base_job_template": body["base_job_template"]})
        if answer.status_code != 409:
            answer.raise_for_status()


def _send(client: httpx.Client, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """Again where Prefect says 503: its database was busy."""
    for _ in range(TRIES - 1):
        answer = client.request(method, path, json=body)
        if answer.status_code != 503:
            return answer
        time.sleep(1)
    return client.request(method, path, json=body)


def for_pool(text: str, pool: Pool) -> str:
    """prefect.yaml for another pool: the same deployments, named by it."""
    if pool == "liftlock":
        return text
    moved = re.sub(r"work_pool: \{ name: liftlock \}", f"work_pool: {{ name: {pool} }}", text)
    return re.sub(r"^  - name: local$", f"  - name: {pool}", moved, flags=re.M)


def deploy_all(prefect_api: str, home: Path, pool: Pool = "liftlock") -> None:
    """`prefect deploy --all`. Raises DeployFailed."""
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(for_pool((ROOT / "prefect.yaml").read_text(), pool))
        done = subprocess.run(
            [*argv, "--prefect-file", str(file)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise DeployFailed(f"prefect deploy --all failed: {(done.stderr or done.stdout).strip()[-300:]}")


def ensure_deployments(settings: Settings, where: Addresses) -> None:
    """When prefect.yaml is not what was deployed last. Raises DeployFailed."""
    wanted = hashlib.sha256((ROOT / "prefect.yaml").read_bytes() + where.prefect_api.encode()).hexdigest()
    stamp = settings.state / "deployed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    deploy_all(where.prefect_api, settings.state / "prefect")
    stamp.write_text(wanted)

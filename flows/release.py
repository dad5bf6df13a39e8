"""READ FIRST. One release: a dataset to a served model, through gates that open only on evidence.

`liftlock release SPEC` runs it in process; the deployment `release/local` in prefect.yaml runs it on the worker. Every line is
a stage: a Prefect task that comes from the cache when nothing it depends on has changed.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from tasks.build_and_push import build_and_push
from tasks.dataset import prepare
from tasks.evaluate import evaluate
from tasks.judge import judge
from tasks.preflight import preflight
from tasks.record import Record
from tasks.register import register
from tasks.roll_out import roll_out
from tasks.sample import sample_answers
from tasks.train import train


@flow(name="release", flow_run_name="{spec_file}", log_prints=False, validate_parameters=True)
def release(spec_file: str, resume: bool = False, fresh: bool = False, actor: str = "") -> str:
    """Release the model that `spec_file` (a release.yaml) describes; returns the run's id.

    Args:
        spec_file: Path of the release.yaml.
        resume: Go on in the folder of this model's last unfinished run.
        fresh: Run every stage, whatever the cache holds.
        actor: Who asks for it, and so cannot approve it. Empty: the user of the process.
    """
    with Record(Path(spec_file), resume=resume, fresh=fresh, actor=actor) as made:
        spec = made.spec
        dataset = made.keep(prepare(spec))
        adapter = made.keep(train(dataset, spec))
        made.await_engine()
        pair = made.keep(evaluate(adapter, dataset, spec))
        decision = made.keep(judge(pair, spec))
        version = made.keep(register(adapter, pair, decision, spec))  # @candidate
        fit = made.keep(preflight(adapter, spec))
        made.approve("staging")  # where release.yaml asks for it, waits for people
        modelcar = made.keep(build_and_push(version, adapter, pair, decision, fit, spec))  # @staging
        made.approve("champion")
        rollout = made.keep(roll_out(version, modelcar, fit, dataset, spec))  # canary, then @champion
        if spec.sample:
            made.keep(sample_answers(rollout, spec))
    return made.run_id

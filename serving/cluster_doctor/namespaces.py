"""The two namespaces and what stands in them besides workloads: labels, limits, accounts, secrets, settings, the volume. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.cluster_doctor.expected import (
    ACCOUNTS,
    EXTERNAL,
    GOOGLE_ACCOUNT,
    MODELS,
    PIPELINE,
    PLACEHOLDER,
    STORE,
    VOLUMES,
    Expected,
)
from serving.cluster_doctor.model import Cluster, Finding, Object, is_true, said
from serving.cluster_doctor.paths import STORE_PATH, core, external_secret, namespace, secrets
from serving.fit.quantity import parse_quantity

LABELS = {"llm-platform/kueue-managed": "true", "pod-security.kubernetes.io/enforce": "restricted"}


def apply(wanted: Expected) -> str:
    return f"kubectl apply --server-side -k deploy/overlays/{wanted.overlay}"


def absent(check: str, where: str, fix: str) -> Finding:
    return Finding(check, where, "not there", "there", fix)


def check_namespaces(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    found = cluster.get(namespace(PIPELINE))
    if found is None:
        yield absent("namespace", PIPELINE, apply(wanted))
        return
    labels = found["metadata"].get("labels") or {}
    for label, value in LABELS.items():
        if labels.get(label) != value:
            yield Finding(
                "namespace-label", PIPELINE, f"{label} is {labels.get(label, 'absent')}", value,
                f"kubectl label --overwrite namespace {PIPELINE} {label}={value}",
            )  # fmt: skip


def check_models_namespace(cluster: Cluster, _: Expected) -> Iterator[Finding]:
    if cluster.get(namespace(MODELS)) is None:
        yield absent("namespace", MODELS, f"sync the platform's serving group, or kubectl create namespace {MODELS}")


def check_quota(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    found = cluster.get(core("resourcequotas", PIPELINE))
    if found is None:
        yield absent("quota", f"{PIPELINE}/{PIPELINE}", apply(wanted))
        return
    hard = found["spec"].get("hard") or {}
    for name, asked in wanted.training.items():
        given = hard.get(f"requests.{name}")
        if given is not None and parse_quantity(given) < parse_quantity(asked):
            yield Finding(
                "quota-too-small", f"{PIPELINE}/{PIPELINE}", f"requests.{name} is {given}",
                f"at least {asked}, one training", "raise it in deploy/mlops/limits.yaml",
            )  # fmt: skip


def check_limits(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    if cluster.get(core("limitranges", PIPELINE)) is None:
        yield absent("limits", f"{PIPELINE}/{PIPELINE}", apply(wanted))


def check_accounts(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    for name in ACCOUNTS:
        found = cluster.get(core("serviceaccounts", name))
        if found is None:
            yield absent("service-account", f"{PIPELINE}/{name}", apply(wanted))
        elif wanted.google and name != "prefect-worker":
            account = str((found["metadata"].get("annotations") or {}).get(GOOGLE_ACCOUNT, ""))
            if "@" not in account or PLACEHOLDER in account:
                yield Finding(
                    "workload-identity", f"{PIPELINE}/{name}", f"{GOOGLE_ACCOUNT} is {account or 'absent'}",
                    "a Google service account of yours", "set it in deploy/overlays/gke-l4/yours.yaml",
                )  # fmt: skip


def check_store(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    if not wanted.secret_store:
        return
    store = cluster.get(STORE_PATH)
    if store is None:
        yield absent("secret-store", STORE, "sync the platform's external-secrets-config, or make a store of that name")
    elif not is_true(store, "Ready"):
        yield Finding("secret-store", STORE, said(store, "Ready"), "Ready", "mend its provider and its credentials")
    else:
        for name in EXTERNAL:
            yield from _external_secret(cluster, wanted, name)


def _external_secret(cluster: Cluster, wanted: Expected, name: str) -> Iterator[Finding]:
    """Where the store itself is broken, the store is named alone."""
    found, where = cluster.get(external_secret(name)), f"{PIPELINE}/{name}"
    if found is None:
        yield absent("external-secret", where, apply(wanted))
    elif not is_true(found, "Ready"):
        keys = ", ".join(str(one["remoteRef"]["key"]) for one in found["spec"].get("data") or ())
        yield Finding("external-secret", where, said(found, "Ready"), "Ready", f"put into the store: {keys}")


def check_secrets(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    for space, name, keys in secrets():
        yield from _secret(cluster, wanted, (space, name), keys)


def _secret(cluster: Cluster, wanted: Expected, at: tuple[str, str], keys: tuple[str, ...]) -> Iterator[Finding]:
    space, name = at
    fixes = {
        "liftlock-pg-app": "CloudNativePG makes it with the cluster liftlock-pg; see its operator's log",
        "vllm-api-key": "sync the platform's serving-secrets, or make it: docs/cluster.md",
    }
    by_store = "seed the store and let External Secrets sync" if wanted.secret_store else "make it: docs/cluster.md"
    found, fix = cluster.get(core("secrets", name, space)), fixes.get(name, by_store)
    if found is None:
        yield absent("secret", f"{space}/{name}", fix)
        return
    data = found.get("data") or {}
    for key in keys:
        if not data.get(key):
            yield Finding("secret-key", f"{space}/{name}", f"no value under {key}", "a value", fix)


def check_settings(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    where, found = f"{PIPELINE}/liftlock-settings", cluster.get(core("configmaps", "liftlock-settings"))
    if found is None:
        yield absent("settings", where, apply(wanted))
        return
    data: Object = found.get("data") or {}
    for name, value in data.items():
        if PLACEHOLDER in str(value):
            yield Finding(
                "setting-unset",
                where,
                f"{name} is {value}",
                "a value of yours",
                f"set it in deploy/overlays/{wanted.overlay}",
            )


def check_volumes(cluster: Cluster, wanted: Expected) -> Iterator[Finding]:
    """Pending is in order: it is bound by the first Job."""
    for name in VOLUMES:
        where, found = f"{PIPELINE}/{name}", cluster.get(core("persistentvolumeclaims", name))
        if found is None:
            yield absent("volume", where, apply(wanted))
        elif found.get("status", {}).get("phase") == "Lost":
            yield Finding(
                "volume", where, "Lost: its volume is gone", "Bound or Pending", "delete the claim and apply it again"
            )

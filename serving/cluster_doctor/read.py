"""Reads a cluster: one GET a path, and one SelfSubjectAccessReview a right. Effects; it changes nothing."""

from __future__ import annotations

import http
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubernetes import client

from serving.cluster_doctor.expected import Expected
from serving.cluster_doctor.model import ABSENT, FORBIDDEN, FOUND, Answer, Cluster, Right
from serving.cluster_doctor.paths import paths
from serving.cluster_doctor.rights import rights
from serving.kube.connect import ClusterUnreachable, connect, refusal, told

AT_ONCE = 8
SECONDS = 20
AUTHORIZATION, AUTHENTICATION = "/apis/authorization.k8s.io/v1", "/apis/authentication.k8s.io/v1"


def open_api(context: str | None, acting_as: str | None) -> client.ApiClient:
    """Raises NoCluster."""
    api = connect(context, retries=False, threads=AT_ONCE)
    if acting_as:
        api.default_headers["Impersonate-User"] = acting_as
    return api


def read_cluster(api: client.ApiClient, wanted: Expected) -> Cluster:
    """Raises ClusterUnreachable where no API server answers, ClusterRefused where it does not know us."""
    user = _who(api)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = paths(wanted)
        answers = dict(zip(read, pool.map(lambda path: _get(api, path), read), strict=True))
        asked = rights(wanted)
        given = dict(zip(asked, pool.map(lambda right: allowed(api, right), asked), strict=True))
    return Cluster(answers, given, user)


def _who(api: client.ApiClient) -> str:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = _call(api, "POST", f"{AUTHENTICATION}/selfsubjectreviews", review)
    return str(answer.body["status"]["userInfo"].get("username", ""))


def _get(api: client.ApiClient, path: str) -> Answer:
    return _call(api, "GET", path, None, (ABSENT, FORBIDDEN))


def allowed(api: client.ApiClient, right: Right) -> bool:
    resource, _, sub = right.resource.partition("/")
    attributes = {"verb": right.verb, "group": right.group, "resource": resource, "namespace": right.namespace,
                  "name": right.name, "subresource": sub}  # fmt: skip
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = _call(api, "POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", review)
    return bool(answer.body["status"]["allowed"])


def _call(api: client.ApiClient, method: str, path: str, body: Any, taken: Sequence[int] = ()) -> Answer:
    """`taken`: statuses that are an answer too."""
    headers = {"Accept": "application/json", "Content-Type": "application/json", **api.default_headers}
    api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
    with told(f"{method} {path}", api.configuration.host):
        answer = api.call_api(method, f"{api.configuration.host}{path}", headers, body, _request_timeout=SECONDS)
        data = answer.read() or b""  # type: ignore[no-untyped-call]
    if answer.status in taken:
        return Answer(answer.status)
    if answer.status < http.HTTPStatus.BAD_REQUEST:
        return Answer(FOUND, _json(data, api.configuration.host))
    raise refusal(
        f"{method} {path} was answered {answer.status}, required: a user that it knows, and that may act as another where --as is "
        "given",
        answer.status, data.decode(errors="replace"), " ".join(data.decode(errors="replace").split())[:200],
    )  # fmt: skip


def _json(data: bytes, server: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ClusterUnreachable(f"what answers at {server} is no API server; name another context") from None

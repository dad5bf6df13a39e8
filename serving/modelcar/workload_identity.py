"""`docker-credential-workload-identity`: a registry's token from the metadata server of a Google cloud. Effects.

Docker's credential helper protocol, of which `get` alone has something to give: the registry's name on standard input, JSON on
standard output. A pod needs no key for it; its service account is bound to a Google account that may write to the registry.
Source of address and header: cloud.google.com/compute/docs/access/authenticate-workloads.
"""

import json
import os
import sys
from collections.abc import Mapping

import httpx

HOST = "metadata.google.internal"
PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
USERNAME = "oauth2accesstoken"  # what Artifact Registry takes an access token for
SECONDS = 10


class TokenRefused(Exception):
    """The metadata server gives no token."""


def token(environment: Mapping[str, str]) -> str:
    """An access token, good for an hour at most. GCE_METADATA_HOST names another server, as in Google's own clients.

    Raises TokenRefused.
    """
    host = environment.get("GCE_METADATA_HOST", HOST)
    try:
        answer = httpx.get(
            f"http://{host}{PATH}", headers={"Metadata-Flavor": "Google"}, timeout=SECONDS, trust_env=False
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise TokenRefused(
            f"the metadata server {host} gave no token ({error!r:.90}); required: a pod whose service account has the annotation "
            "iam.gke.io/gcp-service-account (deploy/overlays/gke-l4/yours.yaml)"
        ) from error


def main(arguments: list[str]) -> int:
    """The exit code; what went wrong goes to standard output, as the protocol has it."""
    if arguments != ["get"]:
        print("this helper gives tokens (get); it keeps none")
        return 1
    try:
        print(json.dumps({"Username": USERNAME, "Secret": token(os.environ)}))
    except TokenRefused as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

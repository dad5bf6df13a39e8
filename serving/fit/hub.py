"""A model repository on the Hugging Face hub as a FileStore: JSON files and headers by HTTP ranges, never weights.

The revision is resolved to a commit once, and every file is read at that commit. Redirects to a file store are
followed without the token. A private or gated repository needs a token that may read it.
"""

import re
from dataclasses import dataclass

import httpx
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers

from serving.fit.model_reader import ModelUnreadable
from serving.fit.strict_json import BadJson, is_int, parse_object

MODEL_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?)(@(?P<revision>[\w./-]{1,100}))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_LISTING_BYTES = 16 << 20


@dataclass(frozen=True)
class HubAccess:
    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = None  # None: the one that huggingface_hub finds, if any
    timeout_seconds: float = 30.0


class HubStore:
    parallel = 8

    def __init__(self, model: str, access: HubAccess) -> None:
        """`model` is ORG/NAME or ORG/NAME@REVISION. Asks for the list of files. Raises ModelUnreadable."""
        match = MODEL_ID.fullmatch(model)
        if match is None:
            raise ModelUnreadable(f"{model[:100]!r} is no Hugging Face id; required: ORG/NAME or ORG/NAME@REVISION.")
        self.name: str = match["id"]
        self.names: tuple[str, ...] = (self.name,)
        self._access = access
        self._client = httpx.Client(
            headers=build_hf_headers(token=access.token), follow_redirects=True, timeout=access.timeout_seconds
        )
        self.revision, self._sizes = self._list(match["revision"] or "main")
        self.origin = f"{self.name} at {self.revision}"

    def sizes(self) -> dict[str, int]:
        return self._sizes

    def read(self, file: str, start: int, size: int) -> bytes:
        if size == 0:
            return b""
        url = hf_hub_url(self.name, file, revision=self.revision, endpoint=self._access.endpoint)
        wanted = {"range": f"bytes={start}-{start + size - 1}", "accept-encoding": "identity"}
        return self._get(url, wanted, start, size)

    def _list(self, revision: str) -> tuple[str, dict[str, int]]:
        """The commit, and the size of each file in it, by the hub's model info."""
        url = f"{self._access.endpoint}/api/models/{self.name}/revision/{revision.replace('/', '%2F')}?blobs=true"
        try:
            info = parse_object(self._get(url, {}, 0, MAX_LISTING_BYTES))
        except BadJson as error:
            raise self._unreadable(f"its list of files is {error}") from error
        commit, files = info.get("sha"), info.get("siblings")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(files, list):
            raise self._unreadable("its list of files has no commit")
        found = [(file.get("rfilename"), file.get("size")) for file in files if isinstance(file, dict)]
        return commit, {name: size for name, size in found if isinstance(name, str) and is_int(size) and size >= 0}

    def _get(self, url: str, headers: dict[str, str], start: int, size: int) -> bytes:
        """`size` bytes from `start`; a server that ignores the range sends the whole, and is cut off there."""
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code in (401, 403, 404):
                    raise ModelUnreadable(
                        f"{self.name} is not readable on {self._access.endpoint} ({answer.status_code}), and no folder "
                        "of that name is here; required: an id and a revision that the token may read. Check the "
                        "spelling, or run `hf auth login`."
                    )
                if answer.status_code not in (200, 206):
                    raise self._unreadable(f"{url} answered {answer.status_code}")
                return _take(answer, start if answer.status_code == 200 else 0, size)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreadable(f"{type(error).__name__}: {error}") from error

    def _unreadable(self, observed: str) -> ModelUnreadable:
        return ModelUnreadable(
            f"{self.name} could not be read from {self._access.endpoint} ({observed[:200]}); required: the hub's "
            "answer. Try again, or name a folder that holds the model."
        )


def _take(answer: httpx.Response, skip: int, size: int) -> bytes:
    taken = bytearray()
    for block in answer.iter_bytes():
        taken += block
        if len(taken) >= skip + size:
            break
    return bytes(taken[skip : skip + size])

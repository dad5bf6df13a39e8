"""Which failures of a registry pass, and how long to wait for it: exponential back-off, and what Retry-After asks.

Connection errors, 429 and 5xx are transient; every other status, and a certificate that does not verify, is final.
"""

import http.client
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from serving.modelcar.document import RegistryFailed
from serving.modelcar.transport import Answer

MAX_ATTEMPTS = 4
BACKOFF_SECONDS = 1.0  # doubles after each attempt
MAX_RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class Patience:
    """`sleep` waits; a test may give one that does not."""

    sleep: Callable[[float], None]

    def ask(self, what: str, where: str, attempt: Callable[[], Answer], good: frozenset[int]) -> Answer:
        """Runs `attempt` until it gives a status in `good`. Raises RegistryFailed on the first answer that is final."""
        observed = ""
        for number in range(1, MAX_ATTEMPTS + 1):
            delay = BACKOFF_SECONDS * 2 ** (number - 1)
            try:
                answer = attempt()
            except ssl.SSLCertVerificationError as error:
                raise RegistryFailed(
                    f"{what} at {where}: the certificate does not verify ({error.verify_message}); "
                    "give the file of its authority (--ca-file)"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                observed = f"{type(error).__name__}: {error}"
            else:
                if answer.status in good:
                    return answer
                observed = describe(answer)
                if not is_transient(answer.status):
                    raise RegistryFailed(f"{what} at {where}: {observed}; {_advice(answer.status)}")
                delay = max(delay, _retry_after(answer))
            if number < MAX_ATTEMPTS:
                self.sleep(delay)
        raise RegistryFailed(
            f"{what} at {where}: {observed}, {MAX_ATTEMPTS} times; see that the registry runs, try again"
        )


def is_transient(status: int) -> bool:
    return status == 429 or status >= 500


def describe(answer: Answer) -> str:
    body = " ".join(answer.body[:300].decode("utf-8", "replace").split())
    return f"status {answer.status}{': ' + body if body else ''}"


def _advice(status: int) -> str:
    if status in (401, 403):
        return "give credentials that may do this in this repository (--auth-file)"
    return "the registry refuses the request, so sending it again will not help"


def _retry_after(answer: Answer) -> float:
    """Seconds the registry asks for; 0 where it names none or a date."""
    value = answer.headers.get("retry-after", "")
    return min(float(value), MAX_RETRY_AFTER_SECONDS) if value.isdecimal() else 0.0

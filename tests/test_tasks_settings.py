"""Addresses are shown to people, so none may hold a secret; what says so shows none either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.settings import SettingsInvalid, get_settings

SHOWN = ("MLFLOW_URI", "PREFECT_API_URL", "VLLM_URL", "GATEWAY_URL", "GATEWAY_ADMIN_URL", "FALLBACK", "ENDPOINTS", "OTLP_URL", "REGISTRY",
         "EMBEDDINGS_URL", "CLUSTER_GATEWAY_URL", "PROMETHEUS_URL")  # fmt: skip


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize(
    "address", ["https://ada:s3cret@host:1/x", "m@http://:s3cret@host", "a@http://one,b@https://s3cret@two"]
)
def test_an_address_with_credentials_is_refused_without_showing_them(
    monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv(f"LIFTLOCK_{name}", address)
    with pytest.raises(SettingsInvalid) as refused:
        get_settings()
    assert f"LIFTLOCK_{name}: " in str(refused.value) and "the address holds credentials" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("address", ["https://host:1/x@y", "m@http://host:8000,n@https://two/v1", "base"])
def test_an_at_sign_elsewhere_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("LIFTLOCK_FALLBACK", address)
    assert get_settings().fallback == address

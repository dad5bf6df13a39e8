"""Addresses of keys: RFC 7512's and cosign's forms, and what is refused without saying a secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.modelcar.key_uri import KmsAddress, TokenAddress, kms_address, token_address
from serving.modelcar.keys import KeyInvalid

MODULE = "?module-path=/usr/lib/m.so"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (f"pkcs11:token=t;object=k{MODULE}", TokenAddress("/usr/lib/m.so", "t", label="k")),
        # percent-encoded as in the examples of RFC 7512, section 3
        (
            f"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;id=%69%95%3E%5C%F4%BD%EC%91;type=private{MODULE}",
            TokenAddress("/usr/lib/m.so", "The Software PKCS#11 Softtoken", key_id=b"i\x95>\\\xf4\xbd\xec\x91"),
        ),
        (f"pkcs11:slot-id=17;object=k;{MODULE}", TokenAddress("/usr/lib/m.so", slot=17, label="k")),
        (
            f"pkcs11:serial=DECC0401648;object=k{MODULE}",
            TokenAddress("/usr/lib/m.so", serial=b"DECC0401648", label="k"),
        ),
    ],
)
def test_a_pkcs11_uri_names_token_and_key(uri: str, address: TokenAddress) -> None:
    assert token_address(uri) == address


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:token=t;object=k", "module-path"),
        (f"pkcs11:object=k{MODULE}", "name a token and a key"),
        (f"pkcs11:token=t{MODULE}", "name a token and a key"),
        (f"pkcs11:token=t;token=u;object=k{MODULE}", "twice"),
        (f"pkcs11:token=t;objekt=k{MODULE}", "'objekt'"),
        (f"pkcs11:token=t;object=k;type=cert{MODULE}", "type=cert"),
        (f"pkcs11:slot-id=x;object=k{MODULE}", "slot-id=x"),
        (f"pkcs11:token=%ff;object=k{MODULE}", "UTF-8"),
        ("pkcs11:", "module-path"),
    ],
)
def test_a_pkcs11_uri_that_names_no_key_is_refused(uri: str, said: str) -> None:
    with pytest.raises(KeyInvalid, match=said):
        token_address(uri)


@pytest.mark.parametrize("name", ["pin-value", "pin-source"])
def test_a_pin_in_the_address_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(KeyInvalid, match="--passphrase-file") as refused:
        token_address(f"pkcs11:token=t;object=k{MODULE}&{name}=sesame")
    assert "sesame" not in str(refused.value)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = token_address(f"pkcs11:{text}")
    except KeyInvalid as refused:
        assert len(str(refused)) > 40  # what, and the form to write
    else:
        assert address.module
        assert address.label is not None or address.key_id is not None


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("awskms:///alias/models", KmsAddress(None, "alias/models")),
        ("awskms:///1234abcd-12ab-34cd-56ef-1234567890ab", KmsAddress(None, "1234abcd-12ab-34cd-56ef-1234567890ab")),
        (
            "awskms:///arn:aws:kms:us-east-2:111122223333:key/1234abcd",
            KmsAddress(None, "arn:aws:kms:us-east-2:111122223333:key/1234abcd"),
        ),
        ("awskms://localhost:4566/alias/models", KmsAddress("http://localhost:4566", "alias/models")),
        ("awskms://kms.example.com/alias/models", KmsAddress("https://kms.example.com", "alias/models")),
    ],
)
def test_cosigns_form_names_a_key_of_aws(uri: str, address: KmsAddress) -> None:
    assert kms_address(uri) == address


@pytest.mark.parametrize("uri", ["awskms://", "awskms:///", "awskms://alias", "awskms:///alias/", "awskms:alias/x"])
def test_an_address_without_a_key_is_refused(uri: str) -> None:
    with pytest.raises(KeyInvalid, match="awskms:///alias/NAME"):
        kms_address(uri)

"""Signing keys of AWS KMS: an asymmetric ECC_NIST_P256 key that signs a digest and never leaves the service.

Reached through boto3 (extra `kms`), with the credentials and the region that AWS's own tools use. Other clouds' key services
are reached by their PKCS#11 modules (token_key.py). Each signature is another one: the nonce is the service's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving.modelcar.key_uri import KmsAddress, kms_address
from serving.modelcar.keys import KeyInvalid, KeyTaken, PublicKey, public_key_of_der

SCHEME = "awskms:"
_ALGORITHM = "ECDSA_SHA_256"
_KIND = "ECC_NIST_P256"


class KmsKey:
    """The key that an `awskms://` address names."""

    def __init__(self, address: str) -> None:
        """Asks for the public half. Raises KeyInvalid."""
        self._address = kms_address(address)
        with _client(self._address) as kms:
            found = kms.get_public_key(KeyId=self._address.key)
        self._public = public_key_of_der(found["PublicKey"], self._address.key)
        self._key = str(found["KeyId"])  # an alias may be moved to another key between two signatures

    @property
    def public(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Raises KeyInvalid."""
        digest = hashlib.sha256(data).digest()
        with _client(self._address) as kms:
            answer = kms.sign(KeyId=self._key, Message=digest, MessageType="DIGEST", SigningAlgorithm=_ALGORITHM)
        signature = bytes(answer["Signature"])
        if not self._public.verifies(signature, data):
            raise KeyInvalid(f"{self._address.key} answered with a signature that is not its key's; do not use it")
        return signature


def make_kms_key(address: str) -> KmsKey:
    """A new key under the alias that the address names. Raises KeyInvalid, KeyTaken."""
    where = kms_address(address)
    if not where.is_alias:
        raise KeyInvalid(
            f"{where.key} is no alias; KMS chooses ids itself, so write awskms:///alias/NAME for a new key"
        )
    with _client(where) as kms:
        if _taken(kms, where.key):
            raise KeyTaken(f"{where.key} exists and keys are never overwritten; choose another alias")
        made = kms.create_key(KeySpec=_KIND, KeyUsage="SIGN_VERIFY", Description="Liftlock: signs modelcars")
        kms.create_alias(AliasName=where.key, TargetKeyId=made["KeyMetadata"]["KeyId"])
    return KmsKey(address)


def _taken(kms: Any, alias: str) -> bool:
    try:
        kms.describe_key(KeyId=alias)
    except kms.exceptions.NotFoundException:
        return False
    return True


@contextmanager
def _client(where: KmsAddress) -> Iterator[Any]:
    """Every error of the service or of its client comes out as KeyInvalid."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise KeyInvalid(f"keys of AWS KMS need the library boto3 ({error}); run pip install boto3") from error
    try:
        yield boto3.client("kms", endpoint_url=where.endpoint)
    except (BotoCoreError, ClientError) as error:
        raise KeyInvalid(
            f"AWS KMS refused {where.key}: {error}; see that the key, the region (AWS_DEFAULT_REGION) and the credentials are right"
        ) from error

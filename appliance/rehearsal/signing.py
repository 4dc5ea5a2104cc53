"""The plant's own signature: an Ed25519 key that is made at its first use and never leaves the data folder."""

import hashlib
import os
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_FILE: Final = "plant-signing.pem"
PUBLIC_FILE: Final = "plant-signing.pub.pem"


class SigningError(Exception):
    """A key that cannot be used; one line with a hint."""


class Signer:
    """Signs in the name of the plant. `public_key` is the raw key in hexadecimal digits."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw().hex()

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The key of this folder, made when there is none; raises `SigningError`."""
        path = folder / KEY_FILE
        try:
            if not path.exists():
                _make(folder)
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            hint = "restore it from a backup, or move it away to have a new one made"
            raise SigningError(f"{path} cannot be used ({error}); {hint}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningError(f"{path} is no Ed25519 key; move it away to have a new one made")
        return cls(key)

    def sign(self, text: bytes) -> str:
        """The signature in hexadecimal digits."""
        return self._key.sign(text).hex()


def is_signed(text: bytes, signature: str, public_key: str) -> bool:
    """Whether this key has signed this text; False too for what is no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), text)
    except (ValueError, InvalidSignature):
        return False
    return True


def fingerprint(public_key: str) -> str:
    """SHA-256 of a raw public key, in groups of eight hexadecimal digits."""
    digest = hashlib.sha256(bytes.fromhex(public_key)).hexdigest()
    return " ".join(digest[at : at + 8] for at in range(0, len(digest), 8))


def public_key_of(path: Path) -> str:
    """The raw key of a PEM file, in hexadecimal digits; raises `SigningError`."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SigningError(f"{path} is no public key ({error}); name the plant's keys/{PUBLIC_FILE}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningError(f"{path} is no Ed25519 key; name the plant's keys/{PUBLIC_FILE}")
    return key.public_bytes_raw().hex()


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(folder / PUBLIC_FILE, public, 0o644)
    _write(folder / KEY_FILE, secret, 0o600)


def _write(path: Path, body: bytes, mode: int) -> None:
    """The whole file or none, on disk."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)

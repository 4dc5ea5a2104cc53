"""Who the appliance is to Azure: identities in the order of preference, none of which leaves a secret in a file.

Workload identity (Kubernetes), managed identity of Azure Arc (a server in the plant), a service principal
with an X.509 certificate; a connection string only where secrets are allowed.
"""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.config import UplinkConfig

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

WORKLOAD_VARIABLES: Final = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_CLIENT_ID")
ARC_VARIABLES: Final = ("IDENTITY_ENDPOINT", "IMDS_ENDPOINT")
ARC_ENDPOINTS: Final = {
    "IDENTITY_ENDPOINT": "http://localhost:40342/metadata/identity/oauth2/token",
    "IMDS_ENDPOINT": "http://localhost:40342",
}
ARC_GROUP: Final = "himds"


class IdentityError(Exception):
    """No identity can be used as configured: one line for each fault, with the fix."""


class Identity(StrEnum):
    """The ways to prove who the appliance is, in the order of preference."""

    WORKLOAD = "workload"
    ARC = "arc"
    CERTIFICATE = "certificate"
    SECRET = "secret"


def chosen(config: UplinkConfig, environ: Mapping[str, str] = os.environ) -> Identity:
    """The configured identity, or with `auto` the first one that this machine has; raises `IdentityError`."""
    if config.identity != "auto":
        return Identity(config.identity)
    if all(environ.get(name) for name in WORKLOAD_VARIABLES):
        return Identity.WORKLOAD
    if all(environ.get(name) for name in ARC_VARIABLES):
        return Identity.ARC
    if config.certificate is not None:
        return Identity.CERTIFICATE
    if config.connection_string:
        return Identity.SECRET
    raise IdentityError(
        "[uplink] identity: none found; connect this server to Azure Arc and set IDENTITY_ENDPOINT and IMDS_ENDPOINT "
        "for the service, or give certificate, tenant_id and client_id of a service principal"
    )


def check(config: UplinkConfig, environ: Mapping[str, str] = os.environ, tokens: Path | None = None) -> Identity:
    """The identity that will be used, when it has what it needs on this machine; raises `IdentityError`.

    `tokens` is the folder in which Arc's agent puts its keys.
    """
    identity = chosen(config, environ)
    if identity is Identity.WORKLOAD:
        faults = _workload_faults(environ)
    elif identity is Identity.ARC:
        faults = _arc_faults(environ, tokens or arc_tokens(environ))
    elif identity is Identity.CERTIFICATE:
        faults = _certificate_faults(config)
    else:
        faults = []
    if faults:
        raise IdentityError("\n".join(f"[uplink] identity {identity}: {fault}" for fault in faults))
    return identity


def credential(config: UplinkConfig, identity: Identity) -> "AsyncTokenCredential":
    """The credential of an identity other than a secret; raises `OSError` or `ValueError` when it lacks something."""
    # Imported here: `plantward check` needs none of it.
    from azure.identity.aio import CertificateCredential, ManagedIdentityCredential, WorkloadIdentityCredential

    if identity is Identity.WORKLOAD:
        return WorkloadIdentityCredential()
    if identity is Identity.CERTIFICATE:
        return CertificateCredential(config.tenant_id, config.client_id, str(config.certificate))
    return ManagedIdentityCredential(client_id=config.client_id or None)


def arc_tokens(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder in which Arc's agent puts its keys; the client takes them from nowhere else."""
    if os.name == "nt":
        return Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "AzureConnectedMachineAgent" / "Tokens"
    return Path("/var/opt/azcmagent/tokens")


def _workload_faults(environ: Mapping[str, str]) -> list[str]:
    faults = [f"{name} is not set; label the pod for workload identity" for name in WORKLOAD_VARIABLES
              if not environ.get(name)]  # fmt: skip
    file = environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if file and not os.access(file, os.R_OK):
        faults.append(f"{file} of AZURE_FEDERATED_TOKEN_FILE cannot be read; mount the service account token")
    return faults


def _arc_faults(environ: Mapping[str, str], tokens: Path) -> list[str]:
    faults = [
        f"{name} is not set; set it for the service (systemd: Environment={name}={endpoint}) and run this check with it"
        for name, endpoint in ARC_ENDPOINTS.items()
        if not environ.get(name)
    ]
    if environ.get("IDENTITY_HEADER"):
        faults.append("IDENTITY_HEADER is set, so Arc is not recognised; remove it from the service's environment")
    if not tokens.is_dir():
        faults.append(
            f"the folder {tokens} does not exist; install the Azure Connected Machine agent (azcmagent connect)"
        )
    elif not os.access(tokens, os.R_OK | os.X_OK):
        fix = f"add the service's user to the group {ARC_GROUP} (usermod -aG {ARC_GROUP} USER) and start it again"
        faults.append(f"the folder {tokens} cannot be read by this user; {fix}")
    return faults


def _certificate_faults(config: UplinkConfig) -> list[str]:
    try:
        assert config.certificate is not None, "the configuration is checked"
        text = config.certificate.read_bytes()
    except OSError as error:
        return [f"{config.certificate} cannot be read ({error.strerror}); let the service's user read it"]
    if b"PRIVATE KEY" in text and b"BEGIN CERTIFICATE" in text:
        return []
    return [f"{config.certificate} must hold the certificate and its private key, both as PEM"]

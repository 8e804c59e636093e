"""What may stand under `scope:`, as pydantic models: one for each kind of entitlement."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from taskmint.model.scope import ProofLevel
from taskmint.yaml_model import (
    Duration,
    FromText,
    NonEmpty,
    Text,
    YamlModel,
    member,
    refusal,
)

from .schema_words import MountPath, Sentence, SmallCount, VaultName

_Proof = Annotated[ProofLevel, member(ProofLevel)]


class SecretSchema(YamlModel):
    """Any secrets engine: one GET or POST below a mount."""

    mount: MountPath
    path: Text
    method: Annotated[Literal["GET", "POST"], FromText] = "GET"
    body: dict[str, object] = Field(default_factory=dict)
    proof: _Proof = ProofLevel.LEASE


class DatabaseSchema(YamlModel):
    """A database role that exists only for the task, made over a connection kept for such roles."""

    mount: MountPath
    connection: MountPath
    creation: Annotated[tuple[Text, ...], NonEmpty]
    revocation: Annotated[tuple[Text, ...], NonEmpty]
    proof: _Proof = ProofLevel.LOGIN


class TokenSchema(YamlModel):
    """A second Vault token for the caller, with one policy of its own."""

    policy: VaultName
    ttl: Duration | None = None
    num_uses: SmallCount | None = None


class PkiSchema(YamlModel):
    """A certificate: cannot be revoked by lease, so it lives at most `ttl`."""

    mount: MountPath
    role: Text
    operation: Annotated[Literal["issue", "sign"], FromText] = "issue"
    common_name: Sentence
    alt_names: tuple[Sentence, ...] = ()
    ttl: Duration


class SshSchema(YamlModel):
    """A signed key, which lives at most `ttl`, or a one-time password, which has a lease."""

    mount: MountPath
    role: Text
    operation: Annotated[Literal["sign", "otp"], FromText]
    principals: tuple[Sentence, ...] = ()
    ttl: Duration | None = None
    username: Sentence | None = None
    ip: Sentence | None = None

    @model_validator(mode="after")
    def _fitting(self) -> "SshSchema":
        """Each operation has its own fields."""
        if self.operation == "sign":
            if not self.principals or self.ttl is None or self.username or self.ip:
                raise refusal("signing takes principals and ttl", "write both, and nothing else")
        elif self.principals or self.ttl is not None or self.ip is None:
            raise refusal("an otp takes ip, and may take username", "write ip")
        return self


class EntitlementSchema(YamlModel):
    """One thing in a scope; exactly one kind."""

    secret: SecretSchema | None = None
    database: DatabaseSchema | None = None
    token: TokenSchema | None = None
    pki: PkiSchema | None = None
    ssh: SshSchema | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "EntitlementSchema":
        """More than one kind, or none, is no entitlement."""
        if len(self.model_fields_set) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise refusal("has exactly one kind", f"write one of: {kinds}")
        return self

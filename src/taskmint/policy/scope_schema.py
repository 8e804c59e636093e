"""What may stand under `scope:`, as pydantic models: one for each kind of entitlement."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from taskmint.yaml_model import (
    Boolean,
    Duration,
    FromText,
    NonEmpty,
    Seconds,
    Text,
    YamlModel,
    refusal,
)

from .schema_words import (
    Capability,
    ConnectionName,
    FieldName,
    MountPath,
    Sentence,
    SmallCount,
    VaultName,
)

_Proof = Annotated[Literal["lease", "login", "sessions"], FromText]


class SecretSchema(YamlModel):
    """
    Any secrets engine: one GET or POST below a mount.

    What it answers has a lease, or `revocable` is false: a KV secret, something transit signed.
    """

    mount: MountPath
    path: Text
    method: Annotated[Literal["GET", "POST"], FromText] = "GET"
    body: dict[FieldName, object] = Field(default_factory=dict)
    proof: _Proof = "lease"
    revocable: Boolean = True
    ceiling: Duration | None = None

    @model_validator(mode="after")
    def _fitting(self) -> "SecretSchema":
        """What cannot be taken back proves nothing, and what can needs no ceiling."""
        if self.revocable and self.ceiling is not None:
            raise refusal("a lease has its own clocks", "remove ceiling, or write revocable: false")
        if not self.revocable and self.proof != "lease":
            raise refusal(f"{self.proof} cannot be proven of it", "remove proof")
        return self


class DatabaseSchema(YamlModel):
    """A database role that exists only for the task, made over a connection kept for such roles."""

    mount: MountPath
    connection: ConnectionName
    creation: Annotated[tuple[Text, ...], NonEmpty]
    revocation: Annotated[tuple[Text, ...], NonEmpty]
    proof: _Proof = "login"


class PathSchema(YamlModel):
    """What the policy of one task's token allows at one path."""

    path: Text
    capabilities: Annotated[tuple[Capability, ...], NonEmpty]


class TokenSchema(YamlModel):
    """A second Vault token for the caller, with a policy that stands or one for the task alone."""

    policy: VaultName | None = None
    paths: tuple[PathSchema, ...] = ()
    ttl: Seconds | None = None
    num_uses: SmallCount | None = None

    @model_validator(mode="after")
    def _one_policy(self) -> "TokenSchema":
        """It stands, or it is written for the task; a token with both would have two."""
        if (self.policy is None) == (not self.paths):
            raise refusal("takes policy or paths", "write the one that is meant")
        return self


class PkiSchema(YamlModel):
    """A certificate: lives at most `ttl`; with `proof: crl` it is revoked at the task's end."""

    mount: MountPath
    role: Text
    operation: Annotated[Literal["issue", "sign"], FromText] = "issue"
    common_name: Sentence
    alt_names: tuple[Sentence, ...] = ()
    ttl: Seconds
    proof: Annotated[Literal["crl"], FromText] | None = None


class SshSchema(YamlModel):
    """A signed key, which lives at most `ttl`, or a one-time password, which has a lease."""

    mount: MountPath
    role: Text
    operation: Annotated[Literal["sign", "otp"], FromText]
    principals: tuple[Sentence, ...] = ()
    ttl: Seconds | None = None
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

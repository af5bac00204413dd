"""The sections of the configuration file. A setting is a field: its type, its default and one line of help.

A new surface adds one class here and one field to `Config`; checks, hints and schema follow by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PrivateAttr,
    Tag,
    model_validator,
)

from gateway.config.credentials import AgentCredentials
from gateway.config.problems import Loc, Problem, dotted, nearest
from gateway.config.tools import GrantEntry, Mounts, Tools
from gateway.config.values import (
    NAME_SCHEMA,
    BaseUrl,
    Cidr,
    DocumentHost,
    File,
    Host,
    ImportString,
    IssuerUrl,
    Items,
    Listener,
    Name,
    Network,
    Origin,
    PrincipalName,
    Scope,
    StoreUrl,
    TasksUrl,
    Url,
    WebOrigin,
    Words,
    refuse,
)
from gateway.config.vault import VaultSettings

DAY = 86_400.0


class Section(BaseModel):
    # strict: `public: "no"` is a question to the operator, never a True.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Tls(Section):
    """The gateway's own certificate: it then speaks HTTPS only."""

    cert: File = Field(description="PEM file with the certificate and those that vouch for it.")
    key: File = Field(description="PEM file with its private key.")
    client_ca: File | None = Field(
        None,
        description="PEM file with authorities: only clients with a certificate of theirs may connect; all if not set.",
    )


class Server(Section):
    """How clients see the gateway."""

    public_url: BaseUrl | None = Field(
        None, description="URL that clients use; http://HOST:PORT on loopback, required beyond it."
    )
    default_agent: str | None = Field(None, description="Agent at the root; the first of the file if not set.")
    allowed_hosts: Items[Host] = Field((), description="Further Host headers to accept.")
    cors_origins: Items[WebOrigin] = Field((), description="Web origins whose pages may call the gateway.")
    tls: Tls | None = Field(None, description="Certificate and key, to end TLS here.")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="Port for A2A over gRPC; none if not set, 0 for any free one."
    )
    grpc_url: Host | None = Field(
        None, description="host:port that gRPC clients use; public_url's host and grpc_port if not set."
    )
    trusted_proxies: Items[Cidr] = Field(
        (), description="Addresses of the proxies that end TLS; beyond loopback nobody else may connect."
    )
    admin: Listener | None = Field(
        None,
        description="HOST:PORT or unix:/PATH for /admin alone, which is then nowhere else; in the open if not set.",
    )
    # Kubernetes kills after 30 s; what is left of them is for the store to close.
    drain_seconds: float = Field(20.0, ge=0, le=3600, description="Seconds that runs may take to end at shutdown.")


class AgentEntry(Section):
    """What every agent has, whoever does its work."""

    # With runs of 1 s, 64 at a time answer 256 waiting ones within 4 s: before clients give up.
    concurrency: int = Field(64, ge=1, le=10_000, description="Runs at the same time.")
    queue: int = Field(256, ge=0, le=100_000, description="Runs that may wait for a place; more are refused.")
    public: bool = Field(False, description="Whether every authenticated principal may see and call it.")
    deduplicate: bool = Field(True, description="Whether a messageId seen before gets its first answer again.")
    deadline: float = Field(900.0, gt=0, le=7 * DAY, description="Seconds a run may take.")
    extended_card: File | None = Field(None, description="File with the card that authenticated callers get.")
    tenants: Items[Name] = Field((), description="Tenant words that this agent accepts in path and body.")


class LocalAgent(AgentEntry):
    """An agent that runs in the gateway's process."""

    run: ImportString = Field(description="Import string of the agent, module:attribute.")
    card: File = Field(description="File with the agent's card.")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, alias="with", description="The agent's own settings; it validates them."
    )


class RemoteAgent(AgentEntry):
    """An agent behind another A2A server."""

    card_url: Url = Field(description="URL of the agent's card, any version and binding.")
    updates: Literal["stream", "push", "poll"] = Field(
        "stream", description="How it tells of its tasks; where it cannot, the next of stream, push, poll."
    )
    replicas: Items[Url] = Field((), description="URLs of the cards of further servers that are the same agent.")
    balance: Literal["round_robin", "least_loaded"] = Field(
        "round_robin", description="Which of several servers gets a new message."
    )
    require_signature: bool = Field(False, description="Whether its card has to be signed.")
    card_keys: File | None = Field(None, description="File with the JWK set that alone may sign its card.")
    card_keys_url: Url | None = Field(None, description="URL of that set, where it is not in a file.")
    credentials: AgentCredentials | None = Field(None, description="What the agent asks for before it lets us in.")

    @model_validator(mode="after")
    def _checked(self) -> RemoteAgent:
        oauth = None if self.credentials is None else self.credentials.oauth
        if self.replicas and oauth is not None and oauth.grant == "authorization_code":
            raise refuse("replicas and grant: authorization_code exclude each other", "a token is for one address")
        return self


class TasksAgent(AgentEntry):
    """An agent that speaks the older agents/tasks messages, called at a URL or fetching its work."""

    tasks_url: TasksUrl = Field(description="URL that takes the tasks, or pull: a worker fetches them.")
    card: File | None = Field(None, description="File with the agent's card.")
    worker: PrincipalName = Field("", description="Principal that fetches tasks; the agent's id if not set.")


class ToolsAgent(AgentEntry):
    """A set of tools as an agent: each of them is a skill, and the agent has a grant for exactly these."""

    tools: Items[str] = Field(min_length=1, description="Tool servers, or SERVER/PATTERN.")


# The key that makes an agent what it is. It is pydantic's tag too, so a location names the model.
KINDS: Mapping[str, type[AgentEntry]] = {
    "run": LocalAgent,
    "card_url": RemoteAgent,
    "tasks_url": TasksAgent,
    "tools": ToolsAgent,
}


def keys(model: type[BaseModel]) -> list[str]:
    """The keys of a section as the file spells them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def meant_kind(entry: Mapping[str, object]) -> str | None:
    """The kind that the entry names or nearly names: a slip in that key is judged by the kind's own rules."""
    if stated := next((kind for kind in KINDS if kind in entry), None):
        return stated
    every = {key for model in KINDS.values() for key in keys(model)}
    guesses = {nearest(key, every) for key in entry if key not in every}
    return next((kind for kind in KINDS if kind in guesses), None)


def _kind(entry: object) -> str | None:
    if isinstance(entry, AgentEntry):
        return next(kind for kind, model in KINDS.items() if type(entry) is model)
    # Nothing to go by: the first kind stands in, so that the settings all kinds share are still checked.
    return (meant_kind(entry) or next(iter(KINDS))) if isinstance(entry, dict) else None


AnyAgent = Annotated[
    Annotated[LocalAgent, Tag("run")]
    | Annotated[RemoteAgent, Tag("card_url")]
    | Annotated[TasksAgent, Tag("tasks_url")]
    | Annotated[ToolsAgent, Tag("tools")],
    Discriminator(_kind),
]


def _name_workers(agents: dict[str, AnyAgent]) -> dict[str, AnyAgent]:
    unnamed = {name for name, agent in agents.items() if isinstance(agent, TasksAgent) and not agent.worker}
    return agents | {name: agents[name].model_copy(update={"worker": name}) for name in unnamed}


class Introspection(Section):
    """Asking the issuer about each token (RFC 7662), for tokens that only it can read."""

    client_id: str = Field(description="The gateway's own client id at the issuer.")
    client_secret_file: File = Field(description="File with the secret that belongs to it.")
    endpoint: Url | None = Field(None, description="URL to ask; from the issuer's metadata if not set.")


Algorithm = Literal["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]


class Issuer(Section):
    """An identity provider whose access tokens are accepted."""

    issuer: IssuerUrl = Field(description="The issuer, exactly as its tokens have it in `iss`.")
    audience: Words = Field((), description="Values of `aud` that mean this gateway; public_url if not set.")
    algorithms: Items[Algorithm] = Field(
        ("ES256", "EdDSA", "Ed25519", "PS256", "RS256"), description="Signature algorithms to accept."
    )
    token_types: Items[Literal["at+jwt", "JWT"]] = Field(
        ("at+jwt",), description="Values of `typ` to accept; JWT for issuers that do not follow RFC 9068."
    )
    jwks_uri: Url | None = Field(None, description="URL of its keys; from its metadata if not set.")
    roles_claim: Words = Field(("roles",), description="Claim with the roles; a list of names leads into objects.")
    tenant_claim: Words = Field((), description="Claim with the tenant; then every token needs it.")
    required_scopes: Items[Scope] = Field((), description="Scopes that every token must hold.")
    introspection: Introspection | None = Field(None, description="Ask the issuer instead of checking a signature.")
    dpop: Literal["optional", "required"] = Field(
        "optional", description="Whether tokens must be bound to a key (RFC 9449); those that are need their proof."
    )


class LoginProvider(Section):
    """An identity provider where people log in, by OpenID Connect; the gateway is its client."""

    issuer: IssuerUrl = Field(description="The provider, exactly as its ID tokens have it in `iss`.")
    client_id: str = Field(min_length=1, description="The gateway's client id there.")
    client_secret_file: File = Field(description="File with the secret that belongs to it.")
    name: str = Field("", max_length=60, description="What people know it by; its host if not set.")
    scopes: Items[Scope] = Field(("openid",), description="Scopes to ask it for; openid must be one.")
    roles_claim: Words = Field((), description="Claim of the ID token with the person's roles, if they are to count.")
    tenant_claim: Words = Field(
        (), description="Claim of the ID token with the person's tenant; then nobody logs in without it."
    )


class AuthorizationServer(Section):
    """The gateway gives out access tokens itself, to clients made with `gateway clients add` and to people."""

    # An hour at most: a resource server elsewhere learns of no revocation before a token ends.
    token_seconds: int = Field(600, ge=60, le=3600, description="Seconds that an access token lives.")
    algorithm: Literal["ES256", "EdDSA"] = Field("ES256", description="Signature algorithm of its tokens.")
    rotate_days: int = Field(30, ge=2, le=365, description="Days that a key signs; it is published a day before.")
    dpop: Literal["optional", "required"] = Field(
        "optional", description="Whether its tokens must be bound to a key of the client (RFC 9449)."
    )
    users: bool = Field(False, description="Whether users made with `gateway users add` may log in.")
    login: LoginProvider | None = Field(None, description="Identity provider where people may log in.")
    grant_days: int = Field(30, ge=1, le=365, description="Days after which a person is asked again.")
    scopes: Items[Scope] = Field((), description="Scopes that clients may ask people for, beside the clients' own.")
    registration: Literal["off", "invited", "open"] = Field(
        "invited", description="Who may register a client at /oauth/register: nobody, who was invited, or anybody."
    )
    client_documents: Items[DocumentHost] = Field(
        (), description="Hosts whose client ID metadata documents are taken as clients; * for any."
    )


class Cards(Section):
    """The cards that the gateway publishes."""

    sign: bool = Field(True, description="Whether they are signed, with a key that is made in the data folder.")
    algorithm: Literal["ES256", "EdDSA"] = Field("ES256", description="Signature algorithm.")
    rotate_days: int = Field(90, ge=2, le=3650, description="Days that a key signs; it is published a day before.")


class ClientCertificates(Section):
    """Workloads whose certificate a proxy of `server.trusted_proxies` has seen (X-Forwarded-Client-Cert)."""

    trust_domains: Items[Host] = Field(min_length=1, description="SPIFFE trust domains whose workloads may come in.")


class Auth(Section):
    """Who may come in."""

    anonymous: bool = Field(False, description="Whether calls without a credential are let in; loopback only.")
    issuers: Items[Issuer] = Field((), description="Identity providers whose access tokens are accepted.")
    authorization_server: AuthorizationServer | None = Field(
        None, description="Give out access tokens; {} does, with the defaults."
    )
    client_certificates: ClientCertificates | None = Field(
        None, description="Let workloads in by their certificates; needs server.trusted_proxies."
    )


class Push(Section):
    """How webhooks of callers are told about their tasks."""

    challenge: bool = Field(False, description="Whether a webhook must first give a token back, to show its owner.")
    # A night and a day: whoever comes to work in the morning finds nothing lost.
    approvals_url: Url | None = Field(
        None, description="Webhook that is told which calls wait for an approval, and how they were decided."
    )
    give_up_seconds: float = Field(DAY, ge=1, le=7 * DAY, description="Seconds after which an event is given up.")


class Witness(Section):
    """Somebody who signs that the audit log only ever grew (c2sp.org/tlog-witness)."""

    url: Url = Field(description="Where it takes checkpoints, without /add-checkpoint.")
    key: str = Field(description="Its verifier key: NAME+ID+KEY.")


class Audit(Section):
    """Who else is shown that the audit log only ever grew. It is always on."""

    witness_file: File | None = Field(None, description="File elsewhere that gets one checkpoint after the other.")
    witnesses: Items[Witness] = Field((), description="Witnesses that sign the checkpoints, over HTTP.")


class Store(Section):
    """Where tasks, events and the audit log are kept."""

    url: StoreUrl | None = Field(None, description="sqlite:///PATH or memory:; DATA/gateway.db if not set.")
    approvals_days: int = Field(
        90, ge=1, le=3650, description="Days that decided and expired approvals are kept; the audit log keeps them all."
    )


class PolicySettings(Section):
    """The file that says who may do what; it is read again when it changes."""

    file: File | None = Field(None, description="The policy file; without one the default rules hold alone.")
    shadow: File | None = Field(
        None, description="A second one that decides nothing: where it would decide otherwise is written down."
    )


class Compliance(Section):
    """What messages and tools' arguments and results must or must not carry."""

    file: File | None = Field(None, description="The compliance profile; without one nothing is looked at.")


class Egress(Section):
    """What the gateway may connect to, beyond the origins that this file names."""

    allow_loopback: bool = Field(False, description="Whether loopback addresses may be called.")
    allow: Items[Network] = Field((), description="Hosts, host:port or CIDR that may be called, private ones too.")
    deny: Items[Network] = Field((), description="Hosts, host:port or CIDR never to be called; wins over allow.")


class Config(Section):
    """The whole file. Each part of the gateway receives its own section, none receives this."""

    server: Server = Field(default_factory=Server)
    agents: Annotated[dict[Name, AnyAgent], AfterValidator(_name_workers)] = Field(
        default_factory=dict,
        description="The agents by name; each has exactly one of run, card_url, tasks_url and tools.",
        json_schema_extra={"propertyNames": NAME_SCHEMA},  # pydantic leaves the rule for keys out
    )
    tools: Tools = Field(
        default_factory=dict,
        description="MCP servers by name; each has exactly one of url and command.",
        json_schema_extra={"propertyNames": NAME_SCHEMA},
    )
    mounts: Mounts = Field(
        default_factory=dict,
        description="Endpoints /mcp/NAME beside /mcp, which has everything.",
        json_schema_extra={"propertyNames": NAME_SCHEMA},
    )
    grants: Items[GrantEntry] = Field((), description="Who may use which tools, prompts and resources; a list.")
    auth: Auth = Field(default_factory=Auth)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    push: Push = Field(default_factory=Push)
    compliance: Compliance = Field(default_factory=Compliance)
    cards: Cards = Field(default_factory=Cards)
    store: Store = Field(default_factory=Store)
    audit: Audit = Field(default_factory=Audit)
    vault: VaultSettings = Field(default_factory=VaultSettings)
    egress: Egress = Field(default_factory=Egress)

    _origin: Origin = PrivateAttr(default_factory=Origin)

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, Origin):
            self._origin = context

    @property
    def base(self) -> Path:
        """The folder that relative paths and import strings start at."""
        return self._origin.base

    @property
    def name(self) -> str:
        """The file as messages call it."""
        return self._origin.name

    @property
    def default_agent(self) -> str | None:
        """The agent that answers at the root: the one named, else the first of the file."""
        return self.server.default_agent or next(iter(self.agents), None)

    def problem(self, loc: Loc, reason: str, hint: str = "") -> Problem:
        """A problem found later (an unreadable card, a missing module), with its line in the file."""
        return Problem(self.name, self._origin.line(loc), dotted(loc), reason, hint)

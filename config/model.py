"""The typed model of the configuration file. The defaults are in default.yaml, not here.

A docstring of a field's class says units; `config/check.py` checks what types cannot.
"""

from __future__ import annotations

from typing import Literal

from config.runtime import Runtime
from config.section import Section


class Tls(Section, frozen=True, kw_only=True):
    """PEM files. Set, every address of `server.bind` speaks HTTPS."""

    certificate: str
    key: str


class Server(Section, frozen=True, kw_only=True):
    """Addresses (`127.0.0.1:8080`, `[::1]:8080`); one port serves all surfaces."""

    bind: list[str]
    tls: Tls | None = None
    # Seconds that open requests get when the appliance stops.
    grace: float


class Token(Section, frozen=True, kw_only=True):
    """A token from the file: either itself (as `${NAME}`) or the SHA-256 of it, in hex."""

    name: str
    scopes: list[str]
    token: str | None = None
    sha256: str | None = None


class Auth(Section, frozen=True, kw_only=True):
    """`anonymous` names surfaces that need no token."""

    anonymous: list[str]
    tokens: list[Token]


class Limits(Section, frozen=True, kw_only=True):
    """What one client may take. Sizes in bytes, times in seconds."""

    body: int
    header: int
    connections: int
    connections_per_address: int
    subscribers: int
    in_flight_per_socket: int
    requests_per_minute: int
    rate_limit_loopback: bool
    read_timeout: float
    write_timeout: float
    request_timeout: float
    json_depth: int


class Retention(Section, frozen=True, kw_only=True):
    """How much is kept; 0 is without limit."""

    event_days: float
    event_count: int
    gateway_days: float
    recording_days: float
    egress_days: float
    idempotency_hours: float
    # Deliveries that are over, and endpoints that the configuration has no more.
    webhook_days: float


class Log(Section, frozen=True, kw_only=True):
    """The lowest level that is written."""

    level: Literal["debug", "info", "warning", "error"]


class PortRange(Section, frozen=True, kw_only=True):
    """Ports `first` to `last`, both included."""

    first: int
    last: int


class Ports(Section, frozen=True, kw_only=True):
    """Where gateways take their ports from; each gateway gets a slot in all three.

    A slot is two SIP ports (the second is its TLS port), one control port and `rtp_per_gateway`.
    """

    sip: PortRange
    control: PortRange
    rtp: PortRange
    rtp_per_gateway: int


class Ready(Section, frozen=True, kw_only=True):
    """When a gateway counts as up.

    `control`: its channel answers; `line`: its output has a line that matches `pattern`;
    `result`: its output has a JSON line; `running`: it has run for `seconds` without ending.
    """

    when: Literal["control", "line", "result", "running"]
    pattern: str = ""
    seconds: float = 0.5
    timeout: float = 10.0


class Stop(Section, frozen=True, kw_only=True):
    """How it is stopped: the signal to its group, or none where the control channel can quit."""

    signal: Literal["TERM", "INT", "QUIT", "HUP"] = "TERM"
    grace: float = 5.0


class RestartRule(Section, frozen=True, kw_only=True):
    """`permanent`: always; `transient`: unless it ended with status 0; `temporary`: never.

    Past `limit` restarts in `seconds` it is left down.
    """

    policy: Literal["permanent", "transient", "temporary"] = "permanent"
    limit: int = 5
    seconds: float = 60.0
    backoff_first: float = 0.5
    backoff_cap: float = 30.0


class Watch(Section, frozen=True, kw_only=True):
    """The control channel is asked every `every` seconds; `misses` answers missing: killed."""

    every: float = 10.0
    timeout: float = 5.0
    misses: int = 2


class ProfileLimits(Section, frozen=True, kw_only=True):
    """`instances`: gateways of this profile at once. The others are rlimits; 0 is none."""

    instances: int = 200
    memory_mb: int = 0
    open_files: int = 0
    nice: int = 0


class Stream(Section, frozen=True, kw_only=True):
    """How the call's sound becomes an RTMP stream: size and rate of the still picture."""

    picture: str = ""
    width: int = 640
    height: int = 360
    rate: int = 5


class Container(Section, frozen=True, kw_only=True):
    """The engine's command and what is given to it; `command` runs inside."""

    image: str
    engine: str = "docker"
    options: list[str] = []
    exec: list[str] = []


class Profile(Section, frozen=True, kw_only=True):
    """What a `main_app` stands for.

    Strings in `command`, `env`, `files` and `container` may hold `{field}`: the fields of the start
    request and `{gw_id}`, `{address}`, `{sip_port}`, `{control_port}`, `{rtp_first}`, `{rtp_last}`,
    `{folder}`, `{recordings}`. `folder` is the working folder (default: the gateway's own).
    """

    description: str = ""
    command: list[str] = []
    env: dict[str, str] = {}
    folder: str = ""
    files: dict[str, str] = {}
    ready: Ready
    control: Literal["none", "ctrl_tcp", "lines"] = "none"
    watch: Watch = Watch()
    stop: Stop = Stop()
    restart: RestartRule = RestartRule()
    limits: ProfileLimits = ProfileLimits()
    record: bool = False
    stream: Stream | None = None
    use_container: bool = False
    container: Container | None = None


class Transcribe(Section, frozen=True, kw_only=True):
    """The command that turns a recording (`{file}`) into text on its standard output.

    A line `progress N` on standard error says that N per cent are done.
    """

    command: list[str]
    timeout: float


class Gateways(Section, frozen=True, kw_only=True):
    """The fleet of SIP media gateways."""

    address: str
    ports: Ports
    profiles: dict[str, Profile]
    transcribe: Transcribe
    # Seconds a stopped gateway's actor stays before it is put away.
    linger: float
    # Starts under way at once; more wait their turn.
    starting_at_once: int
    # Hosts that `rtmp_dst` may name, with `*` as a wildcard.
    stream_hosts: list[str]


class Source(Section, frozen=True, kw_only=True):
    """Where a user's picture and sound come from.

    `url`: `rtsp:`, `rtmp:`, `srt:`, `http(s):` (HLS), `file:PATH`, `gateway:GW_ID` (the sound of
    its call) or `test:NAME`; `{channel}`, `{user}`, `{app_id}`, `{task_id}`, `{access_token}` and
    `{workerUid}` are filled in, quoted. `listen`: wait to be called (RTMP, RTSP, SRT). `options`
    are ffmpeg's for the input.
    """

    url: str
    listen: bool = False
    loop: bool = False
    options: list[str] = []


class Channel(Section, frozen=True, kw_only=True):
    """Its users by name; `*` is everybody else."""

    users: dict[str, Source]


class Cost(Section, frozen=True, kw_only=True):
    """What a task is expected to take: cores, MiB of memory, KiB a second to the disk."""

    cpu: float
    memory_mb: float
    disk_kb: float


class Capacity(Section, frozen=True, kw_only=True):
    """What all tasks together may take; 0 is what the machine has (disk: without limit)."""

    cpu: float
    memory_mb: float
    disk_kb: float


class EgressLimits(Section, frozen=True, kw_only=True):
    """Tasks at once, of all kinds and of each, and how many may wait."""

    tasks: int
    record: int
    snapshot: int
    page: int
    waiting: int


class Upload(Section, frozen=True, kw_only=True):
    """An S3-compatible bucket for what tasks make; the keys as `${NAME}` or `${file:PATH}`.

    `endpoint` empty is AWS's. `keep_local` false: what was uploaded is deleted here. `path_style`:
    the bucket is part of the path and not of the host, as most servers of one's own want it.
    """

    bucket: str
    endpoint: str = ""
    prefix: str = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    keep_local: bool = True
    path_style: bool = True


class Egress(Section, frozen=True, kw_only=True):
    """Recordings and snapshots of channels and web pages. Times in seconds."""

    # Stands for `{region}` in names of files.
    region: str
    # By name; `*` is any other.
    channels: dict[str, Channel]
    limits: EgressLimits
    capacity: Capacity
    # By kind: record, snapshot, page.
    costs: dict[str, Cost]
    # Less free than this, in MiB: nothing is claimed.
    disk_free_mb: float
    # Not claimed within this: TIMEOUT.
    claim_timeout: float
    lease: float
    renew: float
    look_every: float
    # How often a task whose worker was lost is claimed again.
    retries: int
    # A recording ends at the latest after this, whatever the request says.
    max_duration: float
    # A user who sent nothing for so long is shown as gone.
    gone_after: float
    # An encoder that does not get on is started again.
    stalled_after: float
    # All users gone for so long: the recording ends.
    idle_timeout: float
    # How often progress is an event.
    progress_every: float
    # Hosts that `rtmp_dst` and a page's addresses may name, with `*` as a wildcard.
    rtmp_hosts: list[str]
    page_hosts: list[str]
    # May a page be on this machine or in a private network without its host being named?
    page_private: bool
    upload: Upload | None


class Webhook(Section, frozen=True, kw_only=True):
    """An endpoint that is told of events by HTTP, signed as standardwebhooks.com has it.

    `secret` is `whsec_` and base64, or several while keys are changed. `topics` are those of `/ws`.
    `body`: the whole `event`, or its `data` alone. Times in seconds; the first try is one of the
    `attempts`. Of the topics in `once` a subject is told the first only, within `once_hours`.
    """

    url: str
    secret: str | list[str]
    topics: list[str]
    body: Literal["event", "data"] = "event"
    enabled: bool = True
    timeout: float = 15.0
    attempts: int = 5
    backoff_first: float = 15.0
    backoff_cap: float = 300.0
    # Deliveries under way at once, each of another subject.
    concurrency: int = 8
    headers: dict[str, str] = {}
    once: list[str] = []
    once_hours: float = 48.0


class Calls(Section, frozen=True, kw_only=True):
    """Call sessions. Times in seconds, unless said otherwise."""

    # A call that has no event for so long is ended as failed.
    idle_timeout: float
    # Events are taken for so long after the end.
    late: float
    # Calls whose number is of no tenant are kept for so many days; 0: for ever.
    retention_days: float
    # Calls at once, and what one batch of events may have.
    live: int
    batch_events: int
    batch_bytes: int
    # A pause between utterances that counts as silence.
    silence: float


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    state: str
    server: Server
    auth: Auth
    limits: Limits
    retention: Retention
    log: Log
    gateways: Gateways
    egress: Egress
    webhooks: dict[str, Webhook]
    runtime: Runtime
    calls: Calls

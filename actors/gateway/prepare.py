"""From a gateway's row and its profile to a launch that is ready to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from actors.gateway import recording, render, stream
from actors.gateway.container import Engine
from actors.gateway.control import Lines
from actors.gateway.launch import Launch
from actors.gateway.messages import Json
from actors.gateway.ports import assigned, slots
from actors.gateway.records import Record
from actors.gateway.runner import ContainerRunner, ProcessRunner
from actors.gateway.services import Services
from config.model import Profile
from supervisor.errors import Rejected


def profile_of(services: Services, main_app: str) -> Profile:
    """The profile that a `main_app` names. Raises Rejected `invalid`."""
    profiles = services.settings().profiles
    profile = profiles.get(main_app)
    if profile is None:
        known = ", ".join(sorted(profiles))
        raise Rejected("invalid", f"main_app: no profile {main_app!r}; there are: {known}")
    return profile


def check_request(services: Services, profile: Profile, request: Json) -> None:
    """What can be refused before anything is started. Raises Rejected `invalid`."""
    render.check_fields(request)
    destination = request.get("rtmp_dst")
    if profile.stream is not None and not destination:
        raise Rejected("invalid", "rtmp_dst: this profile needs one")
    if destination and profile.stream is not None:
        stream.check_destination(str(destination), services.settings().stream_hosts)


def prepare(
    record: Record,
    services: Services,
    owner: str,
    on_event: Callable[[Json], Awaitable[None]],
) -> Launch:
    """Render the profile and write its files. Raises Rejected or OSError."""
    settings = services.settings()
    profile = profile_of(services, record.main_app)
    if record.slot is None:
        raise Rejected("no_ports", "no ports are set aside for this gateway")
    if record.slot >= slots(settings.ports):
        raise Rejected("slot_gone", "its ports are outside the ranges of the configuration now")
    ports = assigned(settings.ports, record.slot)
    folder = services.run_folder(record.gw_id)
    recordings = services.session_folder(record.gw_id, record.session)
    if profile.record:
        recordings.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What one that died has left must not be overwritten by the next, in the same second.
        recording.take(recordings)
    values = render.fields(record.request, settings.address, ports, folder, recordings)
    rendered = render.render(profile, record.request, values, folder)
    render.write_files(rendered, folder)
    # baresip cuts the names of its files at 128 characters: it gets a short way to the folder.
    shortcut = folder / "recordings"
    shortcut.unlink(missing_ok=True)
    shortcut.symlink_to(recordings)
    launch = Launch(profile, record.gw_id, settings.address, ports, on_event)
    launch.hidden = render.secrets(record.request)
    if profile.use_container and profile.container is not None:
        engine = Engine(profile.container, services.registry.instance, record.gw_id)
        launch.runner = ContainerRunner(
            profile, rendered, values, engine, owner, services.registry, launch.take_line
        )
    else:
        launch.runner = ProcessRunner(profile, rendered, owner, services.registry, launch.take_line)
        if profile.control == "lines":
            launch.lines = Lines(launch.runner.send)
    return launch

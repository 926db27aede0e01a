"""What `serve` hands to the supervisor: which processes to run and what to say when they are ready. Plain data, no Django."""

import json
import os
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process to keep running."""

    name: str
    kind: str
    """`serving`, `worker` or `beat`."""
    roles: str
    """With commas between, as the child reads them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole installation on this machine."""

    children: tuple[ChildPlan, ...]
    program: tuple[str, ...]
    """The command that runs a child; its arguments are appended."""
    listen_fd: int = -1
    """The bound socket of the serving children, or -1."""
    keep_fds: tuple[int, ...] = ()
    """Locks that last as long as the supervisor and its children."""
    probe: str = ""
    """Address that answers 200 when calls can be served; empty without a serving child."""
    banner: tuple[str, ...] = ()
    ready: str = "Switchyard is ready"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Lines shown once: with the banner or, if the start fails after they were made, then."""
    start_seconds: float = 90.0

    def to_pipe(self) -> int:
        """Write the plan into a pipe, so that no secret in it is seen in a process list or on a disk; return its reading end."""
        text = json.dumps(asdict(self)).encode()
        if len(text) > 60_000:
            raise ValueError("The plan is larger than a pipe holds.")
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        os.set_inheritable(reading, True)
        return reading

    @classmethod
    def from_pipe(cls, fd: int) -> "Plan":
        """Read what `to_pipe` wrote."""
        with os.fdopen(fd, "rb") as pipe:
            fields = json.loads(pipe.read())
        for name in ("program", "keep_fds", "banner", "secrets"):
            fields[name] = tuple(fields[name])
        fields["children"] = tuple(ChildPlan(**child) for child in fields["children"])
        return cls(**fields)


def children_for(roles: frozenset[str], workers: int) -> tuple[ChildPlan, ...]:
    """Return the processes that carry out `roles`; `workers` is the number of those that serve or, without, that run tasks."""
    if roles == {"all"}:
        if workers == 1:
            return (ChildPlan("serve", "serving", "all"),)
        roles = frozenset({"web", "gateway", "worker", "beat"})
    serving = ",".join(role for role in ("web", "gateway") if role in roles)
    children: list[ChildPlan] = []
    if serving:
        children += _numbered(serving.replace(",", "-"), "serving", serving, workers)
    if "worker" in roles:
        children += _numbered("worker", "worker", "worker", 1 if serving else workers)
    if "beat" in roles:
        children.append(ChildPlan("beat", "beat", "beat"))
    return tuple(children)


def _numbered(name: str, kind: str, roles: str, count: int) -> list[ChildPlan]:
    if count == 1:
        return [ChildPlan(name, kind, roles)]
    return [ChildPlan(f"{name}-{number}", kind, roles) for number in range(1, count + 1)]

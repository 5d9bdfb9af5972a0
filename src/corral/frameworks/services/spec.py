"""How the services framework is set up.

What an app asks for is in `app_spec.py`, what is kept in `record_spec.py`, what can be told in `command_spec.py`.
"""

import msgspec


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """How the services framework works. Units: seconds.

    Shapes: `volume_role` is what persistent volumes are reserved for, empty for `role`, or `services` when that is `*`;
    `principal` is the name of the token that it shows to the master, if any, and reserves under; with
    `enforce_group_roles` new groups at the top enforce their roles unless they say otherwise; with `use_reserved` apps
    that do not say on which resources they run use what is reserved for their role too;
    `address` is the `host:port` under which this API is reached; `env_prefix` goes before the names of port
    variables and HOST; `most_writes` bounds the records that one input may touch in bulk work.
    """

    name: str = "services"
    user: str = "root"
    role: str = "*"
    volume_role: str = ""
    enforce_group_roles: bool = False
    use_reserved: bool = True
    principal: str = ""
    address: str = "127.0.0.1:4680"
    scheme: str = "http"
    hostname: str = ""
    failover_timeout_s: float = 604800.0
    first_service_port: int = 10000
    last_service_port: int = 20000
    env_prefix: str = ""
    webhook_secret_file: str = ""
    default_network: str | None = None
    most_deployments: int = 100
    most_versions: int = 50
    most_outcomes: int = 100
    most_apps_per_request: int = 500
    most_instances: int = 100_000
    most_writes: int = 64
    launch_timeout_s: float = 300.0
    single_stop_after_s: float = 300.0
    kill_retry_s: float = 30.0
    drain_s: float = 30.0

    @property
    def reserved_role(self) -> str:
        """Nothing can be reserved for everybody, so the role of what has volumes may be another one."""
        return self.volume_role or (self.role if self.role != "*" else "services")

"""The settings of dev, staging and production: databases, hosts, and the way to deploy."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from release_tasks.errors import Problem, Refused, refuse
from release_tasks.values import Command, Model, Origin, Seconds, Text, dsn_problems, unset_problems

Word = Annotated[str, Field(pattern=r"^([^{}]|\{(version|tag|commit|image)\})*$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Tool(Model):
    """A tool that deploys, as Kamal or kubectl: its commands may hold {version}, {tag}, {commit} and {image}."""

    deploy: list[Word] = Field([], description="makes a release live, and ends well only when it is")
    running: list[str] = Field([], description="prints what runs: the version, tag, commit or image of a release")
    rollback: list[Word] = Field([], description="makes an earlier release live again; empty: deploy")
    image: Word = Field("", description="what {image} stands for, as registry.example/app:{version}")

    @model_validator(mode="after")
    def says_what_runs(self) -> Self:
        if bool(self.deploy) != bool(self.running):
            raise ValueError("deploy and running belong together: what was deployed is seen to run")
        if any("{image}" in word for word in [*self.deploy, *self.rollback]) and not self.image:
            raise ValueError("a command has {image}, and image does not say which")
        return self


class Environment(Model):
    """A database, a web app and jobs. Without `dsn` it is embedded: all of it runs in .release/."""

    dsn: str = Field("", description="the database, as a URL or words of libpq; its password as ${NAME}")
    origin: Origin = Field("", description="http:// or https://, a host, perhaps a port")
    log: str = Field("", description="PostgreSQL's server log, for the check on SQL warnings")
    folder: str = Field("", description="where a host keeps releases; an absolute path on other hosts")
    restart: list[str] = Field([], description="starts what `current` names; with colours {service} of {colour}")
    stop: list[str] = Field([], description="with colours: stops {service} of {colour}")
    colours: dict[str, Port] = Field({}, description="two colours behind nginx, with their ports")
    nginx: Command = Field(["nginx"], description="the command for -t and -s reload")
    front: Origin = Field("", description="where a host answers itself; default: origin, http://127.0.0.1 on others")
    drain: Seconds = Field(30, description="seconds that requests may take after a flip")
    hosts: list[Text] = Field([], description="what ssh reaches, as deploy@app1 or ssh://app1:2222; none: this machine")
    ssh: Command = Field(["ssh"], description="the command, perhaps with options as -F FILE")
    inventory: str = Field("", description="of Ansible, in place of hosts")
    limit: Text = Field("all", description="which hosts of the inventory, as --limit of Ansible: web:!old")
    batches: list[PositiveInt] = Field([1, 50], min_length=1, description="hosts switched at once, batch by batch")
    tool: Tool = Field(Tool(), description="somebody else's tool, in place of folder, restart and hosts")

    @model_validator(mode="after")
    def one_way_to_deploy(self) -> Self:
        if len(self.colours) not in (0, 2) or len(set(self.colours.values())) != len(self.colours):
            raise ValueError("colours has to name two, each with a port of its own, as {blue: 3001, green: 3002}")
        ways = [key for key in ("hosts", "inventory", "tool") if getattr(self, key) not in ([], "", Tool())]
        if len(ways) > 1 or (ways == ["tool"] and (self.folder or self.restart or self.colours)):
            raise ValueError(f"{' and '.join(ways)} cannot be set with another way to deploy: one gets the release")
        if ways in (["hosts"], ["inventory"]) and not self.folder.startswith(("/", "${")):
            raise ValueError(f"folder is {self.folder!r}; expected an absolute path, as it is on other hosts")
        return self

    @property
    def embedded(self) -> bool:
        return not self.dsn


class Environments(Model):
    """The three environments of a release."""

    dev: Environment = Field(Environment(), description="where section 2 tries everything first")
    staging: Environment = Field(Environment(), description="gets the release in section 7")
    production: Environment = Field(Environment(), description="gets the release in section 8")

    @model_validator(mode="after")
    def complete(self) -> Self:
        for name, environment in self:
            given = [key for key, value in environment if value and key in environment.model_fields_set]
            needed = ["dsn", "origin"] if name == "dev" else ["dsn", "origin", "log"]
            needed += [] if name == "dev" or environment.tool.deploy else ["folder", "restart"]
            needed += ["stop"] if environment.colours else []
            if given and (missing := [key for key in needed if key not in given]):
                what = f"{name} has {', '.join(given)}, but no {', '.join(missing)}"
                raise ValueError(f"{what}; only one with nothing set is embedded")
        return self

    def problems(self, name: str) -> list[Problem]:
        """Return which variables of the environment `name` are not set, or that its DSN cannot be read."""
        path, environment = f"release.environments.{name}", getattr(self, name)
        unset = [problem for key, value in environment for problem in unset_problems(f"{path}.{key}", str(value))]
        return unset or dsn_problems(f"invoke.yaml, {path}.dsn", environment.dsn)

    def named(self, name: str) -> Environment:
        """Return the environment `name`. Raises `Refused` where there is none, or it has `problems`."""
        if name not in type(self).model_fields:
            raise Refused(f"There is no environment {name!r}; expected dev, staging or production.")
        refuse(self.problems(name))
        found: Environment = getattr(self, name)
        return found

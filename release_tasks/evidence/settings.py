"""The settings of section 9: who signs and stamps the evidence pack, who may decrypt it, where its copies go."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator


class Place(BaseModel, extra="forbid", frozen=True):
    """A folder, or two commands: one sends a file away, one brings it back to be compared."""

    folder: str = Field("", description="a folder; the one above it has to be there, as a disk that is mounted")
    send: list[str] = Field([], description="command, as [rclone, copyto, '{file}', 'vault:packs/{name}']")
    fetch: list[str] = Field([], description="the way back, as [rclone, copyto, 'vault:packs/{name}', '{file}']")

    @model_validator(mode="after")
    def is_one_kind(self) -> Self:
        if self.folder and not (self.send or self.fetch):
            return self
        if self.folder or not all("{file}" in "".join(command) for command in (self.send, self.fetch)):
            raise ValueError("expected a folder, or both send and fetch, each with {file}")
        return self

    def __str__(self) -> str:
        return self.folder or " ".join(self.send)


FolderOrCommands = Annotated[
    Place, BeforeValidator(lambda it: {"folder": it} if isinstance(it, str) else it, json_schema_input_type=str | Place)
]


class Evidence(BaseModel, extra="forbid", frozen=True):
    """Section 9. Keys and certificates are named by path; a secret key stays where it is."""

    signing_key: str = Field("", description="ssh key that signs the pack; NAME.pub beside it, or the agent's .pub")
    authorities: dict[str, str] = Field({}, description="URL of an RFC 3161 timestamp authority → its CA's PEM file")
    recipients: list[str] = Field([], description="public keys of age, as age1…: who may decrypt the copy")
    places: list[FolderOrCommands] = Field([], description="where copies of the pack go")

"""The settings of section 9: who signs and stamps the evidence pack, who may decrypt it, where its copies go."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _names_the_file(command: list[str]) -> list[str]:
    if not any("{file}" in word for word in command):
        raise ValueError("expected a command with {file}, as [rclone, copyto, '{file}', 'vault:packs/{name}']")
    return command


Command = Annotated[list[str], AfterValidator(_names_the_file)]
Place = str | tuple[Command, Command]  # a folder; or what sends a file away, and what brings it back


class Evidence(BaseModel, extra="forbid", frozen=True):
    """Section 9. Keys and certificates are named by path; a secret key stays where it is."""

    signing_key: str = Field("", description="ssh key that signs the pack; NAME.pub beside it, or the agent's .pub")
    authorities: dict[str, str] = Field({}, description="URL of an RFC 3161 timestamp authority → its CA's PEM file")
    recipients: list[str] = Field([], description="public keys of age, as age1…: who may decrypt the copy")
    places: list[Place] = Field([], description="folders, or pairs of commands, that copies of the pack go to")

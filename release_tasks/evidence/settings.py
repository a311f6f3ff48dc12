"""The settings of section 9: who signs and stamps the evidence pack, who may decrypt it, where its copies go."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from release_tasks.values import Model

PAIR = "[[rclone, copyto, '{file}', 'vault:{name}'], [rclone, copyto, 'vault:{name}', '{file}']]"


def _is_a_place(value: Any) -> Any:
    """Return `value`, unless it is none: pydantic would speak of each type of the union."""
    pair = value if isinstance(value, list | tuple) else ()
    if not isinstance(value, str) and [isinstance(it, list) and "{file}" in str(it) for it in pair] != [True, True]:
        raise ValueError(f"expected a folder, or two commands with {{file}}, as {PAIR}")
    return value


# A folder; or what sends a file away, and what brings it back
Place = Annotated[str | tuple[list[str], list[str]], BeforeValidator(_is_a_place)]


class Filing(Model):
    """A filing with an office such as INPI; what is about persons stands in a file that git does not have."""

    include: list[str] = Field([], description="patterns of the source that is deposited, such as src/**/*.ts")
    codes: list[Annotated[str, Field(pattern=r"^[A-Z]{2}\d{2}$")]] = Field(
        [], description="INPI's, two letters and two digits, as FN01 and AP01"
    )
    private: str = Field("", description="JSON file outside the repo or in .release/: holder, authors, dates, numbers")


class Evidence(Model):
    """Section 9. Keys and certificates are named by path; a secret key stays where it is."""

    signing_key: str = Field("", description="ssh key that signs the pack; NAME.pub beside it, or the agent's .pub")
    authorities: dict[str, str] = Field({}, description="URL of an RFC 3161 timestamp authority → its CA's PEM file")
    recipients: list[str] = Field([], description="public keys of age, as age1…: who may decrypt the copy")
    places: list[Place] = Field([], description="folders, or pairs of commands, that copies of the pack go to")
    filing: Filing = Field(Filing(), description="what is deposited at an office, and what its form is filled from")

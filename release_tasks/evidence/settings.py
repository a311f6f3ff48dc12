"""The settings of section 9: who signs and stamps the evidence pack, who may decrypt it, where its copies go."""

import re
from os.path import expanduser
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from release_tasks.masks import USERINFO, passwords_in
from release_tasks.values import Model

PAIR = "[[rclone, copyto, '{file}', 'vault:{name}'], [rclone, copyto, 'vault:{name}', '{file}']]"


def _is_a_place(value: Any) -> Any:
    """Return `value`, unless it is none: pydantic would speak of each type of the union."""
    pair = value if isinstance(value, list | tuple) else ()
    if not isinstance(value, str) and [isinstance(it, list) and "{file}" in str(it) for it in pair] != [True, True]:
        raise ValueError(f"expected a folder, or two commands with {{file}}, as {PAIR}")
    return value


def token_name(url: str) -> str:
    """Return where a pack has the reply of the authority at `url`."""
    return f"anchors/{re.sub('[^a-zA-Z0-9]+', '-', url.partition('://')[2]).strip('-')}.tsr"


def _have_names(urls: dict[str, str]) -> dict[str, str]:
    if any("${" in url or USERINFO.search(url) or passwords_in(url) for url in urls):
        raise ValueError("expected URLs without user, password and ${…}: files in the pack are named after them")
    if len({token_name(url).casefold() for url in urls}) < len(urls):
        raise ValueError("the stamps of two would have one name: they differ only in case, punctuation or scheme")
    return urls


File = Annotated[str, AfterValidator(expanduser)]
Authorities = Annotated[dict[str, File], AfterValidator(_have_names)]
# A folder; or what sends a file away, and what brings it back
Place = Annotated[File | tuple[list[str], list[str]], BeforeValidator(_is_a_place)]


class Filing(Model):
    """A filing with an office such as INPI; what is about persons stands in a file that git does not have."""

    include: list[str] = Field([], description="patterns of the source that is deposited, such as src/**/*.ts")
    codes: list[Annotated[str, Field(pattern=r"^[A-Z]{2}\d{2}$")]] = Field(
        [], description="INPI's, two letters and two digits, as FN01 and AP01"
    )
    private: File = Field("", description="JSON file outside the repo or in .release/: holder, authors, dates, numbers")


class Evidence(Model):
    """Section 9. Keys and certificates are named by path; a secret key stays where it is."""

    signing_key: File = Field("", description="ssh key that signs the pack; NAME.pub beside it, or the agent's .pub")
    authorities: Authorities = Field({}, description="URL of an RFC 3161 timestamp authority → its CA's PEM file")
    recipients: list[str] = Field([], description="public keys of age, as age1…: who may decrypt the copy")
    places: list[Place] = Field([], description="folders, or pairs of commands, that copies of the pack go to")
    filing: Filing = Field(Filing(), description="what is deposited at an office, and what its form is filled from")

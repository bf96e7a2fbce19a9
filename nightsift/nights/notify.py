"""Who is told of trouble, and how: table ``[notify]`` of the survey file. No secret stands in it."""

from __future__ import annotations

from pydantic import Field, field_validator

from nightsift.configuration import Section


class NotifyOptions(Section):
    """Who is told of trouble."""

    command: tuple[str, ...] = Field((), description="program and its arguments; the text comes on its standard input")
    urls_env: tuple[str, ...] = Field(
        (), description="environment variables that hold addresses of apprise, with blanks between them"
    )
    urls_file: str = Field("", description="file of addresses of apprise, one a line, kept beside no repository")
    blocks: tuple[str, ...] = Field((), description="notification blocks of Prefect, as slack-webhook/operators")

    @field_validator("urls_env")
    @classmethod
    def _names_of_variables(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any("://" in name for name in names):
            raise ValueError("an address may hold a password | name the environment variable that holds it")
        return names

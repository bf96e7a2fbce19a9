"""Who is told of trouble, and how: table ``[notify]`` of the survey file. No secret stands in it."""

from __future__ import annotations

from pydantic import Field, model_validator

from nightsift.configuration import Section


class Email(Section):
    """A mail server that takes messages."""

    server: str = Field(min_length=1, description="host name of the mail server")
    port: int = Field(587, ge=1, le=65535, description="its port")
    sender: str = Field(min_length=3, description="address that messages come from")
    to: tuple[str, ...] = Field(min_length=1, description="addresses that they go to")
    user: str = Field("", description="user of the mail server; empty for none")
    password_env: str = Field("", description="environment variable that holds the password")
    tls: bool = Field(True, description="whether the connection is encrypted (STARTTLS)")

    @model_validator(mode="after")
    def _password_for_the_user(self) -> Email:
        if bool(self.user) != bool(self.password_env):
            raise ValueError(
                "user and password_env belong together | name the environment variable, never the password"
            )
        if self.user and not self.tls:
            raise ValueError("a password would go over the wire in clear | tls = true")
        return self


class NotifyOptions(Section):
    """Who is told of trouble."""

    command: tuple[str, ...] = Field((), description="program and its arguments; the text comes on its standard input")
    email: Email | None = Field(None, description="mail server and addresses")
    webhook_env: str = Field(
        "", description="environment variable that holds the address of a webhook of Slack or its like"
    )
    blocks: tuple[str, ...] = Field((), description="notification blocks of Prefect, as slack-webhook/operators")

"""`jobmill completion`: what a shell needs to complete command lines."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from jobmill.cli.output import write


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell.")],
) -> None:
    """Print the completions for a shell.

    bash: jobmill completion bash > ~/.local/share/bash-completion/completions/jobmill
    zsh:  jobmill completion zsh > "${fpath[1]}/_jobmill"
    fish: jobmill completion fish > ~/.config/fish/completions/jobmill.fish
    """
    from jobmill.cli.command import command_line

    write(command_line().generate_completion(prog_name="jobmill", shell=shell))

"""`amqpflow completion SHELL`: print the completion script of a shell."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete amqpflow's commands, options and files.

    \b
        bash   echo 'eval "$(amqpflow completion bash)"' >> ~/.bashrc
        zsh    echo 'eval "$(amqpflow completion zsh)"' >> ~/.zshrc
        fish   amqpflow completion fish > ~/.config/fish/completions/amqpflow.fish
    """
    from click.shell_completion import get_completion_class

    from amqpflow.cli.main import amqpflow

    found = get_completion_class(shell)
    if found is None:  # click has all three
        raise click.UsageError(f"unknown shell {shell}; use bash, zsh or fish")
    # the template alone: source() of bash starts a bash to ask for its version
    script = found(amqpflow, {}, "amqpflow", "_AMQPFLOW_COMPLETE")
    click.echo(script.source_template % script.source_vars())

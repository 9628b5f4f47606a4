"""`quantbench completion`: the script that teaches a shell to complete quantbench's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from quantbench.cli.options import debug_option

__all__ = ["completion"]


@click.command(epilog='Example: eval "$(quantbench completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    Put the example's line into ~/.bashrc or ~/.zshrc, or for fish run
    `quantbench completion fish > ~/.config/fish/completions/quantbench.fish`.
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.ClickException(f"click has no completion for {shell}")
    click.echo(script(context.find_root().command, {}, "quantbench", "_QUANTBENCH_COMPLETE").source())

"""``harp completion``: the script by which a shell completes this command."""

from __future__ import annotations

import click

from harp.cli import shells


@click.command()
@click.argument("shell", type=click.Choice(shells.SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes harp's commands, options and names.

    Names of hosts, procedures, queues and jobs are asked from the dispatcher as you type.

    \b
    bash   echo 'source <(harp completion bash)' >> ~/.bashrc
    zsh    harp completion zsh > ~/.zfunc/_harp     (with ~/.zfunc in fpath)
    fish   harp completion fish > ~/.config/fish/completions/harp.fish
    """  # noqa: D301 - click takes the character itself
    click.echo(shells.script(context.find_root().command, shell), nl=False)

"""`cni-py completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_PROGRAM = "cni-py"
_VARIABLE = "_CNI_PY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print what has SHELL complete commands, options, networks and containers.

    \b
    bash: cni-py completion bash >/etc/bash_completion.d/cni-py
    zsh:  cni-py completion zsh >/usr/local/share/zsh/site-functions/_cni-py
    fish: cni-py completion fish >/etc/fish/completions/cni-py.fish
    """
    maker = get_completion_class(shell)
    assert maker is not None
    script = maker(ctx.find_root().command, {}, _PROGRAM, _VARIABLE)
    # source() would run bash to ask for its version.
    click.echo((script.source_template % script.source_vars()).rstrip())

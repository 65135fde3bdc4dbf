"""`sharedlabel completion SHELL`: a script that completes commands, options, names of plugins and files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sharedlabel.cli.completion import scripts
from sharedlabel.cli.completion.words import places
from sharedlabel.config.arguments import Parser, one_of
from sharedlabel.errors import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 2 for what the user can fix."""
    return guarded(lambda: _main(arguments), "nothing was written")


def parser() -> Parser:
    """Return the parser of the command line."""
    built = Parser(
        "sharedlabel completion",
        'Print a script that completes commands in a shell. In ~/.bashrc: eval "$(sharedlabel completion bash)"; in '
        '~/.zshrc, after compinit: eval "$(sharedlabel completion zsh)"; in ~/.config/fish/config.fish: '
        "sharedlabel completion fish | source. It knows the plugins that were there when it was printed.",
    )
    built.add_argument("shell", type=one_of(*scripts.SHELLS), help=", ".join(scripts.SHELLS))
    return built


def _main(arguments: Sequence[str] | None) -> None:
    shell = parser().parse_args(arguments).shell
    print(scripts.SHELLS[shell](places()), end="")


if __name__ == "__main__":
    sys.exit(main())

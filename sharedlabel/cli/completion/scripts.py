"""Scripts for bash, zsh and fish, from what may stand where in a command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

from sharedlabel.cli.completion.words import Option, Place, Slot

_BASH = """\
# Completion of sharedlabel in bash; in ~/.bashrc: eval "$(sharedlabel completion bash)"
_sharedlabel() {
    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" at='' words='' files='' word quoted
    if [[ $current == '=' ]]; then  # bash makes three words of --option=value
        current=''
    elif [[ $before == '=' ]]; then
        before="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at/$word" in
            @PATHS@) at="${at:+$at/}$word" ;;
        esac
    done
    case "$at $before" in
@VALUES@
        *) case "$at ${current:0:1}" in
@PLACES@
        esac ;;
    esac
    COMPREPLY=()
    while IFS= read -r word; do
        printf -v quoted %q "$word"
        if [[ -n $word && ( $word == "$current"* || $quoted == "$current"* || $word == "[$current"* ) ]]; then
            COMPREPLY+=("$quoted")
        fi
    done <<< "$words"
    if [[ -n $files ]]; then
        compopt -o filenames
        while IFS= read -r word; do
            COMPREPLY+=("$word")
        done < <(compgen -d -- "$current"; compgen -f -X "!$files" -- "$current")
    fi
}
complete -F _sharedlabel sharedlabel
"""

_ZSH = """\
#compdef sharedlabel
# Completion of sharedlabel in zsh; in ~/.zshrc, after compinit: eval "$(sharedlabel completion zsh)"
_sharedlabel() {
    local at='' before="${words[CURRENT-1]}" word
    local -a commands options
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "$at/$word" in
            @PATHS@) at="${at:+$at/}$word" ;;
        esac
    done
    if [[ $PREFIX == --*=* ]]; then
        before="${PREFIX%%=*}"
        compset -P '*='
    fi
    case "$at $before" in
@VALUES@
    esac
    case "$at" in
@PLACES@
    esac
}
if [[ "${funcstack[1]}" == _sharedlabel ]]; then
    _sharedlabel "$@"
else
    compdef _sharedlabel sharedlabel
fi
"""

_FISH = """\
# Completion of sharedlabel in fish; in ~/.config/fish/config.fish: sharedlabel completion fish | source
function __sharedlabel_at
    set -l at ''
    for word in (commandline -opc)[2..-1]
        switch "$at/$word"
            case @PATHS@
                set at (string trim --left --chars=/ -- "$at/$word")
        end
    end
    test "$at" = "$argv[1]"
end
complete -c sharedlabel -f
"""


def bash(places: Sequence[Place]) -> str:
    """Write the script for bash."""
    values = [
        f"        {_either(f'{_path(place)} {option.name}' for place, option in group)}) {_assigned(slot)} ;;"
        for slot, group in _grouped(places)
    ]
    rows = []
    for place in places:
        options = [option.name for option in place.options]
        others = [*place.commands, *place.value.values]
        rows.append(f"            {shlex.quote(_path(place) + ' -')}) {_assigned(Slot(tuple(options)))} ;;")
        proposed = Slot(tuple(others), place.value.files) if others or place.value.files else Slot(tuple(options))
        rows.append(f"            {shlex.quote(_path(place) + ' ')}*) {_assigned(proposed)} ;;")
    return _filled(_BASH, places, values, rows)


def zsh(places: Sequence[Place]) -> str:
    """Write the script for zsh."""
    values = []
    for slot, group in _grouped(places):
        names = _either(f"{_path(place)} {option.name}" for place, option in group)
        values.append(f"        {names}) {_added(slot)} return ;;")
    rows = []
    for place in places:
        commands = " ".join(shlex.quote(f"{name}:{about}") for name, about in place.commands.items())
        options = " ".join(shlex.quote(f"{option.name}:{option.about}") for option in place.options)
        rows.append(f"        {shlex.quote(_path(place))})")
        rows.append(f"            options=({options})")
        steps = []
        if commands:
            rows.append(f"            commands=({commands})")
            steps.append("_describe -t commands command commands")
        other = _added(place.value)
        if other:
            steps.append(other.rstrip("; "))
        if steps:
            rows.append(f"            if [[ $PREFIX != -* ]]; then {'; '.join(steps)}; return; fi")
        rows.append("            _describe -o -t options option options ;;")
    return _filled(_ZSH, places, values, rows)


def fish(places: Sequence[Place]) -> str:
    """Write the script for fish."""
    lines = [_FISH.replace("@PATHS@", " ".join(_paths(places)))]
    for place in places:
        start = f"complete -c sharedlabel -n {_fished('__sharedlabel_at ' + _fished(_path(place)))}"
        lines += [f"{start} -a {_fished(name)} -d {_fished(about)}\n" for name, about in place.commands.items()]
        if place.value.values:
            lines.append(f"{start} -a {_fished(' '.join(map(_fished, place.value.values)))}\n")
        if place.value.files:
            lines.append(f"{start} -F\n")
        for option in place.options:
            lines.append(f"{start} -l {_fished(option.name[2:])}{_taken(option.value)} -d {_fished(option.about)}\n")
    return "".join(lines)


SHELLS: dict[str, Callable[[Sequence[Place]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _path(place: Place) -> str:
    return "/".join(place.path)


def _paths(places: Iterable[Place]) -> list[str]:
    """Write every command as what was read before it, a slash and its name."""
    return [f"{'/'.join(place.path[:-1])}/{place.path[-1]}" for place in places if place.path]


def _grouped(places: Iterable[Place]) -> Iterator[tuple[Slot, list[tuple[Place, Option]]]]:
    """Yield what options take, with all options that take it."""
    groups: dict[Slot, list[tuple[Place, Option]]] = {}
    for place in places:
        for option in place.options:
            if option.value is not None:
                groups.setdefault(option.value, []).append((place, option))
    yield from groups.items()


def _either(patterns: Iterable[str]) -> str:
    return "|".join(map(shlex.quote, patterns))


def _assigned(slot: Slot) -> str:
    """Set the variables of the bash script."""
    words = f"words={shlex.quote(chr(10).join(slot.values))}"
    return f"{words} files={shlex.quote(slot.files)}" if slot.files else words


def _added(slot: Slot) -> str:
    """Add what may stand in a place, in zsh."""
    words = f"compadd -- {' '.join(map(shlex.quote, slot.values))}; " if slot.values else ""
    return words + (f"_files -g {shlex.quote(slot.files)}; " if slot.files else "")


def _taken(slot: Slot | None) -> str:
    """Say in fish what follows an option."""
    if slot is None:
        return ""
    words = f" -a {_fished(' '.join(map(_fished, slot.values)))}" if slot.values else ""
    return f" -r -F{words}" if slot.files else f" -x{words}"


def _fished(text: str) -> str:
    """Quote a text for fish."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _filled(template: str, places: Sequence[Place], values: Sequence[str], rows: Sequence[str]) -> str:
    """Put the parts of a script in their places."""
    filled = template.replace("@PATHS@", "|".join(_paths(places)))
    return filled.replace("@VALUES@", "\n".join(values)).replace("@PLACES@", "\n".join(rows))

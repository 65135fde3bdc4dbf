"""The configuration of a grid: frozen dataclasses, strict YAML, overrides by dotted name, canonical JSON.

No plugin's options appear here: they live beside the plugin, and `resolve` checks them when the plugin is loaded. This
package imports no torch, so `--help` is quick.
"""

from sharedlabel.config.experiment import Experiment as Experiment
from sharedlabel.config.fields import added as added
from sharedlabel.config.fields import nested as nested
from sharedlabel.config.keys import canonical as canonical
from sharedlabel.config.keys import digest as digest
from sharedlabel.config.plugins import Plugin as Plugin
from sharedlabel.config.plugins import PluginSpec as PluginSpec
from sharedlabel.config.plugins import anew as anew
from sharedlabel.config.plugins import build as build
from sharedlabel.config.plugins import plugins_in as plugins_in
from sharedlabel.config.plugins import public as public
from sharedlabel.config.plugins import refresh as refresh
from sharedlabel.config.plugins import remade as remade
from sharedlabel.config.plugins import resolve as resolve
from sharedlabel.config.reading import check as check
from sharedlabel.config.reading import check_place as check_place
from sharedlabel.config.reading import command_line as command_line
from sharedlabel.config.reading import from_yaml as from_yaml
from sharedlabel.config.reading import merged as merged
from sharedlabel.config.reading import parse as parse
from sharedlabel.config.trainings import TRAININGS as TRAININGS
from sharedlabel.config.trainings import Training as Training
from sharedlabel.config.trainings import trainings as trainings

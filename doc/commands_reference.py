"""A Sphinx extension with one directive, ``commands-reference``: every command, as ``receipt-actors --help`` has it."""

from __future__ import annotations

import importlib
import inspect
import textwrap

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors import settings, settings_model
from receipt_actors.cli import COMMANDS, PROGRAM, cli
from receipt_actors.settings import SETTINGS
from receipt_actors.stores.apple import settings as apple_settings


class CommandsReference(SphinxDirective):
    """A section for each command, which can be linked to as ``commands.html#redrive``."""

    def run(self) -> list[nodes.Node]:
        """Build the sections, and have them built again when a command or a setting changes."""
        for module in (settings, settings_model, apple_settings):
            self.env.note_dependency(str(module.__file__))
        context = click.Context(cli, info_name=PROGRAM, **cli.context_settings)
        return [self._section(name, context) for name in cli.list_commands(context)]

    def _section(self, name: str, context: click.Context) -> nodes.section:
        command = cli.get_command(context, name)
        assert command is not None
        self.env.note_dependency(inspect.getfile(importlib.import_module(f"receipt_actors.cli.{COMMANDS[name][0]}")))
        return self._section_of(command, name, context)

    def _section_of(self, command: click.Command, name: str, context: click.Context) -> nodes.section:
        own_context = click.Context(command, info_name=name.rpartition(" ")[2], parent=context)
        usage = " ".join([own_context.command_path, *command.collect_usage_pieces(own_context)])
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title(text=name)
        section += nodes.literal_block(text=usage, language="none")
        section += _paragraphs(command.help)
        section += self._options(command, own_context)
        section += _paragraphs(command.epilog)
        if isinstance(command, click.Group):
            for sub_name, sub_command in command.commands.items():
                section += self._section_of(sub_command, f"{name} {sub_name}", own_context)
        return section

    def _options(self, command: click.Command, context: click.Context) -> list[nodes.Node]:
        """List the command's own options; a setting is told once, in the settings reference."""
        own = nodes.definition_list()
        links: list[nodes.Node] = []
        for parameter in command.params:
            if _is_setting(parameter):
                links += [nodes.Text(", " if links else "Settings: "), self._link(parameter)]
            elif (record := parameter.get_help_record(context)) is not None:
                flags, text = record
                term = nodes.term("", "", nodes.literal(text=flags))
                own += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))
        if len(links) == 2 * len(SETTINGS):
            links = [nodes.Text("Settings: all there are.")]
        return [*([own] if own.children else []), *([nodes.paragraph("", "", *links)] if links else [])]

    def _link(self, parameter: click.Parameter) -> nodes.reference:
        page = self.env.app.builder.get_relative_uri(self.env.docname, "settings")
        flag = nodes.literal(text=parameter.opts[0])
        return nodes.reference("", "", flag, refuri=f"{page}#{nodes.make_id(str(parameter.name))}")


def _is_setting(parameter: click.Parameter) -> bool:
    setting = SETTINGS.get(str(parameter.name))
    return setting is not None and isinstance(parameter, click.Option) and setting.variable in (parameter.help or "")


def _paragraphs(text: str | None) -> list[nodes.Node]:
    """Read click's help text: paragraphs, and blocks after a backspace that keep their lines."""
    blocks = textwrap.dedent(inspect.cleandoc(text or "")).split("\n\n")
    return [_paragraph(block) for block in blocks if block.strip()]


def _paragraph(block: str) -> nodes.Node:
    if "\b" in block:
        return nodes.literal_block(text=block.replace("\b\n", ""), language="none")
    return nodes.paragraph(text=" ".join(block.split()))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("commands-reference", CommandsReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

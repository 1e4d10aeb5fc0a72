"""A Sphinx extension with one directive, ``settings-reference``: every setting, as ``receipt_actors`` has it."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors import settings, settings_model
from receipt_actors.settings import SETTINGS
from receipt_actors.settings_model import SOURCE_SETTINGS, Setting
from receipt_actors.stores.apple import settings as apple_settings


class SettingsReference(SphinxDirective):
    """A section for each setting, which can be linked to as ``settings.html#max-in-flight``."""

    def run(self) -> list[nodes.Node]:
        """Build the sections, and have them built again when a setting changes."""
        for module in (settings, settings_model, apple_settings):
            self.env.note_dependency(str(module.__file__))
        return [self._section(setting) for setting in SETTINGS.values()]

    def _section(self, setting: Setting) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(setting.name)], names=[setting.name])
        section += nodes.title(text=setting.name)
        section += nodes.paragraph(text=setting.description)
        fields = [
            _field("Value", nodes.Text(setting.expected)),
            _field("Default", _default(setting)),
            _field("Environment variable", _code(setting.variable)),
            _field("Flag", _code(setting.flag)),
        ]
        if setting.name in SOURCE_SETTINGS:
            fields.append(_field("In a table of sources", nodes.Text("yes: a source may have its own")))
        section += nodes.field_list("", *fields)
        return section


def _default(setting: Setting) -> nodes.Node:
    if setting.required:
        return nodes.Text("none: it has to be given")
    return nodes.Text("left out") if setting.default is None else _code(setting.default)


def _code(text: str) -> nodes.literal:
    return nodes.literal(text=text)


def _field(name: str, body: nodes.Node) -> nodes.field:
    return nodes.field("", nodes.field_name(text=name), nodes.field_body("", nodes.paragraph("", "", body)))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("settings-reference", SettingsReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

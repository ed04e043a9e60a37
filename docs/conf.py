"""How Sphinx builds the site: `make docs`."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import rll_tf

project = "rll_tf"
author = "the rll_tf authors"
copyright = author
version = release = rll_tf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
highlight_language = "text"  # of blocks that name none: commands and what they print
html_theme = "furo"
html_title = "rll_tf"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

html_math_renderer = "mathml"  # browsers know it; MathJax would come from another address

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4

default_role = "py:obj"  # `name` in a docstring is a link where the name is documented
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "call, get_config, update_state"}
napoleon_use_ivar = True  # else an attribute that is documented twice is a warning


def escape_prose(line: str) -> str:
    """`*`, `|` and a trailing `_` are meant as they stand, outside of `code`."""
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"(?<!\\)([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def as_restructured_text(app, what, name, obj, options, lines):
    """The docstrings are plain text: what is indented below a blank line is shown as it stands."""
    result, literal_indent = [], None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        after_blank = number > 0 and not lines[number - 1].strip()
        before = next((each for each in reversed(result) if each.strip()), "")
        if literal_indent is not None and line.strip() and indent < literal_indent:
            literal_indent = None
        if literal_indent is None and line.strip() and after_blank and before:
            base = len(before) - len(before.lstrip())
            if indent >= base + 4:
                literal_indent = indent
                result += [" " * base + "::", ""]
        result.append(line if literal_indent is not None else escape_prose(line))
        if line.strip() == "Returns:":
            result.append(" " * (indent + 4) + "\\ ")  # else what stands before a colon is taken for a type
    lines[:] = result


def link_into_the_site(app, docname, source):
    """README and CHANGELOG, which lie outside of docs/, have pages of the site in their place."""
    for outside, page in {"../README.md": "index.md", "../CHANGELOG.md": "changes.md"}.items():
        source[0] = source[0].replace(f"]({outside})", f"]({page})")
    if result := re.fullmatch("results/(.+)/results", docname):  # a table, reached from results/README.md
        source[0] = f"---\norphan: true\n---\n# {result[1]}\n\n{source[0]}"


def as_mathml(writer, node):
    """A formula, in the line or as a block."""
    block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app):
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (as_mathml, None), (as_mathml, None))
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before Napoleon
    app.connect("source-read", link_into_the_site)

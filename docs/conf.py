"""The rendered pages (`make site`): what they are made of and how they look.

The project's folder is the source, so that a link in a Markdown file means the same there, in a
repository's web view and on the site.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the extensions below; the package as it is here

from gcl_core import __version__  # noqa: E402

project = "gcl"
author = "The gcl maintainers"
copyright = author
version = release = __version__

# Pages

root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "gpu/*.md",
    "docs/api/*.rst",
    "notebooks/lab/[0-9]*.ipynb",
    "notebooks/[0-9]*.ipynb",
    "results/*.md",
]
exclude_patterns = [".*", "build", "data", "runs", "students", "study", "docs/contents.md"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "myst_nb",
    "sources",
    "moving",
    "checks",
]
nitpicky = True
suppress_warnings = ["config.cache"]

# Markdown and notebooks

myst_enable_extensions = ["amsmath", "attrs_inline", "dollarmath"]
myst_disable_syntax = ["myst_line_comment"]  # a line may start with %, as everywhere else
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs are those that are committed
nb_render_markdown_format = "myst"  # tables in outputs are as those in the text
nb_custom_formats = {".ipynb": "sources.read_notebook"}
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # a page has no kernel to move them
nb_code_prompt_show = "Show {type}"

# Docstrings

default_role = "py:obj"  # `name` is a link where there is such a thing, and code everywhere
nitpick_ignore = [("py:class", "gcl_core.hardware.Module")]  # a type variable
nitpick_ignore_regex = [("py:.*", r"(?!gcl_core\.).*|.*\._.*")]  # other projects, private names
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "notes_style")]
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # not those of PyTorch
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_ignore_module_all = True  # modules of a package, not only the names it offers
viewcode_follow_imported_members = False
templates_path = [str(HERE / "templates")]
python_maximum_signature_line_length = 88

# Looks

html_theme = "furo"
html_title = "gcl"
html_static_path = ["static"]
html_css_files = ["site.css", "moving.css"]
html_js_files = [("moving.js", {"defer": "defer"})]
html_additional_pages = {"index": "index.html"}
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

"""Sphinx makes the manual from these pages, the notebooks and the docstrings: `make manual`. No network is used."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nightsift import __version__  # noqa: E402

project = "nightsift"
author = "The nightsift developers"
project_copyright = "The nightsift developers, BSD 3-Clause"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "myst_nb", "numpydoc"]
exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nitpicky = False

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "obj"
add_module_names = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# "off" shows the notebooks without their results; make manual executes them ("force").
nb_execution_mode = os.environ.get("NIGHTSIFT_NOTEBOOKS", "off")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

html_theme = "furo"
html_title = f"nightsift {release}"
html_static_path = ["_static"]
html_css_files = ["notebooks.css"]
html_show_sourcelink = False
html_copy_source = False

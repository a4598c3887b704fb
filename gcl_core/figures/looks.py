"""How groups, methods and samplers look in every figure: one colour each, safe if red is not seen.

Colours of Okabe and Ito (2008), plus two greys.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np

GROUP_COLOURS = {"many": "#0072B2", "medium": "#E69F00", "few": "#CC79A7"}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, everywhere.

    Attributes:
        label: what figures and tables call it.
        colour: of lines and points.
        line: matplotlib line style; methods of similar colour differ in it.
    """

    label: str
    colour: str
    line: str | tuple[int, tuple[int, ...]] = "-"


# One colour for each family, and a line style for each of its members: black and grey for
# cross-entropy and its weights, sky blue for what re-balances it, brown for margins and priors,
# green and vermilion for GCL. No group has any of them.
METHOD_LOOKS = {
    "ce": Look("CE", "#000000"),
    "focal": Look("focal", "#000000", "--"),
    "equalization": Look("equalization", "#000000", "-."),
    "label_aware": Look("label-aware smoothing", "#000000", ":"),
    "class_balanced": Look("class-balanced", "#8A8A8A", (0, (8, 3))),
    "ce_mixup": Look("CE + mixup", "#8A8A8A", "--"),
    "class_balanced_focal": Look("class-balanced focal", "#8A8A8A", "-."),
    "no_cloud": Look("no cloud (k = 0)", "#8A8A8A", ":"),
    "ce_drw": Look("CE + DRW", "#8A8A8A", (0, (6, 1, 1, 1, 1, 1))),
    "ce_drs": Look("CE + DRS", "#8A8A8A", (0, (1, 4))),
    "mislas": Look("MiSLAS", "#56B4E9"),
    "ce_crt": Look("CE + cRT", "#56B4E9", "--"),
    "ce_mixup_crt": Look("CE + mixup + cRT", "#56B4E9", "-."),
    "ce_lws": Look("CE + LWS", "#56B4E9", ":"),
    "ce_tau_norm": Look("CE + τ-norm.", "#56B4E9", (0, (6, 1, 1, 1, 1, 1))),
    "ce_ncm": Look("CE + NCM", "#56B4E9", (0, (1, 4))),
    "disalign": Look("DisAlign", "#56B4E9", (0, (8, 3))),
    "ldam_drw": Look("LDAM-DRW", "#6B3E1D"),
    "ldam": Look("LDAM", "#6B3E1D", "--"),
    "logit_adjustment": Look("logit adjustment", "#6B3E1D", "-."),
    "post_hoc": Look("post-hoc adjustment", "#6B3E1D", ":"),
    "balanced_softmax": Look("balanced softmax", "#6B3E1D", (0, (6, 1, 1, 1, 1, 1))),
    "lade": Look("LADE", "#6B3E1D", (0, (1, 4))),
    "bbn": Look("BBN", "#5D3A9B"),
    "hybrid_sc": Look("Hybrid-SC", "#5D3A9B", "--"),
    "hybrid_psc": Look("Hybrid-PSC", "#5D3A9B", "-."),
    "tde": Look("De-confound-TDE", "#5D3A9B", ":"),
    "oltr": Look("OLTR", "#5D3A9B", (0, (6, 1, 1, 1, 1, 1))),
    "gcl": Look("GCL, stage 1", "#009E73"),
    "gcl_crt": Look("GCL + cRT", "#D55E00"),
    "gcl_angular_crt": Look("angular GCL + cRT", "#D55E00", "--"),
}


def shades(colour: str, number: int) -> list[str]:
    """A colour in `number` shades from dark to light, so that classes of one group differ."""
    shifts = np.linspace(-0.5, 0.4, number) if number > 1 else [0.0]  # to black (-) or white (+)
    rgb = np.array(mpl.colors.to_rgb(colour))
    return [mpl.colors.to_hex(rgb + abs(shift) * ((shift > 0) - rgb)) for shift in shifts]


GROUP_LOOKS = {group: Look(group, colour) for group, colour in GROUP_COLOURS.items()}

SAMPLER_LOOKS = {
    "IB": Look("IB: every image alike", "#000000"),
    "SQRT": Look("square root", "#8A8A8A", (0, (8, 3))),
    "CB": Look("CB: every class alike", "#56B4E9"),
    "EN": Look("EN: effective number", "#009E73", "--"),
    "CBEN": Look("CBEN (published a, b)", "#D55E00", ":"),
    "REV": Look("reversed (BBN)", "#5D3A9B", "-."),
}

RC: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "grid.alpha": 0.25,
    "lines.linewidth": 2.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "gcl_core",
}


@contextmanager
def style() -> Iterator[None]:
    """The one style of every figure; what the user has set elsewhere is left as it is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]
        yield

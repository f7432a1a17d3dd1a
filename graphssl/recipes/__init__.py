"""The papers' settings, one typed function a method."""

from graphssl.recipes import (
    bandana,
    baselines,
    bgrl,
    cca_ssg,
    dgi,
    fastrp,
    gae,
    grace,
    graphcl,
    graphmae,
    graphmae2,
    infograph,
    line,
    mae,
    maskgae,
    paretognn,
    s2gae,
    scgc,
    selftask,
    sgc,
    simgrace,
)
from graphssl.recipes.base import Plan as Plan
from graphssl.recipes.base import Published as Published
from graphssl.recipes.base import Recipe as Recipe
from graphssl.recipes.base import Select as Select
from graphssl.recipes.base import Spec as Spec
from graphssl.recipes.base import get_recipe as get_recipe
from graphssl.recipes.base import list_methods as list_methods
from graphssl.recipes.base import parse as parse
from graphssl.recipes.base import recipe as recipe

__all__ = [
    "Plan",
    "Published",
    "Recipe",
    "Select",
    "Spec",
    "bandana",
    "baselines",
    "bgrl",
    "cca_ssg",
    "dgi",
    "fastrp",
    "gae",
    "get_recipe",
    "grace",
    "graphcl",
    "graphmae",
    "graphmae2",
    "infograph",
    "line",
    "list_methods",
    "mae",
    "maskgae",
    "paretognn",
    "parse",
    "recipe",
    "s2gae",
    "scgc",
    "selftask",
    "sgc",
    "simgrace",
]

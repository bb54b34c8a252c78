"""What a wheel holds besides the packages under tinyablation/: copies for a first session.

The claims travel as packs, tinyablation.packs.suppressors and literature. Models, corpora and
tables travel under tinyablation/shipped/, at the same paths as in a checkout
(tinyablation/shipped.py finds them). Of the models two travel, a planted one of each of two
families; models.toml lists those and the pretrained ones. All of them are a distribution of their
own, which fixtures/pyproject.toml describes. An editable install copies nothing.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKS = {"suppressors": "The suppressor study", "literature": "Claims of the literature"}
IN_WHEEL = "tinyablation/packs/"
SHIPPED = "tinyablation/shipped"
MODELS = ("tiny-gpt2", "tiny-llama")
CORPORA = ("knowledge", "tiny", "examples", "text")
LISTED = "fixtures/models.toml"
FILES = {
    **{f"claims/{pack}/*.{end}": IN_WHEEL + pack for pack in PACKS for end in ("py", "toml")},
    **{f"claims/{pack}/conditions/*": f"{IN_WHEEL}{pack}/conditions" for pack in PACKS},
    **{f"corpora/{name}/**/*": f"{SHIPPED}/corpora/{name}" for name in CORPORA},
    **{f"fixtures/organisms/{name}/*": f"{SHIPPED}/fixtures/organisms/{name}" for name in MODELS},
    "fixtures/calibration/error_rates.json": f"{SHIPPED}/fixtures/calibration",
}


def copies() -> dict[Path, Path]:
    """Every file that is copied: its place in the wheel -> its place in the checkout."""
    found = {}
    for pattern, folder in FILES.items():
        base = ROOT / pattern.split("*")[0].rpartition("/")[0]
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                inside = path.relative_to(base) if "*" in pattern else path.name
                found[Path(folder, inside)] = path
    return found


def listed() -> str:
    """models.toml without the models that do not travel, and without what names them."""
    head, *tables = re.split(r"(?m)^(?=\[\[model\]\])", (ROOT / LISTED).read_text("utf-8"))
    kept = []
    for table in tables:
        source = re.search(r'^source = "organisms/(.+)"$', table, re.MULTILINE)
        if source is None or source[1] in MODELS:
            if source is not None:
                table = re.sub(r"(?m)^checkpoints = \[\n(?:    .*\n)*\]\n", "", table)
                table = re.sub(r'(?m)^twin = ".*"\n', "", table)
            kept.append(table)
    return head + "".join(kept)


class BuildWithCopies(build_py):
    """Builds the packages, then puts the copies beside them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for place, source in copies().items():
            target = Path(self.build_lib, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        for pack, title in PACKS.items():
            Path(self.build_lib, IN_WHEEL, pack, "__init__.py").write_text(
                f'"""{title}: pytest --pyargs tinyablation.packs.{pack}"""\n'
            )
        Path(self.build_lib, SHIPPED, LISTED).write_text(listed(), encoding="utf-8")


setup(cmdclass={"build_py": BuildWithCopies})

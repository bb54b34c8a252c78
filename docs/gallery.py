"""The reports of the gallery: what mkdocs copies into it, and the screenshots that stand there.

mkdocs.yml names this module as a hook. `.venv/bin/python -m docs.gallery` takes the screenshots
again, with a headless Chromium: the first screen of each report, 1280 x 900.
"""

import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REPORTS = {
    "smollm2-135m": Path("reports/smollm2-135m/claims.html"),
    "embedded": Path("reports/claims.html"),  # made by `make claims`, not committed
}
WINDOW = (1280, 900)
COLOURS = 64  # text and lines look the same, in a third of the bytes


def screenshot(name: str) -> Path:
    """Where the screenshot of a report is."""
    return ROOT / "docs" / "assets" / f"gallery-{name}.png"


def on_files(files: Any, config: Any) -> Any:
    """Copy the reports that are there into the site."""
    from mkdocs.structure.files import File

    for name, path in REPORTS.items():
        if (ROOT / path).exists():
            files.append(
                File.generated(config, f"gallery/{name}.html", abs_src_path=str(ROOT / path))
            )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to reports in this checkout, which hold on GitHub, into links to the copies."""
    if page.file.src_uri != "gallery.md":
        return markdown
    for name, path in REPORTS.items():
        target = (
            rf"\1(gallery/{name}.html)" if (ROOT / path).exists() else r"\2 (not in this build)"
        )
        markdown = re.sub(rf"(\[([^]]*)\])\(\.\./{re.escape(path.as_posix())}\)", target, markdown)
    return markdown


def main() -> None:
    """Take every screenshot again; FileNotFoundError for a report that is not there."""
    from PIL import Image

    from tests.browsing import Browser

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    with (
        tempfile.TemporaryDirectory() as folder,
        Browser(chromium, driver, Path(folder)) as browser,
    ):
        browser.window(*WINDOW)
        browser.prefer("light")
        for name, path in REPORTS.items():
            browser.open((ROOT / path).resolve(strict=True).as_uri())
            taken = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
            taken.quantize(COLOURS, dither=Image.Dither.NONE).save(screenshot(name), optimize=True)


if __name__ == "__main__":
    main()

"""A headless Chromium that resolves no name, and what a test asks of it."""

import base64
import json
import time

from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

PATIENCE = 30  # s for something to happen; a loaded machine takes seconds for what is milliseconds
OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
USED = {"link", "button", "combobox", "searchbox", "textbox", "DisclosureTriangle", "checkbox"}


class Browser:
    """One browser for a module of tests; leave it with `with`."""

    def __init__(self, chromium, driver, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.folder, self.kept = folder / "arriving", folder / "taken"
        self.folder.mkdir()
        self.kept.mkdir()
        self.driver.get("about:blank")
        self.driver.get_log("performance")  # the browser's own first page
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.folder))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.driver.quit()

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    # --- pages ---

    def open(self, address):
        """Load an address anew, even where only its fragment is another."""
        self.driver.get("about:blank")
        self.driver.get(address)
        self.wait_until("document.getElementById('shown').textContent")

    def window(self, width, height):
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def prefer(self, scheme):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def back(self):
        self.driver.back()

    def forward(self):
        self.driver.forward()

    @property
    def hash(self):
        return self.run("return decodeURIComponent(location.hash)")

    def complaints(self):
        """What the console said since it was last asked: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses requested since last asked, the page's own included."""
        messages = (json.loads(entry["message"]) for entry in self.driver.get_log("performance"))
        events = (message["message"] for message in messages)
        found = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in found if url != "about:blank"]

    def alert(self):
        try:
            return self.driver.switch_to.alert.text
        except NoAlertPresentException:
            return None

    def print(self):
        return base64.b64decode(self.command("Page.printToPDF")["data"])

    # --- elements ---

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def value(self, selector):
        return self.run("return document.querySelector(arguments[0]).value", selector)

    def attribute(self, selector, name):
        return self.one(selector).get_attribute(name) or None

    def visible(self, selector):
        return self.one(selector).is_displayed()

    def click(self, selector):
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, name, value):
        Select(self.one(f"[name={name}]")).select_by_value(value)

    def type(self, selector, text):
        self.one(selector).send_keys(text)

    def focus(self, selector):
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def keys(self, *names):
        chain = ActionChains(self.driver)
        for name in names:
            chain = chain.send_keys(getattr(Keys, name, name))
        chain.perform()

    def focused(self):
        """The element with the focus: its name and class, "a.skip"."""
        return self.run(
            "const e = document.activeElement; "
            "return e.tagName.toLowerCase() + (e.className ? `.${e.className}` : '')"
        )

    def outline(self):
        """Width of the outline of what has the focus, px."""
        return self.run("return parseFloat(getComputedStyle(document.activeElement).outlineWidth)")

    # --- waiting ---

    def wait_until(self, condition):
        """Until a JavaScript expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < until, f"never became true: {condition}"
            time.sleep(0.02)

    def wait_for(self, selector, text):
        """Until an element's text holds another."""
        self.wait_until(
            f"document.querySelector({json.dumps(selector)}).textContent.includes"
            f"({json.dumps(text)})"
        )

    # --- downloads ---

    def taken(self, selector):
        """The file that a click on a button makes."""
        return self.taken_by(f"return document.querySelector({json.dumps(selector)})")

    def taken_by(self, script):
        """The same for the button that a script returns."""
        self.run("arguments[0].click()", self.run(script))
        until = time.monotonic() + PATIENCE
        while not (found := self._finished()):
            assert time.monotonic() < until, "nothing was downloaded"
            time.sleep(0.02)
        return found.rename(self.kept / found.name)

    def _finished(self):
        """The downloaded file, once it is whole.

        Chromium reserves the final name with an empty file and writes beside it, so that a name
        alone says nothing; and a file beside the whole one belongs to a download that goes on.
        """
        found = list(self.folder.iterdir())
        if len(found) != 1 or found[0].suffix == ".crdownload" or found[0].name.startswith("."):
            return None
        return found[0] if found[0].stat().st_size else None

    # --- what is seen, and what is heard ---

    def accessible(self):
        """Nodes of the accessibility tree that a person operates, with role and name."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") in USED
        ]

    def roles(self, selector):
        """Roles of the elements that a selector finds."""
        document = self.command("DOM.getDocument")["root"]["nodeId"]
        found = self.command("DOM.querySelectorAll", nodeId=document, selector=selector)
        roles = set()
        for node in found["nodeIds"]:
            tree = self.command("Accessibility.getPartialAXTree", nodeId=node, fetchRelatives=False)
            roles.add(tree["nodes"][0]["role"]["value"])
        return roles

    def luminance(self, selector):
        """Relative luminance (WCAG 2.1) of the background of an element, 0 to 1."""
        return _luminance(
            self.run(
                "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor",
                selector,
            )
        )

    def contrast(self, selector):
        """Contrast ratio (WCAG 2.1) of an element's text against the page."""
        ink = _luminance(
            self.run(
                "return getComputedStyle(document.querySelector(arguments[0])).color", selector
            )
        )
        paper = self.luminance("body")
        light, dark = max(ink, paper), min(ink, paper)
        return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    """Of "rgb(1, 2, 3)"."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

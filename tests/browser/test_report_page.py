"""The report's page in a real browser: it loads nothing, sorts, fits a phone, has a dark look, and prints."""

import functools
import http.server
import subprocess
import threading

import pytest

from tests.browser.chromium import Browser, find_chromium
from tests.conftest import ROOT
from tests.unit.made_up_report import write_work

pytestmark = pytest.mark.long
EVIL = """x"'><img src=x onerror="hacked=1"><script>hacked=1<"""  # as a file name, without a slash
SYSTEMS = {"good": 3.0, "bad": 0.5, EVIL: 2.9}


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    """The folder exp with a report of systems, one of them with a name that would run a program."""
    work = write_work(tmp_path_factory.mktemp("a work"), SYSTEMS)
    for step in ("table.sh", "report.sh"):
        done = subprocess.run(["bash", ROOT / "steps" / step, "--command", f"run.sh '{EVIL}'", work],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return work / "exp"


@pytest.fixture(scope="module")
def asked():
    """The paths that the browser asked the server for."""
    return []


@pytest.fixture(scope="module")
def browser(exp, asked, tmp_path_factory):
    """A browser that shows the page."""
    class Server(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    with (http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=exp)) as server,
          Browser(find_chromium(), tmp_path_factory.mktemp("profile")) as browser):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.resize(1280, 900)
        browser.open(f"http://127.0.0.1:{server.server_port}/report.html")
        yield browser
        server.shutdown()


def column(browser, place):
    return browser.run(f"[...document.querySelectorAll('#systems tbody tr')].map(row => row.cells[{place}].innerText)")


def test_the_page_loads_nothing_else_and_reports_no_error(browser, asked):
    assert asked == ["/report.html"]
    loaded = [event["params"]["request"]["url"] for event in browser.events
              if event["method"] == "Network.requestWillBeSent"]
    assert all(address.startswith("data:") for address in loaded[1:])
    said = [event for event in browser.events
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")]
    assert said == []
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)") is True
    assert browser.run("document.images.length") > 5


def test_every_figure_has_an_alternative_text_and_a_caption(browser):
    alternatives = browser.run("[...document.querySelectorAll('figure img')].map(one => one.alt)")
    captions = browser.run("[...document.querySelectorAll('figcaption')].map(one => one.innerText)")
    assert len(captions) == len(alternatives) == browser.run("document.querySelectorAll('figure').length") > 5
    assert all(len(text) > 20 for text in alternatives) and all(text.endswith(".") for text in captions)


def test_names_are_text(browser):
    assert EVIL in column(browser, 0)
    assert browser.run("document.querySelector('.command').innerText").strip() == f"run.sh '{EVIL}'"
    assert browser.run("typeof hacked") == "undefined"
    assert browser.run("document.querySelectorAll('img[src=x], td script, th script, pre script').length") == 0


def test_an_inserted_program_does_not_run(browser):
    """Even if a name escaped, the page's policy would stop it."""
    browser.run("(() => {const one = document.createElement('script'); one.textContent = 'intruded = 1';"
                " document.body.append(one); one.remove();})()")
    assert browser.run("typeof intruded") == "undefined"
    browser.events.clear()  # the policy's message is expected


def test_a_click_on_a_heading_sorts(browser):
    def click(name):
        browser.run("[...document.querySelectorAll('#systems thead button')]"
                    f".find(button => button.innerText === '{name}').click()")

    before = column(browser, 3)
    click("EER")
    up = [float(value) for value in column(browser, 3)]
    assert up == sorted(up) and sorted(before) == sorted(column(browser, 3)) and len(up) == 6
    assert before != column(browser, 3)
    click("EER")
    assert [float(value) for value in column(browser, 3)] == up[::-1]
    assert browser.run("document.querySelector('#systems th[aria-sort]').ariaSort") == "descending"
    click("p")  # the best systems have none: they come last, in both directions
    known = [value for value in column(browser, 8) if value != "-"]
    assert column(browser, 8) == sorted(known) + ["-"] * 2
    click("system")
    assert column(browser, 0) == sorted(column(browser, 0), key=str.lower)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, width):
    browser.resize(width, 800)
    browser.wait_for(f"document.documentElement.scrollWidth <= {width}", 5)  # a resized page takes a moment
    assert browser.run("innerWidth") == width
    boxes = browser.run("[...document.querySelectorAll('.box')].map(box => box.scrollWidth > box.clientWidth)")
    assert width > 768 or any(boxes)  # wide tables scroll in their boxes


def test_the_dark_look_has_another_ground_and_readable_text(browser):
    def colours():
        found = browser.run("(() => {const style = getComputedStyle(document.body);"
                            " return [style.backgroundColor, style.color]})()")
        return [sum(int(value) for value in one[4:-1].split(",")) for one in found]

    browser.prefer("light")
    ground, text = colours()
    assert ground - text > 450
    browser.prefer("dark")
    ground, text = colours()
    assert text - ground > 450


def test_it_prints(browser):
    pages = browser.printed()
    assert pages.startswith(b"%PDF-") and len(pages) > 50_000


def test_the_page_is_one_file_of_moderate_size(exp):
    assert (exp / "report.html").stat().st_size < 3_000_000
    page = (exp / "report.html").read_text()
    assert "http://" not in page and "https://" not in page

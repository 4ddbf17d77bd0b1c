"""The page of utils/demo in a real browser: microphone, files, decision, drawings, enrolment, keyboard, dark look."""

import json
import math
import os

import numpy as np
import pytest
import soundfile

from local.simulated_voice import draw_speaker, utter
from nnet.embed import load
from steps.backend.interface import Enrolment
from steps.use.scoring import Scoring, probability
from tests.browser.chromium import Browser, find_chromium
from tests.unit.made_up import RATE
from tests.unit.made_up_systems import write_calibrated

pytest.importorskip("uvicorn", reason="python3 -m pip install -r utils/requirements_demo.txt")
from tests.serving import serving  # noqa: E402

pytestmark = pytest.mark.long
EVIL = """<img src=x onerror="hacked=1">"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and recordings: the voice of the microphone, another, and what is refused or warned of."""
    folder = tmp_path_factory.mktemp("page")
    write_calibrated(folder / "model", pooling={"type": "multi_head", "heads": 4})
    generator = np.random.default_rng(4)
    for name, gender in (("microphone", "f"), ("other", "m")):
        soundfile.write(folder / f"{name}.wav", 0.05 * utter(draw_speaker(generator, gender), 4.0, generator), RATE)
    samples, _ = soundfile.read(folder / "other.wav")
    soundfile.write(folder / "short.wav", samples[:RATE], RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "page.html").write_text("<html>")
    return folder


@pytest.fixture(scope="module")
def browser(folder, tmp_path_factory):
    """A browser that shows the page and has a microphone."""
    microphone = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                  f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}")
    with (serving(folder / "model", folder / "store") as port,
          Browser(find_chromium(), tmp_path_factory.mktemp("profile"), *microphone) as browser):
        browser.resize(1100, 1000)
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for("document.body.dataset.ready")
        yield browser


def state(browser, card):
    return browser.run(f"document.querySelector('#{card} .state').innerText")


def heard(browser, card):
    """Wait until the server has answered about a card's recording; return what is said."""
    browser.wait_for(f"!/Listening|Recording|drop one/.test(document.querySelector('#{card} .state').innerText)")
    return state(browser, card)


def give(browser, card, path):
    """Choose a file in a card, and wait for the answer."""
    browser.run(f"document.querySelector('#{card} .state').innerText = 'Listening'")
    browser.choose(f"#{card} input", path)
    return heard(browser, card)


def click(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_a_voice_is_recorded_and_compared_with_a_file(folder, browser):
    """With the decision that utils/verify would give; the page computes it from the ratio."""
    click(browser, "#first .record")
    browser.wait_for("/Recording: 2/.test(document.querySelector('#first .state').innerText)")
    assert browser.run("document.querySelector('#first meter').value") > 0.01
    click(browser, "#first .record")
    said = heard(browser, "first")
    assert 1.5 <= float(said.split()[0]) < 6 and said.endswith("s of sound")
    assert 0.5 * float(said.split()[0]) < float(said.split()[2])
    assert "second recording is missing" in browser.run("verdict.innerText")
    assert give(browser, "second", folder / "other.wav").startswith("4.0 s")
    assert browser.wait_for("/speaker/.test(verdict.innerText) && verdict.innerText") in (
        "Same speaker", "Different speakers")
    give(browser, "first", folder / "microphone.wav")
    browser.wait_for("/decided/.test(verdict.className)")
    x = load(folder / "model").embed([str(folder / name) for name in ("microphone.wav", "other.wav")])
    scoring = Scoring.load(folder / "model")
    score = float(scoring.scores(Enrolment(x[:1]), x[1:])[0, 0])
    ratio = float(scoring.ratios(score))
    for prior in (0.05, 0.9999, 0.0001):
        browser.run(f"(() => {{prior.value = {prior}; prior.dispatchEvent(new Event('input'))}})()")
        values = [text.replace("−", "-") for text in browser.run(
            "[...facts.querySelectorAll('dd')].map(one => one.innerText)")]
        assert float(values[3]) == pytest.approx(score, abs=2e-3)
        assert float(values[1]) == pytest.approx(ratio, abs=0.04)
        assert float(values[2]) == pytest.approx(math.log((1 - prior) / prior), abs=2e-3)
        assert float(values[0]) == pytest.approx(probability(ratio, prior), abs=0.01)
        same = ratio >= math.log((1 - prior) / prior)
        assert browser.run("verdict.innerText") == ("Same speaker" if same else "Different speakers")


def test_the_page_draws_scores_spectrograms_and_attention(browser):
    assert browser.run("document.querySelectorAll('#histogram polygon').length") == 2
    places = browser.run("['.here', '.threshold'].map(one => "
                         "document.querySelector(`#histogram ${one}`).x1.baseVal.value)")
    width = browser.run("histogram.clientWidth")
    assert all(0 <= place <= width for place in places) and places[0] != places[1]
    for card in ("first", "second"):
        for canvas in (".spectrogram", ".heads"):
            colours = browser.run(
                f"(() => {{const one = document.querySelector('#{card} {canvas}');"
                " return new Set(new Uint32Array(one.getContext('2d').getImageData(0, 0, one.width, one.height)"
                ".data.buffer)).size})()")
            assert colours > 50, (card, canvas)
        heights = browser.run(f"document.querySelector('#{card} .curve').getAttribute('points')").split()
        assert len({point.split(",")[1] for point in heights}) > 20
        assert "mean of 4 heads" in browser.run(f"document.querySelector('#{card} figcaption').innerText")


def test_a_dropped_file_is_taken(folder, browser):
    browser.run(f"content = new Uint8Array({list((folder / 'short.wav').read_bytes())})")
    browser.run("""(() => {
        const transfer = new DataTransfer(), card = document.getElementById("second");
        transfer.items.add(new File([content], "../../etc/passwd"));
        for (const kind of ["dragenter", "dragover", "drop"])
            card.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
    })()""")
    assert heard(browser, "second").startswith("1.0 s")
    remarks = browser.run("[...document.querySelectorAll('#second .remarks li')].map(one => one.innerText)")
    assert len(remarks) == 1 and remarks[0].startswith("short: ")


def test_what_cannot_be_compared_is_said_at_its_card(folder, browser):
    for name, message in (("silent.wav", "digital silence; it cannot identify a speaker"),
                          ("page.html", "damaged, or not audio that can be read")):
        assert message in give(browser, "second", folder / name)
        assert browser.run("document.querySelector('#second .state').classList.contains('error')") is True
        assert "second recording is missing" in browser.run("verdict.innerText")
        assert browser.run("document.querySelectorAll('#second figure:not([hidden])').length") == 0
    assert give(browser, "second", folder / "other.wav").startswith("4.0 s")
    browser.wait_for("/decided/.test(verdict.className)")


def test_enrol_and_identify_with_the_keyboard_alone(folder, browser):
    give(browser, "voice", folder / "microphone.wav")
    browser.run("document.getElementById('name').focus()")
    browser.call("Input.insertText", text=EVIL.replace("/", ""))
    browser.press("Enter", 13, "\r")
    said = browser.wait_for("/enrolled/.test(who.innerText) && who.innerText")
    assert said == f"{EVIL} is enrolled." and browser.run("typeof hacked") == "undefined"
    assert browser.run("speakers.innerText") == f"Enrolled: {EVIL}"
    for _ in range(4):  # past the box, the button and the field of identify
        browser.press("Tab", 9)
    assert browser.run("document.activeElement.innerText") == "Identify"
    browser.press(" ", 32, " ")
    said = browser.wait_for("/probability/.test(who.innerText) && who.innerText")
    assert said.startswith((f"{EVIL}, with probability ", "Unknown, with probability "))
    assert browser.run("nearest.tBodies[0].rows[0].cells[0].innerText") == EVIL
    assert len(list((folder / "store").glob("*.json"))) == 1


def test_everything_is_reached_by_tab_in_order_and_shows_its_focus(browser):
    browser.run("document.activeElement.blur()")
    browser.run("scrollTo(0, 0)")
    reached = []
    for _ in range(60):
        browser.press("Tab", 9)
        reached.append(browser.run(
            "(() => {const one = document.activeElement, seen = one.matches('.hidden') ? one.parentElement : one,"
            " look = getComputedStyle(seen);"
            " return [one.id || one.className || one.tagName, look.outlineStyle, look.outlineWidth]})()"))
    names = [name for name, *_ in reached]
    wanted = ["record", "hidden", "AUDIO", "prior", "name", "replace", "known"]
    assert [names.index(name) for name in wanted] == sorted(names.index(name) for name in wanted)
    assert all(style != "none" and width != "0px" for name, style, width in reached if name not in ("BODY", "AUDIO"))


def test_it_loads_nothing_from_elsewhere_and_reports_no_error(browser):
    loaded = [event["params"]["request"]["url"] for event in browser.events
              if event["method"] == "Network.requestWillBeSent"]
    assert len(loaded) > 10
    assert {address.split("/")[2] for address in loaded if address.startswith("http")} == {
        browser.run("location.host")}
    said = [event["params"] for event in browser.events
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")]
    assert [one for one in said if "status of 400" not in str(one)] == []  # the refused recordings


def test_an_inserted_program_does_not_run(browser):
    browser.run("(() => {const one = document.createElement('script'); one.textContent = 'intruded = 1';"
                " document.body.append(one); one.remove();})()")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<b id=trap onclick=\"intruded = 1\">x</b>')")
    click(browser, "#trap")
    browser.run("document.getElementById('trap').remove()")
    assert browser.run("typeof intruded") == "undefined"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, width):
    browser.resize(width, 800)
    browser.wait_for(f"document.documentElement.scrollWidth <= {width}", 5)  # a resized page takes a moment


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_looks_have_readable_text(browser, scheme):
    browser.prefer(scheme)
    found = browser.run("(() => {const style = getComputedStyle(document.body);"
                        " return [style.color, style.backgroundColor]})()")
    text, ground = (sum(int(value) for value in one[4:-1].split(",")) for one in found)
    assert (ground - text if scheme == "light" else text - ground) > 450
    if picture := os.environ.get("VOX_PICTURES"):  # to be looked at
        browser.resize(1100, 900)
        with open(f"{picture}/{scheme}.png", "wb") as stream:
            stream.write(browser.picture(whole=True))

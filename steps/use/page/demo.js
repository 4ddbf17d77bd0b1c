// The page of utils/demo. It keeps recordings and embeddings; the server answers questions about them.
import * as drawing from "./drawing.js";

const LONGEST = 30, OPENING = 0.25; // seconds, of the microphone: recorded, and left out at its beginning
const find = (id) => document.getElementById(id);
const fixed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
const logOdds = (prior) => Math.log(prior / (1 - prior));
let about = null, scored = null;

async function ask(path, body) {
  const isAudio = body instanceof Blob;
  if (isAudio && body.size > about.bytes) throw new Error(`more than ${about.bytes >> 20} MB; choose a shorter recording`);
  let answer;
  try {
    answer = await fetch(path, {method: "POST", body: isAudio ? body : JSON.stringify(body),
      headers: {"Content-Type": isAudio ? "application/octet-stream" : "application/json"}});
  } catch {
    throw new Error("no answer: does utils/demo still run, and can the file still be read?");
  }
  const found = await answer.json().catch(() => ({error: `the server answered with status ${answer.status}`}));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

// A WAV file of samples, 16 bits.
function wav(parts, rate) {
  const length = parts.reduce((sum, part) => sum + part.length, 0), view = new DataView(new ArrayBuffer(44 + 2 * length));
  const words = (place, text) => [...text].forEach((one, index) => view.setUint8(place + index, one.charCodeAt(0)));
  words(0, "RIFF"); view.setUint32(4, 36 + 2 * length, true); words(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  words(36, "data"); view.setUint32(40, 2 * length, true);
  let place = 44;
  for (const part of parts) {
    for (const value of part) {
      view.setInt16(place, Math.round(32767 * Math.min(Math.max(value, -1), 1)), true);
      place += 2;
    }
  }
  return new Blob([view], {type: "audio/wav"});
}

// The samples of the microphone, until stop() is called; level(peak, seconds) is called as they come.
async function openMicrophone(level) {
  // Processing for calls would change the voice.
  const stream = await navigator.mediaDevices.getUserMedia({audio: {
    channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  const context = new AudioContext(), parts = [];
  let length = 0, skipped = -1;
  await context.audioWorklet.addModule("recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", {numberOfOutputs: 0});
  recorder.port.onmessage = ({data}) => {
    // Not what a microphone gives while it opens, nor the click on the button.
    if (skipped < 0 && data.every((value) => value === 0)) return;
    if (skipped < OPENING * context.sampleRate) {
      skipped = Math.max(skipped, 0) + data.length;
      return;
    }
    parts.push(data);
    length += data.length;
    level(data.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0), length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(recorder);
  return {stop() {
    recorder.port.onmessage = null;
    for (const track of stream.getTracks()) track.stop();
    context.close();
    return wav(parts, context.sampleRate);
  }};
}

// A card that takes a recording; `heard` is the server's answer, null before. changed() is called after each.
class Recording {
  constructor(id, title, changed) {
    this.root = find(id);
    this.root.append(find("recording").content.cloneNode(true));
    this.changed = changed;
    this.heard = this.microphone = this.address = null;
    const part = (words) => this.root.querySelector(words);
    [this.button, this.label, this.file, this.meter, this.state, this.player, this.remarks, this.picture] = [
      ".record", ".label", "input", "meter", ".state", "audio", ".remarks", ".picture"].map(part);
    part("h3").textContent = title;
    this.button.addEventListener("click", () => this.microphone ? this.stop() : this.record());
    this.file.addEventListener("change", () => {
      if (this.file.files.length) this.take(this.file.files[0]);
      this.file.value = "";
    });
    for (const name of ["dragenter", "dragover"]) this.root.addEventListener(name, (event) => this.over(event, true));
    for (const name of ["dragleave", "drop"]) this.root.addEventListener(name, (event) => this.over(event, false));
    this.root.addEventListener("drop", (event) => {
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
    if (!navigator.mediaDevices) {
      this.button.disabled = true;
      this.say("No microphone: browsers lend it only to pages of this machine (localhost) or over https. Choose a file.");
    }
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  over(event, inside) {
    event.preventDefault();
    this.root.classList.toggle("over", inside);
  }

  say(text, isError = false) {
    this.state.textContent = text;
    this.state.classList.toggle("error", isError);
    this.state.classList.toggle("dim", !isError);
  }

  async record() {
    try {
      this.microphone = await openMicrophone((peak, seconds) => {
        this.meter.value = Math.max(this.meter.value * 0.97, peak);
        this.say(`Recording: ${seconds.toFixed(1)} s`);
        if (seconds >= LONGEST) this.stop();
      });
    } catch (error) {
      this.say(`The microphone cannot be used: ${error.message}`, true);
      return;
    }
    this.root.classList.add("busy");
    this.meter.hidden = false;
    this.label.textContent = "Stop";
  }

  stop() {
    const sound = this.microphone.stop();
    this.microphone = null;
    this.root.classList.remove("busy");
    this.meter.hidden = true;
    this.label.textContent = "Record again";
    this.take(sound);
  }

  async take(sound) {
    if (this.address) URL.revokeObjectURL(this.address);
    this.heard = null;
    this.address = this.player.src = URL.createObjectURL(sound);
    this.player.hidden = false;
    this.remarks.replaceChildren();
    this.picture.hidden = true;
    this.changed();
    this.say("Listening …");
    const asked = this.asked = Symbol();
    try {
      const heard = await ask("listen", sound);
      if (asked !== this.asked) return; // another recording has come
      this.heard = heard;
      this.say(`${this.heard.seconds.toFixed(1)} s, ${this.heard.sound.toFixed(1)} s of sound`);
    } catch (error) {
      if (asked !== this.asked) return;
      this.player.hidden = true;
      this.say(error.message, true);
    }
    this.show();
    this.changed();
  }

  show() {
    const {heard} = this;
    this.remarks.replaceChildren(...(heard ? heard.remarks : []).map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
    this.picture.hidden = !heard;
    if (!heard) return;
    drawing.spectrogram(this.root.querySelector(".spectrogram"), heard.spectrogram);
    const canvas = this.root.querySelector(".heads"), attention = heard.attention;
    canvas.hidden = !attention || !attention.each.length;
    if (!canvas.hidden) drawing.heads(canvas, attention.each);
    const several = attention && attention.heads > 1 ? `mean of ${attention.heads} heads` : "one head";
    this.root.querySelector("figcaption").textContent = !attention ?
      "Spectrogram. This model has no attention weights." :
      `Spectrogram; attention weights, ${several}, against 1/T, their mean${canvas.hidden ? "" : "; the weights of each head"}.`;
    this.draw();
  }

  draw() {
    if (!this.heard || this.picture.hidden) return;
    const {attention, seconds} = this.heard, place = this.root.querySelector(".weights");
    if (attention) drawing.weights(place, attention.mean, "Attention weights over time");
    else place.replaceChildren();
    drawing.seconds(this.root.querySelector(".axis"), seconds);
  }
}

function priorOf(field) {
  const prior = Number(field.value), ok = prior > 0 && prior < 1;
  field.setCustomValidity(ok ? "" : "more than 0 and less than 1");
  return ok ? prior : null;
}

function verdict(place, text, kind = "") {
  place.textContent = text;
  place.className = `${place.classList.contains("small") ? "verdict small" : "verdict"} ${kind && `decided ${kind}`}`;
}

function facts(pairs) {
  find("facts").replaceChildren(...pairs.flatMap(([name, value]) => [["dt", name], ["dd", value]]).map(([tag, text]) => {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }));
}

// Show the score and, where the model is calibrated, the decision at the prior of the page.
function show() {
  const prior = priorOf(find("prior")), known = about.calibration, place = find("verdict");
  const threshold = prior === null ? null : -logOdds(prior);
  if (about.histogram) {
    drawing.histogram(find("histogram"), about.histogram, scored ? scored.score : null,
      known && known.weight > 0 && threshold !== null ? (threshold - known.offset) / known.weight : null);
  }
  if (!scored) return;
  if (scored.ratio === null) {
    verdict(place, "No decision: this model is not calibrated.");
    facts([["score", fixed(scored.score, 4)]]);
  } else if (prior === null) {
    verdict(place, "Give a probability between 0 and 1.");
  } else {
    const same = scored.ratio >= threshold, probability = 1 / (1 + Math.exp(threshold - scored.ratio));
    verdict(place, same ? "Same speaker" : "Different speakers", same ? "same" : "different");
    facts([["probability of one speaker", fixed(probability, 4)],
      ["log-likelihood ratio", fixed(scored.ratio, 3)], ["threshold", fixed(threshold, 3)],
      ["score", fixed(scored.score, 4)]]);
  }
}

async function compare() {
  scored = null;
  facts([]);
  const asked = compare.asked = Symbol(), pair = [first.heard, second.heard];
  const missing = ["first", "second"].filter((_, place) => !pair[place]);
  if (missing.length) {
    verdict(find("verdict"), missing.length === 2 ? "Record or choose both recordings." : `The ${missing[0]} recording is missing.`);
    show();
    return;
  }
  try {
    const found = await ask("verify", {first: pair[0].embedding, second: pair[1].embedding});
    if (asked !== compare.asked) return;
    scored = found;
    show();
  } catch (error) {
    verdict(find("verdict"), error.message, "different");
  }
}

function showSpeakers(names) {
  find("speakers").textContent = names.length ? `Enrolled: ${names.join(", ")}` : "Nobody is enrolled.";
}

// Run a form's question; its answer, or what is wrong, is said at #who.
function onSubmit(id, question) {
  find(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    find("nearest").hidden = true;
    try {
      if (!voice.heard) throw new Error("Record or choose a recording first.");
      await question();
    } catch (error) {
      verdict(find("who"), error.message, "different");
    }
  });
}

onSubmit("enrol", async () => {
  const {embedding, sound} = voice.heard;
  const found = await ask("enrol", {name: find("name").value, replace: find("replace").checked, recordings: [{embedding, sound}]});
  verdict(find("who"), `${found.name} is enrolled.`, "same");
  showSpeakers(found.speakers);
});

onSubmit("identify", async () => {
  const prior = priorOf(find("known"));
  if (prior === null) throw new Error("Give a probability between 0 and 1.");
  const found = await ask("identify", {embedding: voice.heard.embedding, prior});
  verdict(find("who"), `${found.known ? found.answer : "Unknown"}, with probability ${fixed(found.probability, 4)}`,
    found.known ? "same" : "different");
  find("nearest").tBodies[0].replaceChildren(...found.speakers.map(({name, ratio, score}) => {
    const row = document.createElement("tr");
    for (const [text, kind] of [[name, ""], [fixed(ratio, 3), "number"], [fixed(score, 4), "number"]]) {
      const cell = row.insertCell();
      cell.textContent = text;
      cell.className = kind;
    }
    return row;
  }));
  find("nearest").hidden = false;
});

find("prior").addEventListener("input", show);
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault()); // beside a card

about = await (await fetch("about")).json();
const known = about.calibration;
find("model").textContent = `${about.system}: ${about.rate / 1000} kHz, chain ${about.chain} (${about.words}), ${known ?
  `calibrated on ${known.trials} trials of held-out training speakers, EER ${known.eer.toFixed(2)} %` : "not calibrated"}`;
find("histogram-says").textContent = about.histogram ?
  "Scores of the held-out training speakers, as shares of the trials with one speaker and with two." :
  "The model keeps no scores of held-out speakers to show: train its calibration again, and bundle it again.";
if (known) find("prior").value = known.prior;
showSpeakers(about.speakers);
const first = new Recording("first", "First recording", compare), second = new Recording("second", "Second recording", compare);
const voice = new Recording("voice", "Recording", () => {});
new ResizeObserver(show).observe(find("histogram"));
document.body.dataset.ready = "true";
